//! Running `nft`, for what changes rarely.

use nftables::batch::Batch;
use nftables::helper::{DEFAULT_NFT, NftablesError, apply_ruleset, get_current_ruleset_with_args};
use nftables::schema::{NfListObject, NfObject, Nftables, Table};
use nftables::types::NfFamily;

use super::InstallError;
use crate::ruleset::{REFUSED_V4, REFUSED_V6};

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

/// The counters of refused packets, IPv4 and IPv6.
pub(super) fn refused_packets(table: &str) -> Option<[u64; 2]> {
    let listing = get_current_ruleset_with_args(DEFAULT_NFT, ["list", "counters", "table", "inet", table]).ok()?;
    let packets = |counter: &str| {
        listing.objects.iter().find_map(|object| match object {
            NfObject::ListObject(NfListObject::Counter(found)) if found.name == counter => found.packets,
            _ => None,
        })
    };
    Some([packets(REFUSED_V4)?, packets(REFUSED_V6)?].map(|packets| u64::try_from(packets).unwrap_or(u64::MAX)))
}

/// A table of our family.
pub(super) fn table_object(table: &str) -> NfListObject<'static> {
    NfListObject::Table(Table {
        family: NfFamily::INet,
        name: table.to_owned().into(),
        handle: None,
    })
}
