//! Runs `nft`, for what changes rarely.

use std::io::{self, Write};
use std::process::{Command, Output, Stdio};

use nftables::batch::Batch;
use nftables::schema::{NfListObject, Nftables, Table};
use nftables::types::NfFamily;

use super::error::InstallError;

/// Applies a document as one transaction, in the calling thread's network namespace.
///
/// `nftables::helper` is not used because it sends the complaints of nft to our own standard error.
pub(super) fn apply(document: &Nftables<'_>) -> Result<(), InstallError> {
    let text = serde_json::to_string(document).map_err(|error| InstallError::Refused(error.to_string()))?;
    let output = run(&text).map_err(InstallError::NoNft)?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    if complaint.contains("Operation not permitted") {
        return Err(InstallError::NoPermission);
    }
    match complaint.trim() {
        "" => Err(InstallError::Refused(format!("nft ended with {}", output.status))),
        complaint => Err(InstallError::Refused(complaint.to_owned())),
    }
}

/// Deletes these tables, if they exist.
pub(super) fn delete_tables(tables: &[&str]) -> Result<(), InstallError> {
    let mut batch = Batch::new();
    for table in tables {
        // Added first, because it is an error to delete a table that does not exist.
        batch.add(table_object(table));
        batch.delete(table_object(table));
    }
    apply(&batch.to_nftables())
}

/// A table of family `inet`.
pub(super) fn table_object(table: &str) -> NfListObject<'static> {
    NfListObject::Table(Table {
        family: NfFamily::INet,
        name: table.to_owned().into(),
        handle: None,
    })
}

fn run(text: &str) -> io::Result<Output> {
    let mut nft = Command::new("nft")
        .args(["-j", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut input) = nft.stdin.take() {
        // nft reads everything before it says anything. If it ends earlier, its status and
        // complaint tell why.
        let _ = input.write_all(text.as_bytes());
    }
    nft.wait_with_output()
}
