//! Objects and settings → everything that is to be in force. Pure.
//!
//! A [`Plan`] is put into the kernel, and only then published to the lookups: the gate never speaks
//! of sets that do not exist yet. The [`Planner`] makes one after the other; each is what it would
//! be if it were the first.

mod active_plan;
mod address_conflicts;
mod compiling;
mod evaluated_tiers;
mod governance;
mod governed;
mod inspected_services;
mod leased_elements;
pub mod opened_pods;
mod planner;
mod resolvers;
mod selectors;
mod spec_index;
mod surroundings;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ahash::HashMap;
use api::EndpointRow;
use dns_proxy::Listener;
use enforcer::pod_links::{NodeNetwork, PodLinks};
use enforcer::{DesiredState, Element, Interception};
use fqdn_cache::{LeaseTiming, Teacher};
use names::{Name, Pattern};
use policy::address::{Teachable, ZoneMap};
use policy::{Endpoint, Inventory, Policy, PolicyId, ProgramId};
use settings::NameMatching;
use smallvec::SmallVec;

pub use active_plan::{ActivePlan, target_address};
pub use address_conflicts::{AddressConflict, report};
pub use evaluated_tiers::EvaluatedTiers;
pub use governed::Governed;
pub use planner::Planner;
pub use resolvers::{Resolver, Teaches};
pub use selectors::MatchedName;
use selectors::{SelectingRule, Selectors};

/// Everything that is in force at a time. A clone shares its parts.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What the kernel holds.
    pub desired: Arc<DesiredState>,
    /// Where the proxy listens.
    pub listeners: Arc<[Listener]>,
    /// Who governs lookups from an address. Endpoints that no policy selects for egress are absent.
    pub governed: Arc<BTreeMap<IpAddr, Arc<Governed>>>,
    /// Whom to ask for a lookup that was sent to a known resolver.
    pub resolvers: Arc<HashMap<SocketAddr, Resolver>>,
    /// Which addresses a name may open.
    pub teachable: Arc<Teachable>,
    /// Local endpoints, for people.
    pub endpoints: Arc<[EndpointRow]>,
    /// Addresses that several local Pods claim.
    pub conflicts: Arc<[AddressConflict]>,
    /// Local endpoints, governed or not, to explain what becomes of their packets.
    pub local: Arc<[Endpoint]>,
    /// Every policy.
    pub policies: Arc<[Arc<Policy>]>,
    /// Every object that rules may speak of.
    pub inventory: Inventory,
    /// Where addresses lie.
    pub places: Arc<ZoneMap>,
    teachers: Arc<HashMap<IpAddr, Teaches>>,
    /// Those that have rules about names.
    evaluations: Arc<[Arc<EvaluatedTiers>]>,
    selectors: Arc<Selectors>,
    matching: NameMatching,
    lease: LeaseTiming,
}

impl Plan {
    /// Whether it decides everything as `other` does, a plan of the same [`Planner`]: at most the
    /// objects of their inventories differ, and in nothing that a rule in force speaks of. Then it
    /// needs nothing that is not in force already. Costs nothing.
    pub fn decides_as(&self, other: &Plan) -> bool {
        // Whatever else differs comes with a desired state of its own.
        Arc::ptr_eq(&self.desired, &other.desired)
    }

    /// Whether at most the addresses differ that rules about objects mean: the same pods are
    /// governed by the same programs, and the same resolvers are known. Costs nothing, as
    /// [`decides_as`](Self::decides_as).
    pub fn differs_in_members_alone(&self, other: &Plan) -> bool {
        // A plan that is made anew has resolvers of its own.
        Arc::ptr_eq(&self.resolvers, &other.resolvers)
    }

    /// Where its pods are in a network of this node.
    pub fn pod_links(&self, network: &NodeNetwork) -> PodLinks {
        planner::pod_links(network, &self.local, &self.governed, &self.desired.servers)
    }

    /// The names that an answer counts for: those of the question and, with `dns.match: chain`,
    /// of its validated chain that some selector matches. If it is `expanded`, the first of the
    /// chain counts as the question does ([`counts_as`]).
    ///
    /// [`counts_as`]: policy::question::Questions::counts_as
    pub fn matched_names<'a>(
        &'a self,
        question: &'a Name,
        chain: &'a [Name],
        expanded: bool,
    ) -> SmallVec<[MatchedName<'a>; 1]> {
        let chain = match self.matching {
            NameMatching::Question => &chain[..usize::from(expanded).min(chain.len())],
            NameMatching::Chain => chain,
        };
        std::iter::once(question)
            .chain(chain)
            .filter_map(|name| self.selectors.matched(name))
            .collect()
    }

    /// Who it is that answers from `source`.
    pub fn teacher(&self, source: IpAddr) -> Teacher {
        match self.teachers.get(&source) {
            Some(Teaches::Everyone) => Teacher::Trusted(source),
            None if self.is_transparent() => Teacher::Trusted(source),
            Some(Teaches::Programs(_)) | None => Teacher::Private(source),
        }
    }

    /// What `address`, learned for a name from `teacher`, opens or closes.
    pub fn elements(
        &self,
        matched: &MatchedName<'_>,
        address: IpAddr,
        teacher: Teacher,
        mut element: impl FnMut(Element),
    ) {
        for rule in matched.rules() {
            if self.may_teach(teacher, rule.tiers.0) {
                rule.elements(&self.evaluations, address, &self.places, &mut element);
            }
        }
    }

    /// The terms of a name's leases, where a policy that selects it says something of them: the
    /// longest of those that count, be it a policy's or the configuration's.
    pub fn lease_terms(&self, matched: &MatchedName<'_>) -> Option<LeaseTiming> {
        if !self.selectors.have_terms() {
            return None;
        }
        let own = |rule: &SelectingRule| LeaseTiming {
            min_ttl: rule.lease.min_ttl.unwrap_or(self.lease.min_ttl),
            grace: rule.lease.grace.unwrap_or(self.lease.grace),
            ..self.lease
        };
        matched.rules().map(own).reduce(|longest, own| LeaseTiming {
            min_ttl: longest.min_ttl.max(own.min_ttl),
            grace: longest.grace.max(own.grace),
            ..longest
        })
    }

    /// The selectors that match a name and the policies that they come from, for people.
    pub fn attribution(&self, name: &Name) -> (BTreeSet<&Pattern>, BTreeSet<&PolicyId>) {
        let (mut patterns, mut policies) = (BTreeSet::new(), BTreeSet::new());
        self.selectors.each_match(name, |selector| {
            patterns.insert(&selector.pattern);
            policies.extend(&selector.policies);
        });
        (patterns, policies)
    }

    /// Whether a local endpoint, governed or not, has this address. Takes a look at each: not for
    /// every lookup.
    pub fn is_local(&self, address: IpAddr) -> bool {
        let mut endpoints = self.endpoints.iter();
        endpoints.any(|endpoint| endpoint.addresses.contains(&address))
    }

    /// Whether a Pod of this node may come to be at this address, and until then all its packets
    /// are refused (`--unknown-pods deny`). Takes a look at each range: not for every lookup.
    pub fn may_become_local(&self, address: IpAddr) -> bool {
        self.desired.unknown.iter().any(|range| range.contains(&address))
    }

    /// Whether lookups keep the destination that they were sent to.
    fn is_transparent(&self) -> bool {
        matches!(self.desired.interception, Interception::Tproxy { .. })
    }

    /// Whom to ask for a lookup that was sent to `resolver`, first to last; `None` when it is not
    /// known.
    pub fn upstreams(&self, resolver: SocketAddr) -> Option<Arc<[SocketAddr]>> {
        match self.resolvers.get(&resolver) {
            Some(known) => Some(Arc::clone(&known.upstreams)),
            // tproxy sees a Service's backend; the kernel let it in because the Service is known.
            // Our own transparent port, asked directly, is no resolver and would ask itself.
            None => (self.is_transparent() && !self.listens_on(resolver)).then(|| Arc::new([resolver]) as _),
        }
    }

    /// Whether `address` reaches one of our own listeners.
    fn listens_on(&self, address: SocketAddr) -> bool {
        self.listeners
            .iter()
            .any(|listener| listener.address.port() == address.port())
            && self.desired.host.contains(&address.ip())
    }

    /// Whether what `teacher` answered opens anything in tiers of this identity.
    ///
    /// A server that is not known (any more) teaches nobody: what a withdrawn policy's own resolver
    /// said must not outlive the policy. Under tproxy the kernel has let only lookups to known
    /// resolvers in, and a Service's backend, which answers for it there, is not known by its own
    /// address.
    pub fn may_teach(&self, teacher: Teacher, tiers: ProgramId) -> bool {
        match (self.teachers.get(&teacher.address()), teacher) {
            (Some(Teaches::Everyone), _) => true,
            (Some(Teaches::Programs(programs)), _) => programs.contains(&tiers),
            (None, Teacher::Trusted(_)) => self.is_transparent(),
            (None, Teacher::Private(_)) => false,
        }
    }

    /// Whether what `teacher` answered counts for an endpoint.
    pub fn teaches(&self, teacher: Teacher, endpoint: &Governed) -> bool {
        let program = self.desired.programs.get(&endpoint.program);
        program.is_some_and(|program| program.evaluations().any(|it| self.may_teach(teacher, it.id)))
    }
}
