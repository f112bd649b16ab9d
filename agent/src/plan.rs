//! Objects and settings → everything that is to be in force. Pure.
//!
//! A [`Plan`] is put into the kernel, and only then published to the lookups: the gate never speaks
//! of sets that do not exist yet. The [`Planner`] makes one after the other, and computes again
//! only what a change touches; each is what it would be if it were the first.

mod address_conflicts;
mod compiling;
mod evaluated_tiers;
pub mod opened_pods;
mod resolvers;
mod selectors;

#[cfg(test)]
mod tests;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ahash::HashMap;
use api::EndpointRow;
use clock::Time;
use cluster::index::Cluster;
use dns_proxy::Listener;
use enforcer::desired::KernelProgram;
use enforcer::pod_links::PodLinks;
use enforcer::writer::Holder;
use enforcer::{DesiredState, Element, Interception, SetId};
use fqdn_cache::{LeaseOwner, LeaseTiming, Ledger, Teacher};
use ipnet::IpNet;
use names::{Name, Pattern};
use policy::address::{Teachable, ZoneMap, without};
use policy::membership::Membership;
use policy::question::Questions;
use policy::{Endpoint, EndpointId, Inventory, PerDirection, Policy, PolicyId, Program, ProgramId, Tiers};
use settings::{NameMatching, PrivateAddresses, Settings, UnknownPods};
use smallvec::SmallVec;

use address_conflicts::AddressConflicts;
pub use address_conflicts::{AddressConflict, report};
use compiling::{Compiled, Compiler};
pub use evaluated_tiers::EvaluatedTiers;
use evaluated_tiers::TrackedTiers;
pub use resolvers::{Resolver, Teaches};
pub use selectors::MatchedName;
use selectors::{SelectingRule, Selectors};

/// Everything that is in force at a time.
#[derive(Debug)]
pub struct Plan {
    /// What the kernel holds.
    pub desired: DesiredState,
    /// Where the proxy listens.
    pub listeners: Vec<Listener>,
    /// Who governs lookups from an address. Endpoints that no policy selects are absent.
    pub governed: BTreeMap<IpAddr, Arc<Governed>>,
    /// Whom to ask for a lookup that was sent to a known resolver.
    pub resolvers: HashMap<SocketAddr, Resolver>,
    /// Which addresses a name may open.
    pub teachable: Teachable,
    /// Local endpoints, for people.
    pub endpoints: Vec<EndpointRow>,
    /// Addresses that several local Pods claim.
    pub conflicts: Vec<AddressConflict>,
    /// Local endpoints, governed or not, to explain what becomes of their packets.
    pub local: Vec<Endpoint>,
    /// Every policy.
    pub policies: Vec<Arc<Policy>>,
    /// Every object that rules may speak of.
    pub inventory: Arc<Inventory>,
    /// Where addresses lie.
    pub places: ZoneMap,
    teachers: HashMap<IpAddr, Teaches>,
    selectors: Selectors,
    matching: NameMatching,
    lease: LeaseTiming,
}

/// An endpoint with a program.
#[derive(Debug)]
pub struct Governed {
    /// Whose.
    pub id: EndpointId,
    /// Which program governs its packets.
    pub program: ProgramId,
    /// What it may ask; `None`: nothing, since others who are governed differently claim the same
    /// address.
    pub questions: Option<Arc<Questions>>,
}

impl Governed {
    /// Who owns what it learns: the same for every process that knows the Pod.
    pub fn owner(&self) -> LeaseOwner {
        // Keys are zero: what is in the ledger's snapshot outlives the process.
        let mut hasher = siphasher::sip::SipHasher13::new();
        (&self.id.namespace, &self.id.name).hash(&mut hasher);
        // Two that meet share what one would have.
        LeaseOwner(hasher.finish() as u32)
    }
}

/// Makes plans, one after the other.
#[derive(Debug, Default)]
pub struct Planner {
    compiler: Compiler,
    membership: Membership,
    evaluations: BTreeMap<ProgramId, TrackedTiers>,
    places: ZoneMap,
}

impl Planner {
    /// Computes what should be in force. `own` are this node's addresses.
    pub fn plan(&mut self, cluster: &Cluster, settings: &Settings, own: &BTreeSet<IpAddr>) -> Plan {
        let local = cluster.endpoints(&settings.node);
        let inventory = Arc::new(cluster.inventory(&settings.node));
        let policies: Vec<Arc<Policy>> = cluster.policies().cloned().collect();
        let compiled = self.compiler.compile(&local, &policies, &inventory, settings);
        let AddressConflicts { governed, conflicts } = address_conflicts::settle(&local, &compiled);
        let mut programs = distinct_programs(&compiled);
        if conflicts.iter().any(|conflict| conflict.closed) {
            let nothing = address_conflicts::refuse_all();
            programs.entry(nothing.id()).or_insert_with(|| Arc::new(nothing));
        }

        let mut networks = cluster.networks();
        networks.extend(&settings.cluster_cidrs);
        let networks = IpNet::aggregate(&networks);
        let places = ZoneMap::new(own.iter().copied(), networks.iter().copied());
        self.evaluate(&programs, &inventory, &places);

        let resolvers = resolvers::known(cluster, settings, &compiled);
        let bindings = resolvers::bind(resolvers.keys().copied(), settings.interception);
        let mut inside = networks.clone();
        inside.extend(own.iter().copied().map(IpNet::from));
        let dispatch: BTreeMap<IpAddr, ProgramId> =
            governed.iter().map(|(address, it)| (*address, it.program)).collect();
        let evaluations = self.evaluations.values().map(|followed| &followed.evaluation);
        let members = evaluations.clone().map(|it| (it.id, Arc::clone(&it.elements)));
        Plan {
            listeners: resolvers::listeners(settings, &bindings),
            endpoints: local
                .iter()
                .zip(&compiled)
                .map(|(endpoint, compiled)| endpoint_row(endpoint, compiled.as_ref(), &conflicts))
                .collect(),
            desired: DesiredState {
                table: settings.table.clone(),
                programs: programs
                    .iter()
                    .map(|(id, program)| (*id, self.folded(program)))
                    .collect(),
                members: members.collect(),
                intercepted: dispatch.keys().copied().collect(),
                dispatch: PerDirection::of_egress(dispatch),
                resolvers: bindings,
                listening: settings.listen.clone(),
                interception: settings.interception,
                fail_mode: settings.fail_mode,
                cluster: networks,
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
                records: settings.records_group,
                capacity: settings.capacity,
            },
            conflicts,
            governed,
            teachers: resolvers::teachers(&resolvers),
            resolvers,
            teachable: teachable(settings, inside),
            selectors: Selectors::new(evaluations),
            matching: settings.matching,
            lease: settings.lease,
            local,
            policies,
            inventory,
            places,
        }
    }

    /// Brings the evaluations of these programs up to date, and forgets all others.
    fn evaluate(&mut self, programs: &BTreeMap<ProgramId, Arc<Program>>, inventory: &Arc<Inventory>, places: &ZoneMap) {
        let mut before = std::mem::take(&mut self.evaluations);
        let tiers = programs
            .values()
            .flat_map(|program| [&program.enforced].into_iter().chain(&program.audited));
        for tiers in tiers {
            let id = tiers.id();
            self.evaluations.entry(id).or_insert_with(|| {
                let known = before.remove(&id).map(|followed| followed.renamed(tiers));
                known.unwrap_or_else(|| TrackedTiers::new(tiers))
            });
        }
        let classifiers: Vec<_> = self
            .evaluations
            .values()
            .map(|it| Arc::clone(&it.evaluation.classifier))
            .collect();
        let rules = classifiers
            .iter()
            .flat_map(|classifier| classifier.object_rules().map(|(_, rule)| rule));
        self.membership.update(inventory, rules);
        let was = std::mem::replace(&mut self.places, places.clone());
        let same_places = was == *places;
        let moved = |address| !same_places && was.of(address) != places.of(address);
        for followed in self.evaluations.values_mut() {
            followed.update(&self.membership, places, moved);
        }
    }

    /// A program, with the classifiers that were made of its tiers.
    fn folded(&self, program: &Program) -> Arc<KernelProgram> {
        let of = |tiers: &Tiers| match self.evaluations.get(&tiers.id()) {
            Some(TrackedTiers { evaluation, .. }) => enforcer::desired::KernelTiers {
                id: evaluation.id,
                classifier: Arc::clone(&evaluation.classifier),
            },
            None => enforcer::desired::KernelTiers::new(tiers),
        };
        Arc::new(KernelProgram {
            enforced: of(&program.enforced),
            audited: program.audited.as_ref().map(of),
            response: program.response,
        })
    }
}

impl Plan {
    /// The names that an answer counts for: those of the question and, with `dns.match: chain`,
    /// of its validated chain that some selector matches. If it is `expanded`, the first of the
    /// chain counts as the question does ([`Questions::counts_as`]).
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
            .filter_map(|name| self.selectors.credit(name))
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
            if self.may_teach(teacher, rule.evaluation.id) {
                rule.elements(address, &self.places, &mut element);
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

    /// Everything that the ledger opens or closes under this plan, ordered; of each set no more
    /// than it may hold, of which each owner of names has a share. So what it takes is bounded by
    /// the sets and not by the ledger.
    pub fn all_elements(&self, ledger: &Ledger, now: Time) -> Vec<(Element, Time, Holder)> {
        let mut room: HashMap<SetId, u32> = HashMap::default();
        let mut found: HashMap<Element, (Time, Holder)> = HashMap::default();
        // The entries of a name stand together.
        let mut last: Option<MatchedName<'_>> = None;
        for (owner, entry) in ledger.fairly(now) {
            if self.teachable.judge(entry.address).is_err() {
                continue;
            }
            if last.as_ref().is_none_or(|last| last.name != entry.name) {
                last = self.selectors.credit(entry.name);
            }
            let Some(matched) = &last else { continue };
            self.elements(matched, entry.address, entry.teacher, |element| {
                match found.entry(element) {
                    Entry::Occupied(mut known) => {
                        let (end, _) = known.get_mut();
                        *end = (*end).max(entry.expires);
                    }
                    Entry::Vacant(place) => {
                        let left = room.entry(element.set).or_insert(self.desired.capacity.get());
                        if *left > 0 {
                            *left -= 1;
                            place.insert((entry.expires, Holder(owner.0)));
                        }
                    }
                }
            });
        }
        let mut elements: Vec<_> = found
            .into_iter()
            .map(|(element, (end, holder))| (element, end, holder))
            .collect();
        elements.sort_unstable();
        elements
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

/// Programs in use by id. Of programs that differ only in origins, the names' origins are united.
fn distinct_programs(compiled: &[Option<Compiled>]) -> BTreeMap<ProgramId, Arc<Program>> {
    let mut programs: BTreeMap<ProgramId, Arc<Program>> = BTreeMap::new();
    for compiled in compiled.iter().flatten() {
        programs
            .entry(compiled.id)
            .and_modify(|known| {
                if **known != *compiled.program {
                    unite_origins(Arc::make_mut(known), &compiled.program);
                }
            })
            .or_insert_with(|| Arc::clone(&compiled.program));
    }
    programs
}

fn unite_origins(into: &mut Program, other: &Program) {
    unite_origins_of_tiers(&mut into.enforced, &other.enforced);
    if let (Some(into), Some(other)) = (&mut into.audited, &other.audited) {
        unite_origins_of_tiers(into, other);
    }
}

fn unite_origins_of_tiers(into: &mut Tiers, other: &Tiers) {
    let rules = into.admin.iter_mut().chain(&mut into.network).chain(&mut into.baseline);
    for (into, other) in rules.zip(other.rules()) {
        let all: BTreeSet<_> = into.origins.drain(..).chain(other.origins.iter().cloned()).collect();
        into.origins = all.into_iter().collect();
    }
}

/// Where Pods of this node may come to be whose objects are not known yet, if these are to be
/// refused.
fn teachable(settings: &Settings, inside: impl IntoIterator<Item = IpNet>) -> Teachable {
    let teachable = Teachable::new(settings.rebind.clone(), inside);
    match settings.private_addresses {
        PrivateAddresses::Allow => teachable,
        PrivateAddresses::Deny => teachable.without_private(),
    }
}

fn unknown(cluster: &Cluster, settings: &Settings, own: &BTreeSet<IpAddr>) -> Vec<IpNet> {
    if settings.unknown_pods == UnknownPods::Allow {
        return Vec::new();
    }
    let known = cluster.addresses(&settings.node);
    let known: Vec<IpNet> = known.chain(own.iter().copied()).map(IpNet::from).collect();
    let ranges = cluster.pod_ranges(&settings.node);
    ranges.into_iter().flat_map(|range| without(range, &known)).collect()
}

fn endpoint_row(endpoint: &Endpoint, compiled: Option<&Compiled>, conflicts: &[AddressConflict]) -> EndpointRow {
    let contested = conflicts
        .iter()
        .any(|conflict| conflict.closed && conflict.claimants.contains(&endpoint.id));
    EndpointRow {
        endpoint: endpoint.id.to_string(),
        addresses: endpoint.addresses.iter().copied().collect(),
        egress: match compiled {
            _ if contested => "contested",
            None => "unselected",
            Some(compiled) if compiled.program.enforced.closed() => "default-deny",
            Some(compiled) if compiled.program.audited.is_some() => "audit",
            Some(_) => "allow",
        }
        .into(),
        program: compiled.map(|compiled| compiled.id.to_string()),
        policies: compiled
            .iter()
            .flat_map(|compiled| compiled.policies.iter())
            .map(|policy| policy.id.to_string())
            .collect(),
    }
}
