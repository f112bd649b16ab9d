//! Objects and settings → everything that is to be in force. Pure.
//!
//! A [`Plan`] is computed from scratch, put into the kernel, and only then published to the lookups: the gate never
//! speaks of sets that do not exist yet.

mod claims;
mod resolvers;
mod selectors;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use dns_proxy::Listener;
use enforcer::{Desired, Element, Interception};
use fqdn_cache::{Ledger, Time};
use policy::address::Teachable;
use policy::compile::compile;
use policy::endpoint::EndpointId;
use policy::question::Questions;
use policy::{Endpoint, Name, Pattern, PolicyId, Program, ProgramId};

use crate::cluster::Cluster;
use crate::config::{NameMatching, Settings};
use crate::inspect::EndpointRow;

use claims::Claims;
pub use claims::{Contest, report};
pub use resolvers::{Resolver, Teaches};
use selectors::Selectors;

/// Everything that is in force at a time.
#[derive(Debug)]
pub struct Plan {
    /// What the kernel holds.
    pub desired: Desired,
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
    pub contests: Vec<Contest>,
    teachers: HashMap<IpAddr, Teaches>,
    selectors: Selectors,
    matching: NameMatching,
}

/// An endpoint with a program.
#[derive(Debug)]
pub struct Governed {
    /// Whose.
    pub id: EndpointId,
    /// Which program governs its packets.
    pub program: ProgramId,
    /// What it may ask; `None`: nothing, since others who are governed differently claim the same address.
    pub questions: Option<Arc<Questions>>,
}

impl Plan {
    /// Computes what should be in force. `own` are this node's addresses.
    pub fn new(cluster: &Cluster, settings: &Settings, own: &BTreeSet<IpAddr>) -> Self {
        let local = cluster.endpoints(&settings.node);
        let compiled = compile_all(&local, cluster, settings);
        let Claims { governed, contests } = claims::settle(&local, &compiled);
        let mut programs = distinct_programs(&compiled);
        if contests.iter().any(|contest| contest.closed) {
            let nothing = claims::refuse_all();
            programs.entry(nothing.id()).or_insert_with(|| Arc::new(nothing));
        }
        let selectors = Selectors::new(&programs);
        let resolvers = resolvers::known(cluster, settings, &compiled);
        let bindings = resolvers::bind(resolvers.keys().copied(), settings.interception);

        let mut networks = cluster.networks();
        networks.extend(&settings.cluster_cidrs);
        let networks = ipnet::IpNet::aggregate(&networks);
        let mut inside = networks.clone();
        inside.extend(own.iter().copied().map(ipnet::IpNet::from));

        let dispatch: BTreeMap<IpAddr, ProgramId> =
            governed.iter().map(|(address, it)| (*address, it.program)).collect();

        let listeners = resolvers::listeners(settings, &bindings);
        Self {
            listeners,
            endpoints: local
                .iter()
                .zip(&compiled)
                .map(|(e, c)| endpoint_row(e, c.as_ref(), cluster, &contests))
                .collect(),
            desired: Desired {
                table: settings.table.clone(),
                programs,
                intercepted: dispatch.keys().copied().collect(),
                dispatch,
                resolvers: bindings,
                listening: settings.listen.clone(),
                interception: settings.interception,
                fail_mode: settings.fail_mode,
                cluster: networks,
                host: own.clone(),
                refusal: settings.refusal,
                capacity: settings.capacity,
            },
            contests,
            governed,
            teachers: resolvers::teachers(&resolvers),
            resolvers,
            teachable: Teachable::new(settings.rebind.clone(), inside),
            selectors,
            matching: settings.matching,
        }
    }

    /// The names that an answer is credited to: those of the question and, with `dns.match: chain`, of its
    /// validated chain that some selector matches.
    pub fn credited<'a>(&self, question: &'a Name, chain: &'a [Name]) -> Vec<&'a Name> {
        let chain = match self.matching {
            NameMatching::Question => &[],
            NameMatching::Chain => chain,
        };
        std::iter::once(question)
            .chain(chain)
            .filter(|name| self.selectors.any_match(name))
            .collect()
    }

    /// What `address`, learned for `name` from `source`, opens or closes.
    pub fn elements(&self, name: &Name, address: IpAddr, source: IpAddr, mut element: impl FnMut(Element)) {
        self.selectors.each_match(name, |door| {
            let taught = door
                .targets
                .iter()
                .filter(|target| self.may_teach(source, target.program));
            taught
                .flat_map(|target| target.elements(address))
                .for_each(&mut element);
        });
    }

    /// Everything that the ledger opens or closes under this plan.
    pub fn all_elements(&self, ledger: &Ledger, now: Time) -> Vec<(Element, Time)> {
        let mut ends: BTreeMap<Element, Time> = BTreeMap::new();
        for entry in ledger.entries(now) {
            if self.teachable.judge(entry.address).is_err() {
                continue;
            }
            self.elements(entry.name, entry.address, entry.source, |element| {
                let end = ends.entry(element).or_insert(entry.expires);
                *end = (*end).max(entry.expires);
            });
        }
        ends.into_iter().collect()
    }

    /// The selectors that match a name and the policies that they come from, for people.
    pub fn attribution(&self, name: &Name) -> (BTreeSet<&Pattern>, BTreeSet<&PolicyId>) {
        let (mut patterns, mut policies) = (BTreeSet::new(), BTreeSet::new());
        self.selectors.each_match(name, |door| {
            patterns.insert(&door.pattern);
            policies.extend(&door.policies);
        });
        (patterns, policies)
    }

    /// Whether lookups keep the destination that they were sent to.
    fn is_transparent(&self) -> bool {
        matches!(self.desired.interception, Interception::Tproxy { .. })
    }

    /// Whom to ask for a lookup that was sent to `resolver`, first to last; `None` when it is not known.
    pub fn upstreams(&self, resolver: SocketAddr) -> Option<Arc<[SocketAddr]>> {
        match self.resolvers.get(&resolver) {
            Some(known) => Some(Arc::clone(&known.upstreams)),
            // tproxy sees a Service's backend; the kernel let it in because the Service is known. Our own
            // transparent port, asked directly, is no resolver and would ask itself.
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

    /// Whether what `source` answered opens anything in `program`.
    ///
    /// A server that is not known (any more) teaches nobody: what a withdrawn policy's own resolver said must not
    /// outlive the policy. Under tproxy the kernel has let only lookups to known resolvers in, and a Service's backend, which answers
    /// for it there, is not known by its own address.
    fn may_teach(&self, source: IpAddr, program: ProgramId) -> bool {
        match self.teachers.get(&source) {
            Some(Teaches::Everyone) => true,
            Some(Teaches::Programs(programs)) => programs.contains(&program),
            None => self.is_transparent(),
        }
    }
}

/// What an endpoint's labels compile to; shared by endpoints with equal labels.
#[derive(Debug, Clone)]
struct Compiled {
    id: ProgramId,
    program: Arc<Program>,
    questions: Arc<Questions>,
}

fn compile_all(local: &[Endpoint], cluster: &Cluster, settings: &Settings) -> Vec<Option<Compiled>> {
    let inventory = cluster.inventory(&settings.node);
    let mut by_labels = BTreeMap::new();
    local
        .iter()
        .map(|endpoint| {
            by_labels
                .entry(&endpoint.labels)
                .or_insert_with(|| {
                    let program = Arc::new(compile(endpoint, cluster.policies(), &inventory)?);
                    let search = search_list(&endpoint.id.namespace, &settings.cluster_domain);
                    let questions = Arc::new(Questions::new(
                        &program,
                        settings.questions,
                        &settings.cluster_domain,
                        &search,
                    ));
                    Some(Compiled {
                        id: program.id(),
                        program,
                        questions,
                    })
                })
                .clone()
        })
        .collect()
}

/// The search list that the kubelet writes for a pod, longest first.
fn search_list(namespace: &str, cluster_domain: &Name) -> Vec<Name> {
    [
        format!("{namespace}.svc.{cluster_domain}"),
        format!("svc.{cluster_domain}"),
        cluster_domain.to_string(),
    ]
    .iter()
    // A namespace that is no DNS label has no search list; the API server does not let one in.
    .filter_map(|suffix| Name::parse(suffix).ok())
    .collect()
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
    let sides = [(&mut into.deny, &other.deny), (&mut into.allow, &other.allow)];
    for (into, other) in sides {
        for (into, other) in into.names.iter_mut().zip(&other.names) {
            let all: BTreeSet<_> = into.origins.drain(..).chain(other.origins.iter().cloned()).collect();
            into.origins = all.into_iter().collect();
        }
    }
}

fn endpoint_row(
    endpoint: &Endpoint,
    compiled: Option<&Compiled>,
    cluster: &Cluster,
    contests: &[Contest],
) -> EndpointRow {
    let contested = contests
        .iter()
        .any(|contest| contest.closed && contest.claimants.contains(&endpoint.id));
    let selects = |policy: &&policy::Policy| policy.specs.iter().any(|spec| spec.subject.matches(&endpoint.labels));
    EndpointRow {
        endpoint: endpoint.id.to_string(),
        addresses: endpoint.addresses.iter().copied().collect(),
        egress: match compiled {
            _ if contested => "contested",
            None => "unselected",
            Some(compiled) if compiled.program.closed => "default-deny",
            Some(_) => "allow",
        }
        .into(),
        program: compiled.map(|compiled| compiled.id.to_string()),
        policies: cluster
            .policies()
            .filter(selects)
            .map(|policy| policy.id.to_string())
            .collect(),
    }
}
