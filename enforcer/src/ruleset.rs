//! Desired × what stands → the steps of a change, none of which a packet meets half done.
//!
//! # What a packet meets
//! ```text
//! prerouting   before-tracking                      answers of resolvers do not come from pods (answers), lookups keep their flows (interception)
//! prerouting   intercept-dnat or intercept-tproxy   lookups of pods go to the proxy            (interception)
//! input        established → errors of flows (related) → neighbour discovery → lookups, intercepted or not → dispatch       (base, interception)
//! forward      established → errors of flows (related) → neighbour discovery → lookups that were not intercepted → dispatch
//! dispatch     source address → chain of its program; any other source passes                  (dispatch),
//!              unless it comes from a link that leads to governed pods and belongs to none     (strangers)
//! ep4-…, ep6-… classes in order → prefixes → the rest                                          (program)
//! refuse       counted, then rejected at a limited rate, or dropped                            (refusal)
//! ```
//!
//! A packet of an established flow pays the first rule only, and before that one comparison of its
//! source port. The first packet of a flow pays one lookup for its source, and in its program a
//! number that does not depend on how many pods, policies, names, prefixes or addresses there are
//! ([`longest_path`]). One whose source no program governs pays one more, for its link, and on a
//! pod's link up to three.
//!
//! # Two kinds of rules
//! The *frame* (hooks, interception, refusal) changes with settings only. It is one document of the
//! typed `nftables` crate, applied by `nft`: its chains are emptied and written anew in one
//! transaction, and chains and sets that are not ours any more (an older version's, say) are
//! deleted with it.
//!
//! *Programs* come and go with policies and pods. Their chains are simple and many, and the sets
//! that the frame and they look things up in change all the time; these are written by netlink,
//! because `nft` would read all that stands before each change.
//!
//! # How rules change without a gap
//! 1. New programs: their sets, filled, and their chains. Nothing refers to them yet.
//! 2. Elements of the [sets of the table](table_sets), the map from sources to chains among them:
//!    one transaction, in which every packet that comes after it finds its new program, whole.
//! 3. The frame, if settings have changed.
//! 4. What no program needs any more is deleted.
//!
//! Programs that stand, their learned sets and counters are never touched. A frame that is refused
//! is answered by switching back.

mod answers;
mod base;
pub(crate) mod change;
pub(crate) mod closure;
mod dispatch;
mod document;
mod expression;
mod interception;
pub(crate) mod program;
pub(crate) mod refusal;
mod related;
mod set_names;
mod strangers;
mod zones;

pub(crate) mod table_sets;

use std::collections::{BTreeMap, BTreeSet};

use document::{ChainForm, NftDocument};
use nftables::schema::Nftables;
pub use program::longest_path;
pub use refusal::{AUDITED_V4, AUDITED_V6, REFUSED_V4, REFUSED_V6};

use crate::desired::DesiredState;

/// What stands in the kernel under our table's name, as far as a transaction must know it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExistingObjects {
    /// Whether the table exists.
    pub table: bool,
    /// Names of its chains.
    pub chains: BTreeSet<String>,
    /// Names of its sets and maps.
    pub sets: BTreeSet<String>,
}

/// The transaction that makes the frame what `desired` says, in a table that holds the [sets of the
/// table](table_sets) already.
///
/// The chains of `replaced` are emptied and, like its sets, deleted if they are not the frame's;
/// what is not named there is left alone.
pub fn frame(desired: &DesiredState, replaced: &ExistingObjects) -> Nftables<'static> {
    let mut document = NftDocument::new(&desired.table, replaced);
    write_frame(&mut document, desired);
    document.finish()
}

fn write_frame(document: &mut NftDocument<'_>, desired: &DesiredState) {
    refusal::chains(document, desired);
    strangers::chain(document);
    related::chain(document);
    dispatch::chain(document, desired);
    base::chains(document, desired);
    answers::chains(document, desired);
    interception::chain(document, desired);
}

/// The names of the frame's chains.
fn frame_chains(desired: &DesiredState) -> BTreeSet<String> {
    let nothing = ExistingObjects::default();
    let mut document = NftDocument::new(&desired.table, &nothing);
    write_frame(&mut document, desired);
    document.into_chains()
}

/// The chains of the frame as the kernel tells them.
pub(crate) fn frame_forms(desired: &DesiredState) -> BTreeMap<String, ChainForm> {
    let nothing = ExistingObjects::default();
    let mut document = NftDocument::new(&desired.table, &nothing);
    write_frame(&mut document, desired);
    document.into_forms()
}

/// Whether two desired states have the same frame.
pub(crate) fn have_the_same_frame(a: &DesiredState, b: &DesiredState) -> bool {
    let settings = |desired: &DesiredState| {
        let DesiredState {
            interception,
            fail_mode,
            refusal,
            records,
            ..
        } = desired;
        (*interception, *fail_mode, *refusal, *records)
    };
    settings(a) == settings(b)
        && a.table == b.table
        && a.listening == b.listening
        && answers::ports(a) == answers::ports(b)
}
