//! Desired × what stands → one atomic nftables document.
//!
//! # What a packet meets
//! ```text
//! prerouting   intercept-dnat or intercept-tproxy   lookups of pods go to the proxy            (interception)
//! input        established → neighbour discovery → lookups, intercepted or not → dispatch       (base, interception)
//! forward      established → neighbour discovery → lookups that were not intercepted → dispatch
//! dispatch     source address → chain of its program; any other source passes                  (dispatch)
//! ep4-…, ep6-… deny → allow → refuse, or pass where the program leaves egress open             (program)
//! refuse       counted, then rejected at a limited rate, or dropped                            (refusal)
//! ```
//!
//! A packet of an established flow pays the first rule only. The first packet of a flow pays one lookup for its source and, in each half
//! of its program that uses them: one for exact entries, one for each group, and for each zone one among prefixes with every port and
//! one among prefixes with ports, each after one for the zone itself. None of it depends on how many pods, policies, names or addresses there are.
//!
//! # How one document replaces rules without a gap
//! Everything happens in one transaction. Declarations come first, because declaring what stands already changes nothing. Then all chains
//! are emptied, which drops every reference to sets and chains. Then the sets of the whole table are rewritten, new programs' sets are filled,
//! and all rules are written anew. Last goes what nothing refers to any more. Learned sets of programs that stay are never emptied.
//!
//! # Where the typed documents set limits
//! They know no verdict maps with names and no `auto-merge`. So the verdict map is part of its rule (a packet pays the same for it), and
//! prefixes are merged before they are written.

mod base;
mod dispatch;
mod document;
mod expression;
mod interception;
mod program;
mod refusal;
mod zones;

use std::collections::BTreeSet;
use std::time::Duration;

use nftables::schema::Nftables;

use crate::desired::Desired;
use crate::layout::Element;
use document::Document;

pub use refusal::{AUDITED_V4, AUDITED_V6, REFUSED_V4, REFUSED_V6};

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
///
/// Elements of `learned` that belong to no set of `desired`, or to one that stands already, are left out.
pub fn transaction(desired: &Desired, standing: &Standing, learned: &[(Element, Duration)]) -> Nftables<'static> {
    let mut document = Document::new(&desired.table, standing);
    zones::declare(&mut document, desired);
    interception::declare(&mut document, desired);
    refusal::chain(&mut document, desired.refusal);
    program::chains(&mut document, desired, learned);
    dispatch::chain(&mut document, desired);
    base::chains(&mut document, desired);
    interception::chain(&mut document, desired);
    document.finish()
}
