//! Why a connection is let through, or why not: what `namegate explain` prints. Pure.
//!
//! [`policy::explain`] tells which rule decides for one endpoint, direction and address. Here a
//! person's question becomes such questions: a name has addresses, which the ledger knows, a
//! Service's name has those of its backends, and both ends of a connection decide.

mod ends;
mod offline;
mod parts;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use api::{AddressAnswer, ExplainAnswer, ExplainVerdict};
use clock::Time;
use fqdn_cache::{Ledger, Teacher};
use names::Name;
use policy::address::{Teachable, ZoneMap};
use policy::explain::{KnownAnnouncement, KnownName, KnownPeer, LeaseState};
use policy::labels::LabelSelector;
use policy::{Endpoint, Inventory, ObjectSelector, Policy, Protocol, ServiceSelector};

pub use ends::{ExplainRequest, ExplainSource, ExplainTarget, Sender, announced, traffic};
pub use offline::{OfflineError, answer_offline};
use parts::{part, shown_port};

/// What is explained.
#[derive(Debug, Clone, Copy)]
pub struct ExplainScene<'a> {
    /// Who opens the connection.
    pub from: &'a Sender,
    /// All policies.
    pub policies: &'a [&'a Policy],
    /// Every object that rules may speak of.
    pub inventory: &'a Inventory,
    /// What the connection announces, where somebody looks into it.
    pub announced: Option<&'a KnownAnnouncement>,
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
    /// The domains of Services.
    pub cluster_domains: &'a [Name],
    /// Where lookups of governed pods are intercepted and answered, whatever rules say.
    pub resolvers: &'a BTreeSet<SocketAddr>,
    /// The pods that can be named.
    pub pods: &'a [Endpoint],
    /// Whether what comes from the receiver's own node passes, whatever its ingress rules say.
    pub own_node_passes: bool,
    /// What the name that is asked about was answered to this pod with of late, and what names may
    /// open.
    pub seen: Option<(&'a [IpAddr], &'a Teachable)>,
}

/// Answers a question.
pub fn answer(asked: &ExplainRequest, scene: ExplainScene<'_>, known: NodeKnowledge<'_>) -> ExplainAnswer {
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
    if scene.from.endpoint.is_none() {
        remarks.push(format!(
            "{} counts as the source that the pod's node sees; what another node has forwarded (NodePort, load balancers) may come with that node's address",
            asked.from
        ));
    }
    let from = scene.from.addresses.iter().copied();
    let ends = from.chain(towards.iter().filter_map(|towards| Some(towards.address?.0)));
    remarks.extend(ends.filter_map(|address| of_other_cluster(address, scene.inventory)));
    let parts: Vec<AddressAnswer> = towards.iter().map(|towards| part(towards, scene, known)).collect();
    let verdict = [ExplainVerdict::Allowed, ExplainVerdict::Audited]
        .into_iter()
        .find(|verdict| parts.iter().any(|part| part.verdict == *verdict));
    ExplainAnswer {
        verdict: verdict.unwrap_or(ExplainVerdict::Denied),
        from: asked.from.to_string(),
        to: asked.to.to_string(),
        port: shown_port(asked.traffic),
        lookup: None,
        flows: Vec::new(),
        parts,
        remarks,
    }
}

/// Whose an address is, where it is another cluster's.
fn of_other_cluster(address: IpAddr, inventory: &Inventory) -> Option<String> {
    let pod = inventory.pods.at(address).find_map(|pod| {
        let cluster = inventory.other_cluster(pod.labels())?;
        let namespace = pod.identity().namespace();
        Some(format!(
            "{address} is a pod of the cluster {cluster}, in its namespace {namespace}; the policies over there are not known here"
        ))
    });
    pod.or_else(|| {
        let mut nodes = inventory
            .nodes
            .values()
            .filter(|node| node.addresses.contains(&address));
        let cluster = nodes.find_map(|node| inventory.other_cluster(&node.labels))?;
        Some(format!("{address} is a node of the cluster {cluster}"))
    })
}

/// The Service with this address, and where connections to it end. Rules are asked after the
/// translation; without backends there is none.
fn service_at(address: IpAddr, scene: ExplainScene<'_>) -> Option<(String, Vec<IpAddr>)> {
    let service = scene
        .inventory
        .services
        .iter()
        .find(|service| service.addresses.contains(&address))?;
    let backends = backends(&service.namespace, &service.name, scene);
    (!backends.is_empty()).then(|| (format!("{}/{}", service.namespace, service.name), backends))
}

/// Whether a packet to this address stays in the pod that sends it.
fn is_own(address: IpAddr, from: &Sender) -> bool {
    address.is_loopback() || from.addresses.contains(&address)
}

impl NodeKnowledge<'_> {
    /// Why a packet passes that no rule is asked about.
    fn without_rules(self, towards: &KnownPeer, scene: ExplainScene<'_>) -> Option<String> {
        let (address, _) = towards.address?;
        if is_own(address, scene.from) {
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
    fn name(self, name: &Name, traffic: Option<(Protocol, u16)>, scene: ExplainScene<'_>) -> Vec<KnownPeer> {
        let mut addresses = service_backends(name, self.cluster_domains, scene);
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
fn service_backends(name: &Name, cluster_domains: &[Name], scene: ExplainScene<'_>) -> Vec<IpAddr> {
    let below = |domain: &Name| name.as_str().strip_suffix(&format!(".svc.{domain}."));
    let Some(front) = cluster_domains.iter().find_map(below) else {
        return Vec::new();
    };
    let Some((service, namespace)) = front.split_once('.') else {
        return Vec::new();
    };
    backends(namespace, service, scene)
}

fn backends(namespace: &str, service: &str, scene: ExplainScene<'_>) -> Vec<IpAddr> {
    let selector = ServiceSelector {
        namespace: Some(namespace.to_owned()),
        name: Some(service.to_owned()),
        labels: LabelSelector::default(),
    };
    let backends = scene.inventory.addresses(&ObjectSelector::Services(selector));
    backends.into_iter().collect()
}

/// What is to be known of a policy that is refused.
pub fn refused_remark(object: &str) -> String {
    format!("{object} is refused (`namegate check` says why); what it selects is closed until it is mended")
}
