//! Desired × what stands → one atomic nftables document.

use std::collections::BTreeSet;
use std::time::Duration;

use nftables::schema::Nftables;

use crate::desired::Desired;
use crate::layout::Element;

/// What stands in the kernel under our table's name, as far as a transaction must know it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether the table exists.
    pub table: bool,
    /// Names of its chains.
    pub chains: BTreeSet<String>,
    /// Names of its sets and maps.
    pub sets: BTreeSet<String>,
}

/// The transaction that makes the table what `desired` says.
///
/// Learned sets of programs that stay keep their elements; sets of new programs are filled with
/// `learned` (remaining lease, rounded up to the second) in the same transaction, so that no packet meets a program whose
/// addresses are still missing. Nothing outside the table is touched.
pub fn transaction(desired: &Desired, standing: &Standing, learned: &[(Element, Duration)]) -> Nftables<'static> {
    let _ = (desired, standing, learned);
    todo!()
}
