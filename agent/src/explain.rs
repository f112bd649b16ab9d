//! Why a pod may reach a destination, or why not: what `namegate explain` prints. Pure.
//!
//! [`policy::explain`] tells which rule decides for one address. Here a person's question becomes
//! such questions: a name has addresses, which the ledger knows, and a Service's name has those of
//! its backends.

mod offline;

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use api::{AddressAnswer, ExplainAnswer, ExplainVerdict};
use clock::Time;
use fqdn_cache::{Ledger, Teacher};
use names::Name;
use policy::address::{Teachable, ZoneMap};
use policy::explain::{
    Decision, ExplainContext, ExplainOutcome, Explanation, KnownName, KnownPeer, LeaseState, Matched, explain,
};
use policy::labels::LabelSelector;
use policy::{Endpoint, EndpointId, ObjectSelector, Origin, Protocol, ServiceSelector};

pub use offline::{OfflineError, answer_offline};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainRequest {
    /// The destination.
    pub to: ExplainTarget,
    /// Port, or type of ICMP message; `None`: any.
    pub traffic: Option<(Protocol, u16)>,
}

/// A destination, as a person names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExplainTarget {
    /// A name, with the addresses that its leases hold.
    Name(Name),
    /// An address, with the names that hold it.
    Address(IpAddr),
    /// A Pod, with all its addresses.
    Pod(EndpointId),
}

/// What the node knows; without an agent, nothing.
#[derive(Clone, Copy)]
pub struct NodeKnowledge<'a> {
    /// What names resolved to, and the time.
    pub ledger: Option<(&'a Ledger, Time)>,
    /// Whose answers count for the endpoint.
    pub counts: &'a dyn Fn(Teacher) -> bool,
    /// Where addresses lie.
    pub places: &'a ZoneMap,
    /// The domain of Services.
    pub cluster_domain: &'a Name,
    /// Where lookups of governed pods are intercepted and answered, whatever rules say.
    pub resolvers: &'a BTreeSet<SocketAddr>,
    /// The pods that can be named as a destination.
    pub pods: &'a [Endpoint],
    /// What the name that is asked about was answered to this pod with of late, and what names may
    /// open.
    pub seen: Option<(&'a [IpAddr], &'a Teachable)>,
}

/// Answers a question.
pub fn answer(asked: &ExplainRequest, scene: ExplainContext<'_>, known: NodeKnowledge<'_>) -> ExplainAnswer {
    let mut remarks = Vec::new();
    let towards = match &asked.to {
        ExplainTarget::Address(address) if known.answers(*address, asked.traffic) => {
            vec![known.address(*address, asked.traffic)]
        }
        ExplainTarget::Pod(pod) => known
            .pods
            .iter()
            .filter(|known| known.id == *pod)
            .flat_map(|known| &known.addresses)
            .map(|address| known.address(*address, asked.traffic))
            .collect(),
        ExplainTarget::Address(address) => match service_at(*address, scene) {
            Some((service, backends)) => {
                remarks.push(format!(
                    "{address} is the Service {service}; connections to it end at its backends, whose ports count"
                ));
                backends
                    .into_iter()
                    .map(|backend| known.address(backend, asked.traffic))
                    .collect()
            }
            None => vec![known.address(*address, asked.traffic)],
        },
        ExplainTarget::Name(name) => {
            remarks.extend(known.remarks_on(name));
            known.name(name, asked.traffic, scene)
        }
    };
    let parts: Vec<AddressAnswer> = towards
        .iter()
        .map(|towards| match known.without_rules(towards, scene) {
            Some(reason) => without_rules(towards, reason),
            None => part(towards, &explain(scene, towards)),
        })
        .collect();
    let verdict = [ExplainVerdict::Allowed, ExplainVerdict::Audited]
        .into_iter()
        .find(|verdict| parts.iter().any(|part| part.verdict == *verdict));
    ExplainAnswer {
        verdict: verdict.unwrap_or(ExplainVerdict::Denied),
        from: scene.endpoint.id.to_string(),
        to: asked.to.to_string(),
        port: shown_port(asked.traffic),
        lookup: None,
        parts,
        remarks,
    }
}

/// The Service with this address, and where connections to it end. Rules are asked after the
/// translation; without backends there is none.
fn service_at(address: IpAddr, scene: ExplainContext<'_>) -> Option<(String, Vec<IpAddr>)> {
    let service = scene
        .inventory
        .services
        .iter()
        .find(|service| service.addresses.contains(&address))?;
    let backends = backends(&service.namespace, &service.name, scene);
    (!backends.is_empty()).then(|| (format!("{}/{}", service.namespace, service.name), backends))
}

/// Whether a packet to this address stays in the pod that sends it.
fn is_own(address: IpAddr, endpoint: &Endpoint) -> bool {
    address.is_loopback() || endpoint.addresses.contains(&address)
}

impl NodeKnowledge<'_> {
    /// Why a packet passes that no rule is asked about.
    fn without_rules(self, towards: &KnownPeer, scene: ExplainContext<'_>) -> Option<String> {
        let (address, _) = towards.address?;
        if is_own(address, scene.endpoint) {
            return Some("it is the pod's own address, and what it sends there does not leave it".into());
        }
        self.answers(address, towards.traffic).then(|| {
            "it is a trusted resolver, and lookups to it are answered whatever rules say; which names may be asked, `--to NAME` tells".into()
        })
    }

    /// Whether lookups are answered there.
    fn answers(self, address: IpAddr, traffic: Option<(Protocol, u16)>) -> bool {
        matches!(traffic, Some((Protocol::Tcp | Protocol::Udp, port)) if self.resolvers.contains(&SocketAddr::new(address, port)))
    }

    /// What was answered for a name, and opened nothing.
    fn remarks_on(self, name: &Name) -> Vec<String> {
        let Some((ledger, now)) = self.ledger else {
            return Vec::new();
        };
        let holds = |address: &IpAddr| ledger.addresses(now, name).any(|entry| entry.address == *address);
        let (seen, teachable) = self.seen.unzip();
        let seen = seen.unwrap_or_default();
        if seen.is_empty() && ledger.addresses(now, name).next().is_none() {
            return vec![format!(
                "{name} has not been learned; it is assumed that it resolves to addresses that names may open"
            )];
        }
        let opened_nothing = seen.iter().filter(|address| !holds(address));
        opened_nothing
            .map(|address| match teachable.map(|teachable| teachable.judge(*address)) {
                Some(Err(why)) => format!(
                    "{name} was answered with {address}, which no name opens: {why} (`--allow-rebind` exempts a range)"
                ),
                _ => format!("{name} was answered with {address}, and holds no lease on it"),
            })
            .collect()
    }

    /// An address, with every name that holds it or lately did.
    fn address(self, address: IpAddr, traffic: Option<(Protocol, u16)>) -> KnownPeer {
        let mut names = Vec::new();
        if let Some((ledger, now)) = self.ledger {
            let mut holders = ledger.holders(now, address);
            holders.retain(|entry| (self.counts)(entry.teacher));
            for of_name in holders.chunk_by(|a, b| a.name == b.name) {
                let longest = of_name.iter().max_by_key(|entry| entry.expires);
                names.extend(longest.map(|entry| KnownName {
                    name: entry.name.clone(),
                    lease: LeaseState::Remaining(entry.expires.since(now)),
                }));
            }
            let ended = ledger.ended(now).filter(|ended| ended.address == address);
            names.extend(ended.map(|ended| KnownName {
                name: ended.name.clone(),
                lease: LeaseState::Expired(now.since(ended.at)),
            }));
        }
        KnownPeer {
            address: Some((address, self.places.of(address))),
            names,
            traffic,
        }
    }

    /// Everything that a name stands for.
    fn name(self, name: &Name, traffic: Option<(Protocol, u16)>, scene: ExplainContext<'_>) -> Vec<KnownPeer> {
        let mut addresses = service_backends(name, self.cluster_domain, scene);
        if let Some((ledger, now)) = self.ledger {
            let counted = ledger.addresses(now, name).filter(|entry| (self.counts)(entry.teacher));
            addresses.extend(counted.map(|entry| entry.address));
            let ended = ledger.ended(now).filter(|ended| ended.name == *name);
            addresses.extend(ended.map(|ended| ended.address));
        }
        if let Some((seen, _)) = self.seen {
            addresses.extend(seen);
        }
        addresses.sort_unstable();
        addresses.dedup();
        if !addresses.is_empty() {
            return addresses
                .into_iter()
                .map(|address| self.address(address, traffic))
                .collect();
        }
        vec![KnownPeer {
            address: None,
            names: vec![KnownName {
                name: name.clone(),
                lease: LeaseState::Assumed,
            }],
            traffic,
        }]
    }
}

/// `service.namespace.svc.cluster.local` → where connections to it end.
fn service_backends(name: &Name, cluster_domain: &Name, scene: ExplainContext<'_>) -> Vec<IpAddr> {
    let Some(front) = name.as_str().strip_suffix(&format!(".svc.{cluster_domain}.")) else {
        return Vec::new();
    };
    let Some((service, namespace)) = front.split_once('.') else {
        return Vec::new();
    };
    backends(namespace, service, scene)
}

fn backends(namespace: &str, service: &str, scene: ExplainContext<'_>) -> Vec<IpAddr> {
    let selector = ServiceSelector {
        namespace: Some(namespace.to_owned()),
        name: Some(service.to_owned()),
        labels: LabelSelector::default(),
    };
    let backends = scene.inventory.addresses(&ObjectSelector::Services(selector));
    backends.into_iter().collect()
}

fn without_rules(towards: &KnownPeer, reason: String) -> AddressAnswer {
    AddressAnswer {
        by_rules: false,
        address: towards.address.map(|(address, _)| address),
        verdict: ExplainVerdict::Allowed,
        reason,
        policy: None,
        kind: None,
        rule: None,
        lease_left_seconds: None,
        kernel: None,
        nearest: Vec::new(),
    }
}

fn part(towards: &KnownPeer, explanation: &Explanation) -> AddressAnswer {
    let Explanation {
        outcome,
        decision,
        near_misses: misses,
    } = explanation;
    let origin = match decision {
        Decision::Rule { origin, .. } => Some(origin),
        Decision::Closed { by, .. } => by.first(),
        Decision::Open(_) | Decision::Unselected(_) => None,
    };
    let lease = match decision {
        Decision::Rule {
            matched:
                Matched::Name(
                    _,
                    KnownName {
                        lease: LeaseState::Remaining(left),
                        ..
                    },
                ),
            ..
        } => Some(left.as_secs()),
        _ => None,
    };
    let rule = origin
        .map(|Origin { rule, .. }| rule.clone())
        .filter(|rule| !rule.is_empty());
    AddressAnswer {
        by_rules: true,
        address: towards.address.map(|(address, _)| address),
        verdict: verdict_of(*outcome),
        reason: decision.to_string(),
        policy: origin.map(|origin| origin.policy.to_string()),
        kind: origin.map(|origin| origin.policy.kind.as_str().to_owned()),
        rule,
        lease_left_seconds: lease,
        kernel: None,
        nearest: misses.iter().map(ToString::to_string).collect(),
    }
}

fn verdict_of(outcome: ExplainOutcome) -> ExplainVerdict {
    match outcome {
        ExplainOutcome::Allowed => ExplainVerdict::Allowed,
        ExplainOutcome::Audited => ExplainVerdict::Audited,
        ExplainOutcome::Denied => ExplainVerdict::Denied,
    }
}

fn shown_port(traffic: Option<(Protocol, u16)>) -> String {
    match traffic {
        None => "any port".into(),
        Some((protocol, port)) if protocol.has_ports() => format!("{port}/{protocol}"),
        Some((protocol, kind)) => format!("{protocol} type {kind}"),
    }
}

impl ExplainTarget {
    /// Reads an address, `NAMESPACE/NAME` of a pod, or a name.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some((namespace, name)) = text.split_once('/') {
            return match namespace.contains(['.', ':']) {
                true => Err(format!("{text:?} is a prefix; write one address of it")),
                false => Ok(Self::Pod(EndpointId {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                })),
            };
        }
        match text.parse() {
            Ok(address) => Ok(Self::Address(address)),
            Err(_) => Name::parse(text)
                .map(Self::Name)
                .map_err(|error| format!("{text:?} is neither an address nor a name: {error}")),
        }
    }
}

impl fmt::Display for ExplainTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExplainTarget::Name(name) => name.fmt(f),
            ExplainTarget::Address(address) => address.fmt(f),
            ExplainTarget::Pod(pod) => pod.fmt(f),
        }
    }
}

/// Reads `--port` and `--protocol`.
pub fn traffic(port: Option<u16>, protocol: Option<&str>) -> Result<Option<(Protocol, u16)>, String> {
    let protocol = match protocol.map(str::to_ascii_lowercase).as_deref() {
        None => None,
        Some("tcp") => Some(Protocol::Tcp),
        Some("udp") => Some(Protocol::Udp),
        Some("sctp") => Some(Protocol::Sctp),
        Some("icmp") => Some(Protocol::Icmp),
        Some("icmpv6") => Some(Protocol::Icmpv6),
        Some(other) => return Err(format!("{other:?} is not one of tcp, udp, sctp, icmp and icmpv6")),
    };
    match (port, protocol) {
        (None, None) => Ok(None),
        // An echo request, as `ping` sends it.
        (None, Some(Protocol::Icmp)) => Ok(Some((Protocol::Icmp, 8))),
        (None, Some(Protocol::Icmpv6)) => Ok(Some((Protocol::Icmpv6, 128))),
        (None, Some(protocol)) => Err(format!("which port of {protocol}? Say it with --port")),
        (Some(port), protocol) => Ok(Some((protocol.unwrap_or(Protocol::Tcp), port))),
    }
}

/// What is to be known of a policy that is refused.
pub fn refused_remark(object: &str) -> String {
    format!("{object} is refused (`namegate check` says why); what it selects is closed until it is mended")
}
