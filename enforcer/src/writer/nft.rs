//! Running `nft`, for what changes rarely.

use nftables::batch::Batch;
use nftables::helper::{NftablesError, apply_ruleset};
use nftables::schema::{NfListObject, Nftables, Table};
use nftables::types::NfFamily;

use super::InstallError;

/// Applies a document as one transaction, in the calling thread's network namespace.
pub(super) fn apply(document: &Nftables<'_>) -> Result<(), InstallError> {
    apply_ruleset(document).map_err(|error| match error {
        NftablesError::NftExecution { inner, .. } => InstallError::NoNft(inner),
        NftablesError::NftFailed { stderr, .. } if stderr.contains("Operation not permitted") => {
            InstallError::NoPermission
        }
        NftablesError::NftFailed { stderr, .. } => InstallError::Refused(stderr.trim_end().to_owned()),
        other => InstallError::Refused(other.to_string()),
    })
}

/// Deletes these tables, as far as they exist.
pub(super) fn delete_tables(tables: &[&str]) -> Result<(), InstallError> {
    let mut batch = Batch::new();
    for table in tables {
        // Added first, because deleting what is not there would be an error.
        batch.add(table_object(table));
        batch.delete(table_object(table));
    }
    apply(&batch.to_nftables())
}

/// A table of our family.
pub(super) fn table_object(table: &str) -> NfListObject<'static> {
    NfListObject::Table(Table {
        family: NfFamily::INet,
        name: table.to_owned().into(),
        handle: None,
    })
}
