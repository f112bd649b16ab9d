//! Objects and settings → everything that is to be in force. Pure.
//!
//! A [`Plan`] is put into the kernel, and only then published to the lookups: the gate never speaks
//! of sets that do not exist yet. The [`Planner`] makes one after the other; each is what it would
//! be if it were the first. It computes again only what a change touches, in stages: what governs
//! the local pods (`governance`), what lies around (`surroundings`), and which addresses the
//! rules mean (`evaluated_tiers`). A stage whose inputs are the same allocations as before is
//! kept, so what is shared between two plans costs the second one nothing.

mod active_plan;
mod address_conflicts;
mod compiling;
mod evaluated_tiers;
mod governance;
mod governed;
mod leased_elements;
pub mod opened_pods;
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
use cluster::index::Cluster;
use dns_proxy::Listener;
use enforcer::desired::{KernelProgram, KernelTiers};
use enforcer::pod_links::PodLinks;
use enforcer::{DesiredState, Element, Interception};
use fqdn_cache::{LeaseTiming, Teacher};
use ipnet::IpNet;
use names::{Name, Pattern};
use policy::address::{Teachable, ZoneMap, without};
use policy::membership::{Membership, TrackedRuleKey};
use policy::{Endpoint, Inventory, Policy, PolicyId, Program, ProgramId, Tiers};
use settings::{NameMatching, Settings, UnknownPods};
use smallvec::SmallVec;

pub use active_plan::{ActivePlan, target_address};
pub use address_conflicts::{AddressConflict, report};
use compiling::Compiler;
pub use evaluated_tiers::EvaluatedTiers;
use evaluated_tiers::TrackedTiers;
use governance::Governance;
pub use governed::Governed;
pub use resolvers::{Resolver, Teaches};
pub use selectors::MatchedName;
use selectors::{SelectingRule, Selectors};
use surroundings::Surroundings;

/// Everything that is in force at a time.
#[derive(Debug)]
pub struct Plan {
    /// What the kernel holds.
    pub desired: DesiredState,
    /// Where the proxy listens.
    pub listeners: Vec<Listener>,
    /// Who governs lookups from an address. Endpoints that no policy selects for egress are absent.
    pub governed: Arc<BTreeMap<IpAddr, Arc<Governed>>>,
    /// Whom to ask for a lookup that was sent to a known resolver.
    pub resolvers: HashMap<SocketAddr, Resolver>,
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
    teachers: HashMap<IpAddr, Teaches>,
    /// Those that have rules about names.
    evaluations: Vec<Arc<EvaluatedTiers>>,
    selectors: Arc<Selectors>,
    matching: NameMatching,
    lease: LeaseTiming,
}

/// Makes plans, one after the other.
#[derive(Debug, Default)]
pub struct Planner {
    compiler: Compiler,
    governance: Option<Arc<Governance>>,
    membership: Membership,
    evaluations: BTreeMap<ProgramId, TrackedTiers>,
    /// The tiers that follow each tracked rule.
    followers: HashMap<TrackedRuleKey, BTreeSet<ProgramId>>,
    surroundings: Option<Surroundings>,
    programs: BTreeMap<ProgramId, TrackedProgram>,
    selectors: Arc<Selectors>,
}

/// A program, with the classifiers of its evaluations.
#[derive(Debug)]
struct TrackedProgram {
    program: Arc<Program>,
    folded: Arc<KernelProgram>,
}

impl Planner {
    /// Computes what should be in force. `own` are this node's addresses.
    pub fn plan(&mut self, cluster: &Cluster, settings: &Settings, own: &BTreeSet<IpAddr>) -> Plan {
        let inventory = cluster.inventory();
        let surroundings = Surroundings::update(&mut self.surroundings, cluster, settings, own).clone();
        self.membership.update(&inventory);
        let (governance, is_new) =
            Governance::update(&mut self.governance, &mut self.compiler, cluster, &inventory, settings);
        if is_new {
            self.track(&governance.programs, &surroundings.places);
        }
        self.evaluate(&surroundings);
        let tracked = self.evaluations.values().map(|tracked| &tracked.evaluation);
        let members = tracked.clone().map(|it| (it.id, it.elements.clone())).collect();
        let evaluations: Vec<_> = tracked.filter(|it| it.has_names()).cloned().collect();
        if !self.selectors.are_of(&evaluations) {
            self.selectors = Arc::new(Selectors::new(&evaluations));
        }

        let resolvers = resolvers::known(cluster, settings, &governance.compiled);
        let bindings = resolvers::bind(resolvers.keys().copied(), settings.interception);
        Plan {
            listeners: resolvers::listeners(settings, &bindings),
            desired: DesiredState {
                table: settings.table.clone(),
                programs: self
                    .programs
                    .iter()
                    .map(|(id, it)| (*id, Arc::clone(&it.folded)))
                    .collect(),
                members,
                local_host: settings.local_host,
                intercepted: governance.governed.keys().copied().collect(),
                dispatch: governance.dispatch.clone(),
                resolvers: bindings,
                listening: settings.listen.clone(),
                interception: settings.interception,
                fail_mode: settings.fail_mode,
                cluster: surroundings.networks.to_vec(),
                host: own.clone(),
                // Follows from the node's network, which changes without the objects.
                pod_links: PodLinks::default(),
                servers: resolvers
                    .keys()
                    .filter(|asked| !asked.ip().is_loopback())
                    .copied()
                    .collect(),
                unknown: unknown(cluster, settings, own),
                refusal: settings.refusal,
                // Follows from what looks into connections on this node.
                handover: None,
                records: settings.records_group,
                capacity: settings.capacity,
            },
            endpoints: Arc::clone(&governance.rows),
            conflicts: Arc::clone(&governance.conflicts),
            governed: Arc::clone(&governance.governed),
            teachers: resolvers::teachers(&resolvers),
            resolvers,
            teachable: surroundings.teachable,
            evaluations,
            selectors: Arc::clone(&self.selectors),
            matching: settings.matching,
            lease: settings.lease,
            local: Arc::clone(&governance.local),
            policies: Arc::clone(&governance.policies),
            inventory,
            places: surroundings.places,
        }
    }

    /// Tracks the tiers of these programs, and no others any more.
    fn track(&mut self, programs: &BTreeMap<ProgramId, Arc<Program>>, places: &ZoneMap) {
        let mut before = std::mem::take(&mut self.evaluations);
        let programs_before = std::mem::take(&mut self.programs);
        for (id, program) in programs {
            let known = programs_before.get(id);
            let known = known.filter(|known| Arc::ptr_eq(&known.program, program));
            let (enforced, audited) = match known {
                Some(TrackedProgram { folded, .. }) => {
                    (folded.enforced.id, folded.audited.as_ref().map(|tiers| tiers.id))
                }
                None => (program.enforced.id(), program.audited.as_ref().map(Tiers::id)),
            };
            let audited = program.audited.as_ref().zip(audited);
            let folded = KernelProgram {
                enforced: self.track_tiers(&program.enforced, enforced, &mut before, places),
                audited: audited.map(|(tiers, id)| self.track_tiers(tiers, id, &mut before, places)),
                response: program.response,
            };
            let tracked = TrackedProgram {
                program: Arc::clone(program),
                folded: Arc::new(folded),
            };
            self.programs.insert(*id, tracked);
        }
        for (id, gone) in before {
            for key in gone.tracked() {
                if let Some(followers) = self.followers.get_mut(key) {
                    followers.remove(&id);
                    if followers.is_empty() {
                        self.followers.remove(key);
                    }
                }
            }
            gone.release(&mut self.membership);
        }
    }

    /// Tracks tiers, and those that stand for rules that they share. `before` has those that were
    /// tracked and are not yet again.
    fn track_tiers(
        &mut self,
        tiers: &Tiers,
        id: ProgramId,
        before: &mut BTreeMap<ProgramId, TrackedTiers>,
        places: &ZoneMap,
    ) -> KernelTiers {
        if let Some(known) = self.evaluations.get(&id) {
            return known.folded();
        }
        let tracked = match before.remove(&id) {
            Some(mut known) => {
                known.rename(tiers);
                known
            }
            None => {
                let new = TrackedTiers::new(tiers, &mut self.membership, places);
                for key in new.tracked() {
                    self.followers.entry(*key).or_default().insert(id);
                }
                new
            }
        };
        let folded = tracked.folded();
        self.evaluations.insert(id, tracked);
        for shared in folded.classifier.shared() {
            self.track_tiers(&shared.tiers, shared.id, before, places);
        }
        folded
    }

    /// Brings the evaluations up to date with what the membership has changed, and with where
    /// addresses lie.
    fn evaluate(&mut self, surroundings: &Surroundings) {
        let places = &surroundings.places;
        let followers = |key| self.followers.get(key).into_iter().flatten().copied();
        let concerned: BTreeSet<ProgramId> = self.membership.changed().keys().flat_map(followers).collect();
        for id in concerned {
            if let Some(tracked) = self.evaluations.get_mut(&id) {
                tracked.update(&self.membership, places);
            }
        }
        if let Some(before) = &surroundings.places_before {
            for tracked in self.evaluations.values_mut() {
                tracked.relocate(places, |address| before.of(address) != places.of(address));
            }
        }
    }
}

impl Plan {
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

/// Where Pods of this node may come to be whose objects are not known yet, if these are to be
/// refused.
fn unknown(cluster: &Cluster, settings: &Settings, own: &BTreeSet<IpAddr>) -> Vec<IpNet> {
    if settings.unknown_pods == UnknownPods::Allow {
        return Vec::new();
    }
    let known = cluster.addresses();
    let known: Vec<IpNet> = known.chain(own.iter().copied()).map(IpNet::from).collect();
    let ranges = cluster.pod_ranges();
    ranges.into_iter().flat_map(|range| without(range, &known)).collect()
}
