//! The ledger's leases, as far as an installation needs them. There may be hundreds of thousands.

use std::collections::BTreeSet;
use std::net::IpAddr;

use clock::Time;
use policy::ProgramId;

use crate::desired::DesiredState;
use crate::layout::{Element, SetId};
use crate::ruleset;

use super::set_mirror::Holder;

/// Which of the ledger's leases an installation asks for. It may be told more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseScope {
    /// All.
    Everything,
    /// Those of some tiers, and those of some addresses in the sets of all tiers.
    Some {
        /// The tiers whose sets are new.
        tiers: BTreeSet<ProgramId>,
        /// The addresses whose members change.
        addresses: BTreeSet<IpAddr>,
    },
}

/// An element that should be in force, the end of its lease, and its holder.
pub(super) type ElementLease = (Element, Time, Holder);

/// Tells the ledger's leases of a scope.
pub(super) type AskLedger = dyn FnMut(&LeaseScope) -> Vec<ElementLease> + Send;

/// Asks the ledger, when that is needed.
pub(super) struct LedgerLeases<L> {
    ask: L,
    told: Vec<ElementLease>,
}

impl LeaseScope {
    /// Whether it asks for nothing.
    pub(super) fn is_nothing(&self) -> bool {
        matches!(self, Self::Some { tiers, addresses } if tiers.is_empty() && addresses.is_empty())
    }

    /// What a change needs from one desired state, which is in force, to another.
    ///
    /// A set that stays holds what was admitted. Something else may be needed there where other
    /// servers teach, where addresses lie elsewhere, and at addresses whose members change: a
    /// member takes the place of a lease, or decides before it.
    pub(super) fn between(
        before: &DesiredState,
        after: &DesiredState,
        new_sets: &BTreeSet<SetId>,
        addresses: BTreeSet<IpAddr>,
    ) -> Self {
        let is_alike = before.resolvers == after.resolvers
            && before.cluster == after.cluster
            && before.host == after.host
            && ruleset::have_the_same_frame(before, after);
        if !is_alike {
            return Self::Everything;
        }
        let new: BTreeSet<ProgramId> = new_sets.iter().map(|set| set.program).collect();
        let evaluations = after.programs.values().flat_map(|program| program.evaluations());
        let with_names = evaluations.filter(|evaluation| evaluation.classifier.name_rules().next().is_some());
        let ids = with_names.flat_map(|evaluation| {
            let shared = evaluation.classifier.shared_names().iter().map(|names| names.id);
            std::iter::once(evaluation.id).chain(shared)
        });
        Self::Some {
            tiers: ids.filter(|id| new.contains(id)).collect(),
            addresses,
        }
    }
}

impl<L: FnMut(&LeaseScope) -> Vec<ElementLease>> LedgerLeases<L> {
    pub(super) fn new(ask: L) -> Self {
        Self { ask, told: Vec::new() }
    }

    /// At least the leases of this scope.
    pub(super) fn of(&mut self, scope: &LeaseScope) -> &mut Vec<ElementLease> {
        self.told = match scope.is_nothing() {
            true => Vec::new(),
            false => (self.ask)(scope),
        };
        &mut self.told
    }
}
