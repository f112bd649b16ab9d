//! Makes plans, one after the other.
//!
//! A planner computes again only what a change touches, in stages: what governs the local pods
//! (`governance`), what lies around (`surroundings`), and which addresses the rules mean
//! (`evaluated_tiers`). A stage whose inputs are the same allocations as before is kept, so what is
//! shared between two plans costs the second one nothing. Where all are kept, so is the plan.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ahash::HashMap;
use cluster::index::Cluster;
use enforcer::desired::{KernelProgram, KernelTiers};
use enforcer::pod_links::{NodeNetwork, PodLinks};
use enforcer::{DesiredState, ElementSet, Handover};
use ipnet::IpNet;
use policy::address::{ZoneMap, without};
use policy::membership::{Membership, TrackedRuleKey};
use policy::{Endpoint, Inventory, PerDirection, Program, ProgramId, Tiers};
use settings::{Settings, UnknownPods};

use super::Plan;
use super::compiling::Compiler;
use super::evaluated_tiers::{EvaluatedTiers, TrackedTiers};
use super::governance::Governance;
use super::governed::Governed;
use super::inspected_services;
use super::resolvers;
use super::selectors::Selectors;
use super::surroundings::Surroundings;

/// Makes plans, one after the other, all of the same settings.
#[derive(Debug, Default)]
pub struct Planner {
    compiler: Compiler,
    governance: Option<Arc<Governance>>,
    membership: Membership,
    evaluations: BTreeMap<ProgramId, TrackedTiers>,
    /// The tiers that follow each tracked rule.
    followers: HashMap<TrackedRuleKey, BTreeSet<ProgramId>>,
    surroundings: Option<Arc<Surroundings>>,
    programs: BTreeMap<ProgramId, TrackedProgram>,
    selectors: Arc<Selectors>,
    last: Option<(Plan, OtherInputs)>,
    /// For which desired state, and which Services, those are known that are handed over.
    handed_over: Option<(Arc<DesiredState>, u64)>,
}

/// A program, with the classifiers of its evaluations.
#[derive(Debug)]
struct TrackedProgram {
    program: Arc<Program>,
    folded: Arc<KernelProgram>,
}

/// What a plan follows from beside its stages.
#[derive(Debug, PartialEq, Eq)]
struct OtherInputs {
    network: Arc<NodeNetwork>,
    /// The cluster's DNS, as pods ask it.
    dns_services: Vec<SocketAddr>,
    /// Where the pods of this node get their addresses from.
    pod_ranges: BTreeSet<IpNet>,
}

impl Planner {
    /// Computes what should be in force on a node with this network.
    ///
    /// An event that touches nothing that is to be in force costs what finding that takes, and
    /// makes a plan that [decides](Plan::decides_as) as the one before.
    pub fn plan(&mut self, cluster: &Cluster, settings: &Settings, network: &Arc<NodeNetwork>) -> Plan {
        let inventory = cluster.inventory();
        self.membership.update(&inventory);
        let places_before = self.surroundings.as_ref().map(|before| Arc::clone(&before.places));
        let (surroundings, lies_elsewhere) =
            Surroundings::update(&mut self.surroundings, cluster, settings, &network.own);
        let (governance, is_new) =
            Governance::update(&mut self.governance, &mut self.compiler, cluster, &inventory, settings);
        if is_new {
            self.track(&governance.programs, &surroundings.places);
        }
        let has_other_names = self.evaluate(&surroundings.places, places_before.as_deref());

        let others = OtherInputs {
            network: Arc::clone(network),
            dns_services: cluster.dns_services(&settings.cluster_dns),
            pod_ranges: cluster.pod_ranges(),
        };
        let last = self.last.take().filter(|_| !is_new && !lies_elsewhere);
        let last = last.filter(|(_, known)| *known == others).map(|(plan, _)| plan);
        let plan = match last {
            Some(last) if self.membership.changed().is_empty() => Plan { inventory, ..last },
            Some(last) => Plan {
                desired: Arc::new(DesiredState {
                    members: self.members(),
                    ..DesiredState::clone(&last.desired)
                }),
                evaluations: match has_other_names {
                    true => self.with_names(),
                    false => last.evaluations,
                },
                inventory,
                ..last
            },
            None => self.made_anew(cluster, inventory, settings, (&governance, &surroundings), &others),
        };
        self.last = Some((plan.clone(), others));
        plan
    }

    /// The last plan, with where its programs hand connections over to be looked into. That follows
    /// from what runs on this node; later plans of the same programs have it too. Without it
    /// nobody looks for the Services that are handed over.
    pub fn hand_over(&mut self, mut plan: Plan, to: Option<Handover>, cluster: &Cluster) -> Plan {
        let revision = cluster.services_revision();
        let is_known =
            |(desired, of): &(Arc<DesiredState>, u64)| Arc::ptr_eq(desired, &plan.desired) && *of == revision;
        if plan.desired.handover == to && (to.is_none() || self.handed_over.as_ref().is_some_and(is_known)) {
            return plan;
        }
        let services = match &to {
            Some(_) => inspected_services::find(&plan, cluster.service_frontends()),
            None => PerDirection::default(),
        };
        if plan.desired.handover != to || plan.desired.inspected_services != services {
            let desired = Arc::make_mut(&mut plan.desired);
            desired.handover = to;
            desired.inspected_services = services;
            if let Some((last, _)) = &mut self.last {
                last.desired = Arc::clone(&plan.desired);
            }
        }
        self.handed_over = Some((Arc::clone(&plan.desired), revision));
        plan
    }

    fn made_anew(
        &mut self,
        cluster: &Cluster,
        inventory: Inventory,
        settings: &Settings,
        (governance, surroundings): (&Governance, &Surroundings),
        others: &OtherInputs,
    ) -> Plan {
        let evaluations = self.with_names();
        if !self.selectors.are_of(&evaluations) {
            self.selectors = Arc::new(Selectors::new(&evaluations));
        }
        let resolvers = resolvers::known(&others.dns_services, settings, &governance.compiled);
        let bindings = resolvers::bind(resolvers.keys().copied(), settings.interception);
        let servers: BTreeSet<SocketAddr> = resolvers
            .keys()
            .filter(|asked| !asked.ip().is_loopback())
            .copied()
            .collect();
        let own = &others.network.own;
        let programs = self.programs.iter();
        Plan {
            listeners: resolvers::listeners(settings, &bindings).into(),
            desired: Arc::new(DesiredState {
                table: settings.table.clone(),
                programs: programs.map(|(id, it)| (*id, Arc::clone(&it.folded))).collect(),
                members: self.members(),
                local_host: settings.local_host,
                intercepted: governance.governed.keys().copied().collect(),
                dispatch: governance.dispatch.clone(),
                resolvers: bindings,
                listening: settings.listen.clone(),
                interception: settings.interception,
                fail_mode: settings.fail_mode,
                cluster: surroundings.networks.to_vec(),
                host: own.clone(),
                pod_links: pod_links(&others.network, &governance.local, &governance.governed, &servers),
                servers,
                unknown: unknown(cluster, settings, others),
                refusal: settings.refusal,
                // Follows from what looks into connections on this node.
                handover: None,
                inspected_services: PerDirection::default(),
                records: settings.records_group,
                capacity: settings.capacity,
            }),
            endpoints: Arc::clone(&governance.rows),
            conflicts: Arc::clone(&governance.conflicts),
            governed: Arc::clone(&governance.governed),
            teachers: Arc::new(resolvers::teachers(&resolvers, |id| self.shared_names(id))),
            resolvers: Arc::new(resolvers),
            teachable: Arc::clone(&surroundings.teachable),
            evaluations,
            selectors: Arc::clone(&self.selectors),
            matching: settings.matching,
            lease: settings.lease,
            local: Arc::clone(&governance.local),
            policies: Arc::clone(&governance.policies),
            inventory,
            places: Arc::clone(&surroundings.places),
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

    /// The tiers that stand for names which these tiers share.
    fn shared_names(&self, tiers: ProgramId) -> impl Iterator<Item = ProgramId> {
        let tracked = self.evaluations.get(&tiers).into_iter();
        tracked.flat_map(|tracked| {
            tracked
                .evaluation
                .classifier
                .shared_names()
                .iter()
                .map(|names| names.id)
        })
    }

    /// Tracks tiers, and those that stand for rules and names that they share. `before` has those
    /// that were tracked and are not yet again.
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
        for names in folded.classifier.shared_names() {
            self.track_tiers(&names.tiers, names.id, before, places);
        }
        folded
    }

    /// Brings the evaluations up to date with what the membership has changed, and with where
    /// addresses lie. Returns whether one of those is among them that have rules about names.
    fn evaluate(&mut self, places: &ZoneMap, places_before: Option<&ZoneMap>) -> bool {
        let followers = |key| self.followers.get(key).into_iter().flatten().copied();
        let concerned: BTreeSet<ProgramId> = self.membership.changed().keys().flat_map(followers).collect();
        let mut has_names = false;
        for id in concerned {
            if let Some(tracked) = self.evaluations.get_mut(&id) {
                tracked.update(&self.membership, places);
                has_names |= tracked.evaluation.has_names();
            }
        }
        let is_elsewhere = |before: &&ZoneMap| !std::ptr::eq(*before, places) && *before != places;
        if let Some(before) = places_before.filter(is_elsewhere) {
            for tracked in self.evaluations.values_mut() {
                tracked.relocate(places, |address| before.of(address) != places.of(address));
            }
            has_names = true;
        }
        has_names
    }

    /// The elements of objects, by their tiers.
    fn members(&self) -> BTreeMap<ProgramId, ElementSet> {
        let tracked = self.evaluations.values();
        tracked
            .map(|it| (it.evaluation.id, it.evaluation.elements.clone()))
            .collect()
    }

    /// The evaluations that have rules about names.
    fn with_names(&self) -> Arc<[Arc<EvaluatedTiers>]> {
        let evaluations = self.evaluations.values().map(|tracked| &tracked.evaluation);
        evaluations.filter(|it| it.has_names()).cloned().collect()
    }
}

/// Where these pods are in a network of this node.
pub(super) fn pod_links(
    network: &NodeNetwork,
    local: &[Endpoint],
    governed: &BTreeMap<IpAddr, Arc<Governed>>,
    servers: &BTreeSet<SocketAddr>,
) -> PodLinks {
    let addresses = local.iter().flat_map(|endpoint| &endpoint.addresses);
    let local = addresses.map(|address| (*address, governed.contains_key(address)));
    PodLinks::find(network, local, servers.iter().map(SocketAddr::ip))
}

/// Where Pods of this node may come to be whose objects are not known yet, if these are to be
/// refused.
fn unknown(cluster: &Cluster, settings: &Settings, others: &OtherInputs) -> Vec<IpNet> {
    if settings.unknown_pods == UnknownPods::Allow {
        return Vec::new();
    }
    let known = cluster.addresses().chain(others.network.own.iter().copied());
    let known: Vec<IpNet> = known.map(IpNet::from).collect();
    let ranges = others.pod_ranges.iter();
    ranges.flat_map(|range| without(*range, &known)).collect()
}
