//! Objects and settings → everything that is to be in force. Pure.
//!
//! A [`Plan`] is computed from scratch, put into the kernel, and only then published to the lookups: the gate never
//! speaks of sets that do not exist yet.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use dns_proxy::{Listener, ListenerKind};
use enforcer::layout::targets;
use enforcer::routing::{LISTEN_V4, LISTEN_V6};
use enforcer::{Desired, Element, Interception, ResolverBinding, Target};
use fqdn_cache::{Ledger, Time};
use policy::address::Teachable;
use policy::compile::compile;
use policy::endpoint::EndpointId;
use policy::program::DnsServers;
use policy::question::Questions;
use policy::{Endpoint, Name, NameIndex, Pattern, PolicyId, Program, ProgramId};

use crate::cluster::Cluster;
use crate::config::{NameMatching, Settings};
use crate::inspect::EndpointRow;

/// The ports that listeners of mode dnat are spread over: below every usual ephemeral range, and
/// far more than there are known resolvers.
const DNAT_PORTS: std::ops::Range<u16> = 15_354..16_378;

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
    teachers: HashMap<IpAddr, Teaches>,
    selectors: NameIndex<usize>,
    doors: Vec<Door>,
    matching: NameMatching,
}

/// An endpoint with a program.
#[derive(Debug)]
pub struct Governed {
    /// Whose.
    pub id: EndpointId,
    /// Which program governs its packets.
    pub program: ProgramId,
    /// What it may ask.
    pub questions: Arc<Questions>,
}

/// A known resolver.
#[derive(Debug, Clone)]
pub struct Resolver {
    /// Whom to ask, first to last: itself, and for a configured upstream the others after it.
    pub upstreams: Arc<[SocketAddr]>,
    /// Whom its answers teach.
    pub teaches: Teaches,
}

/// Whom the answers of a resolver teach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Teaches {
    /// Every program: a configured upstream or the cluster's DNS.
    Everyone,
    /// Only the programs whose own DNS rules name it: whoever writes a policy decides for the endpoints that it
    /// selects, and for nobody else's.
    Programs(BTreeSet<ProgramId>),
}

/// One selector and everything that it opens or closes.
#[derive(Debug)]
struct Door {
    pattern: Pattern,
    targets: Vec<Target>,
    policies: BTreeSet<PolicyId>,
}

impl Plan {
    /// Computes what should be in force. `own` are this node's addresses.
    pub fn new(cluster: &Cluster, settings: &Settings, own: &BTreeSet<IpAddr>) -> Self {
        let local = cluster.endpoints(&settings.node);
        let compiled = compile_all(&local, cluster, settings);
        let programs = distinct_programs(&compiled);
        let (selectors, doors) = index_selectors(&programs);
        let resolvers = known_resolvers(cluster, settings, &compiled);
        let bindings = bind_resolvers(resolvers.keys().copied(), settings.interception);

        let mut networks = cluster.networks();
        networks.extend(&settings.cluster_cidrs);
        let networks = ipnet::IpNet::aggregate(&networks);
        let mut inside = networks.clone();
        inside.extend(own.iter().copied().map(ipnet::IpNet::from));

        let mut dispatch = BTreeMap::new();
        let mut governed = BTreeMap::new();
        for (endpoint, compiled) in local.iter().zip(&compiled) {
            let Some(compiled) = compiled else { continue };
            let entry = Arc::new(Governed {
                id: endpoint.id.clone(),
                program: compiled.id,
                questions: Arc::clone(&compiled.questions),
            });
            for address in &endpoint.addresses {
                // Two pods that claim one address: the first by name governs it, always the same one.
                dispatch.entry(*address).or_insert(compiled.id);
                governed.entry(*address).or_insert_with(|| Arc::clone(&entry));
            }
        }

        let listeners = listeners(settings, &bindings);
        Self {
            listeners,
            endpoints: local
                .iter()
                .zip(&compiled)
                .map(|(e, c)| endpoint_row(e, c.as_ref(), cluster))
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
            governed,
            teachers: teachers(&resolvers),
            resolvers,
            teachable: Teachable::new(settings.rebind.clone(), inside),
            selectors,
            doors,
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
        self.selectors.each_match(name, |&door| {
            let targets = self.doors[door].targets.iter();
            let taught = targets.filter(|target| self.may_teach(source, target.program));
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
        self.selectors.each_match(name, |&door| {
            patterns.insert(&self.doors[door].pattern);
            policies.extend(&self.doors[door].policies);
        });
        (patterns, policies)
    }

    /// Whether lookups keep the destination that they were sent to.
    pub fn is_transparent(&self) -> bool {
        matches!(self.desired.interception, Interception::Tproxy { .. })
    }

    /// Whether `address` reaches one of our own listeners.
    pub fn listens_on(&self, address: SocketAddr) -> bool {
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

fn index_selectors(programs: &BTreeMap<ProgramId, Arc<Program>>) -> (NameIndex<usize>, Vec<Door>) {
    let mut doors: BTreeMap<&Pattern, (Vec<Target>, BTreeSet<PolicyId>)> = BTreeMap::new();
    for (id, program) in programs {
        for (pattern, target) in targets(*id, program) {
            doors.entry(pattern).or_default().0.push(target);
        }
        for rule in program.deny.names.iter().chain(&program.allow.names) {
            let (_, policies) = doors.entry(&rule.pattern).or_default();
            policies.extend(rule.origins.iter().map(|origin| origin.policy.clone()));
        }
    }
    let mut index = NameIndex::default();
    let doors = doors
        .into_iter()
        .enumerate()
        .map(|(position, (pattern, (targets, policies)))| {
            index.insert(pattern, position);
            Door {
                pattern: pattern.clone(),
                targets,
                policies,
            }
        })
        .collect();
    (index, doors)
}

fn known_resolvers(
    cluster: &Cluster,
    settings: &Settings,
    compiled: &[Option<Compiled>],
) -> HashMap<SocketAddr, Resolver> {
    let mut known = HashMap::new();
    for compiled in compiled.iter().flatten() {
        for grant in &compiled.program.dns {
            let DnsServers::Listed(servers) = &grant.servers else {
                continue;
            };
            for server in servers {
                let asked = SocketAddr::new(*server, grant.rule.port);
                let resolver = known.entry(asked).or_insert_with(|| Resolver {
                    upstreams: Arc::new([asked]),
                    teaches: Teaches::Programs(BTreeSet::new()),
                });
                if let Teaches::Programs(programs) = &mut resolver.teaches {
                    programs.insert(compiled.id);
                }
            }
        }
    }
    for asked in cluster.dns_services(&settings.cluster_dns) {
        known.insert(
            asked,
            Resolver {
                upstreams: Arc::new([asked]),
                teaches: Teaches::Everyone,
            },
        );
    }
    for &asked in &settings.upstreams {
        let others = settings.upstreams.iter().copied().filter(|upstream| *upstream != asked);
        let upstreams = std::iter::once(asked).chain(others).collect();
        known.insert(
            asked,
            Resolver {
                upstreams,
                teaches: Teaches::Everyone,
            },
        );
    }
    known
}

/// Whom each server's answers teach, by its address alone: the widest of its ports.
fn teachers(resolvers: &HashMap<SocketAddr, Resolver>) -> HashMap<IpAddr, Teaches> {
    let mut teachers: HashMap<IpAddr, Teaches> = HashMap::new();
    for resolver in resolvers.values() {
        // A configured upstream is asked in place of another, also one that is no known resolver itself (on loopback).
        for server in resolver.upstreams.iter() {
            teachers
                .entry(server.ip())
                .and_modify(|known| known.widen(&resolver.teaches))
                .or_insert_with(|| resolver.teaches.clone());
        }
    }
    teachers
}

impl Teaches {
    fn widen(&mut self, other: &Teaches) {
        match (&mut *self, other) {
            (Teaches::Everyone, _) => {}
            (Teaches::Programs(programs), Teaches::Programs(more)) => programs.extend(more),
            (Teaches::Programs(_), Teaches::Everyone) => *self = Teaches::Everyone,
        }
    }
}

/// Gives each known resolver its listener. The port follows from the resolver alone (but for collisions), so that two
/// agents that overlap during an upgrade, and one that restarts, agree without talking.
fn bind_resolvers(asked: impl Iterator<Item = SocketAddr>, interception: Interception) -> Vec<ResolverBinding> {
    // An upstream on loopback is ours alone: a pod's own loopback is not this node's.
    let asked: BTreeSet<SocketAddr> = asked.filter(|asked| !asked.ip().is_loopback()).collect();
    let mut taken = BTreeSet::new();
    asked
        .into_iter()
        .filter_map(|asked| {
            let listener = match interception {
                Interception::Off => return None,
                Interception::Tproxy { port, .. } => SocketAddr::new(unspecified(asked.ip()), port),
                Interception::Dnat => {
                    let own = if asked.is_ipv4() {
                        IpAddr::V4(LISTEN_V4)
                    } else {
                        IpAddr::V6(LISTEN_V6)
                    };
                    SocketAddr::new(own, free_port(asked, &mut taken)?)
                }
            };
            Some(ResolverBinding { asked, listener })
        })
        .collect()
}

/// `None` when all ports are taken: such a resolver stays ordinary egress, and teaches nothing.
fn free_port(asked: SocketAddr, taken: &mut BTreeSet<u16>) -> Option<u16> {
    // Keys are zero: every version and every process must hash alike.
    let mut hasher = siphasher::sip::SipHasher13::new();
    asked.to_string().hash(&mut hasher);
    let span = u64::from(DNAT_PORTS.end - DNAT_PORTS.start);
    let first = hasher.finish() % span;
    // Below the span, which came from a u16.
    let nth = |step: u64| DNAT_PORTS.start + u16::try_from((first + step) % span).unwrap_or(0);
    let port = (0..span).map(nth).find(|port| !taken.contains(port))?;
    taken.insert(port);
    Some(port)
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

fn listeners(settings: &Settings, bindings: &[ResolverBinding]) -> Vec<Listener> {
    let plain = settings.listen.iter().map(|&address| Listener {
        address,
        kind: ListenerKind::Plain,
    });
    let intercepting: BTreeSet<Listener> = match settings.interception {
        Interception::Off => BTreeSet::new(),
        Interception::Dnat => bindings
            .iter()
            .map(|binding| Listener {
                address: binding.listener,
                kind: ListenerKind::Dnat(binding.asked),
            })
            .collect(),
        // One socket takes the lookups to all resolvers of a family.
        Interception::Tproxy { .. } => bindings
            .iter()
            .map(|binding| Listener {
                address: binding.listener,
                kind: ListenerKind::Tproxy,
            })
            .collect(),
    };
    plain.chain(intercepting).collect()
}

fn endpoint_row(endpoint: &Endpoint, compiled: Option<&Compiled>, cluster: &Cluster) -> EndpointRow {
    let selects = |policy: &&policy::Policy| policy.specs.iter().any(|spec| spec.subject.matches(&endpoint.labels));
    EndpointRow {
        endpoint: endpoint.id.to_string(),
        addresses: endpoint.addresses.iter().copied().collect(),
        egress: match compiled {
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
