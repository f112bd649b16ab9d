//! Compares the desired state with the objects that exist, and returns the steps of a change. Each
//! step is one transaction, so that packets never meet a half of it.
//!
//! # What a packet meets
//! ```text
//! prerouting   before-tracking: packets with a resolver's source do not come from pods (answers);
//!              lookups are given their conntrack zone (interception)
//! prerouting   intercept-dnat or intercept-tproxy: lookups of pods go to the proxy (interception)
//! prerouting   handover: connections that are looked into go to who does (handover); answers to
//!              what that sends in their place come to this node
//! bridge       answers: of these, what a bridge would pass on (bridge_answers)
//! output       resumed: what is sent in a client's place, by the programs of both ends (handover)
//! input        established; related, errors among them (related); neighbour discovery; lookups
//!              that were intercepted, and those sent to the proxy itself; dispatch (base,
//!              interception)
//! forward      established; related; neighbour discovery; dispatch; dispatch-in
//! output       the same with dispatch-in alone, only where policies decide about this node too
//! dispatch     lookups that nobody intercepted (interception); source address → chain of its
//!              program (dispatch); any other source passes, unless it comes from a link that leads
//!              to governed pods and does not belong there (strangers)
//! dispatch-in  destination address → chain of its program (dispatch); any other destination
//!              passes, unless it may become a pod's
//! ep4-…, in4-… classes in order, then prefixes, then the default verdict (program_chains)
//! refuse       counted, then rejected at a limited rate, or dropped (refusal)
//! cut-…        before all of these while flows are cut: refuses their packets (cut_chains)
//! ```
//!
//! A packet of an established flow costs the first rule only, and before that one comparison of its
//! source port. The first packet of a flow costs one lookup for its source, and in its program a
//! number of lookups that does not depend on how many pods, policies, names, prefixes or addresses
//! there are ([`longest_path()`]); then the same for its destination
//! ([`longest_path_of_both_ends`]). A packet whose source no program governs costs one lookup more,
//! for its link, and on a pod's link up to three; one whose destination no program governs costs
//! the lookup that finds none.
//!
//! # Two kinds of rules
//! The *frame* (hooks, interception, refusal) changes with settings only. It is one document of the
//! typed `nftables` crate, applied by `nft`: its chains are flushed and written anew in one
//! transaction. Chains and sets that are not ours (those of an older version, for example) are
//! deleted after it.
//!
//! *Programs* come and go with policies and pods. Their chains are simple and many, and the sets
//! that frame and programs look things up in change all the time. These are written by netlink,
//! because `nft` would read all existing objects before each change.
//!
//! # How rules change without a gap
//! 1. New programs: their sets with elements, and their chains. Nothing refers to them yet.
//! 2. Elements of the [sets of the table](table_sets), the maps from addresses to chains among
//!    them: one transaction, so that every later packet finds its new programs complete.
//! 3. The frame, if settings have changed.
//! 4. Objects that no rule needs any more are deleted. Not earlier: the kernel hides the elements
//!    of a set that it deletes from packets that are still in the former rules.
//!
//! Programs that stay, their learned sets and the counters are not touched. When the frame is
//! refused, step 2 is undone.

mod base;
pub(crate) mod bridge_answers;
mod chain_names;
mod chains_in_use;
pub(crate) mod change;
pub(crate) mod closed_chains;
pub(crate) mod cut_chains;
mod dispatch;
mod document;
mod expression;
mod handover;
mod interception;
mod longest_path;
pub(crate) mod program_chains;
pub(crate) mod refusal;
mod related;
mod set_names;
mod spoofed_resolvers;
mod strangers;
mod zones;

pub(crate) mod table_sets;

use std::collections::{BTreeMap, BTreeSet};

use document::{ChainForm, NftDocument};
pub use handover::HANDOVER_HOOK;
pub use longest_path::{longest_handover_path, longest_path, longest_path_of_both_ends};
use nftables::schema::Nftables;

use crate::desired::DesiredState;

/// The objects that exist under our table's name, as far as a transaction must know them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExistingObjects {
    /// Whether the table exists.
    pub table: bool,
    /// The names of its chains.
    pub chains: BTreeSet<String>,
    /// The names of its sets and maps.
    pub sets: BTreeSet<String>,
}

/// The transaction that makes the frame what `desired` says, in a table that has the [sets of the
/// table](table_sets) already.
///
/// The chains of `replaced` are flushed and, unless they are the frame's, deleted; the sets of
/// `replaced` are deleted. Other objects are left alone.
pub fn frame(desired: &DesiredState, replaced: &ExistingObjects) -> Nftables<'static> {
    let mut document = NftDocument::new(&desired.table, replaced);
    write_frame(&mut document, desired);
    document.finish()
}

fn write_frame(document: &mut NftDocument<'_>, desired: &DesiredState) {
    refusal::chains(document, desired);
    strangers::chain(document);
    related::chain(document);
    dispatch::chains(document, desired);
    base::chains(document, desired);
    spoofed_resolvers::chains(document, desired);
    interception::chain(document, desired);
    handover::chains(document, desired);
}

/// The names of the frame's chains.
fn frame_chains(desired: &DesiredState) -> BTreeSet<String> {
    let nothing = ExistingObjects::default();
    let mut document = NftDocument::new(&desired.table, &nothing);
    write_frame(&mut document, desired);
    document.into_chains()
}

/// The chains of the frame, as the kernel lists them.
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
            local_host,
            ..
        } = desired;
        (*interception, *fail_mode, *refusal, *records, *local_host)
    };
    settings(a) == settings(b)
        && a.table == b.table
        && a.listening == b.listening
        && a.handover == b.handover
        && spoofed_resolvers::ports(a) == spoofed_resolvers::ports(b)
        && dispatch::refuses_unknown(a) == dispatch::refuses_unknown(b)
}
