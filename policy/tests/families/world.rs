//! A small cluster, to ask who may reach what.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use names::Name;
use policy::compile::compile;
use policy::endpoint;
use policy::explain::{
    Decision, ExplainContext, ExplainOutcome, Explanation, KnownName, KnownPeer, LeaseState, explain,
};
use policy::inventory::{ContainerPort, Inventory, InventoryNode, InventoryPod};
use policy::labels::Labels;
use policy::question::{QuestionVerdict, Questions};
use policy::{AddressZone, Direction, Endpoint, EndpointId, Policy, Protocol, QuestionMode, document, validate};

type Pairs<'a> = &'a [(&'a str, &'a str)];

/// A pod. Each has a container with the ports `web`, 8080/TCP, and `dns`, 53/UDP.
#[derive(Debug)]
pub(crate) struct Pod {
    /// `namespace/name`.
    pub(crate) name: String,
    pub(crate) of_namespace: Labels,
    pub(crate) own: Labels,
    pub(crate) address: IpAddr,
}

const TENANT_RED: Pairs<'_> = &[("kind", "tenant"), ("team", "red")];
const TENANT_BLUE: Pairs<'_> = &[("kind", "tenant"), ("team", "blue")];

/// The pods of the cluster, unless a test has its own.
fn pods() -> Vec<Pod> {
    vec![
        Pod::new("shop/web", TENANT_RED, &[("app", "web")], 1),
        Pod::new("shop/db", TENANT_RED, &[("app", "db")], 2),
        Pod::new("bank/web", TENANT_BLUE, &[("app", "web")], 3),
        Pod::new("bank/db", TENANT_BLUE, &[("app", "db")], 4),
        Pod::new("kube-system/dns", &[], &[("k8s-app", "kube-dns")], 5),
        Pod::new("monitoring/gateway", &[("team", "ops")], &[("app", "gateway")], 6),
    ]
}

impl Pod {
    fn new(name: &str, of_namespace: Pairs<'_>, own: Pairs<'_>, number: u8) -> Self {
        Self {
            name: name.to_owned(),
            of_namespace: owned(of_namespace),
            own: owned(own),
            address: [10, 244, 0, number].into(),
        }
    }

    fn id(&self) -> EndpointId {
        let (namespace, name) = self.name.split_once('/').unwrap();
        EndpointId {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    fn labels(&self) -> Labels {
        endpoint::labels(
            &self.own,
            &self.id().namespace,
            &self.of_namespace,
            "default",
            "default",
        )
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint {
            id: self.id(),
            labels: self.labels(),
            addresses: BTreeSet::from([self.address]),
            ports: self.ports(),
        }
    }

    fn ports(&self) -> Vec<ContainerPort> {
        let port = |name: &str, protocol, port| ContainerPort {
            name: name.to_owned(),
            protocol,
            port,
        };
        vec![port("web", Protocol::Tcp, 8080), port("dns", Protocol::Udp, 53)]
    }

    fn in_inventory(&self) -> InventoryPod {
        InventoryPod::new(self.labels(), [self.address], self.ports())
    }
}

/// A node, with the label `role: worker`.
pub(crate) const NODE: [u8; 4] = [192, 168, 0, 7];

/// The node that policies of nodes are asked about, with the label `role: edge`.
pub(crate) const HOST: [u8; 4] = [192, 168, 0, 1];

/// The cluster under some policies.
pub(crate) struct World {
    pods: Vec<Pod>,
    policies: Vec<Policy>,
    inventory: Inventory,
}

impl World {
    /// All policies must stand.
    pub(crate) fn under(text: &str) -> Self {
        let (documents, errors) = document::parse(text);
        assert_eq!(errors, []);
        let read = |document: &document::Document| {
            let (verdict, diagnostics) = validate::validate(document);
            verdict.accepted().unwrap_or_else(|| panic!("{diagnostics:?}"))
        };
        Self::of(documents.iter().map(read).collect())
    }

    /// What stands in for policies, all of which are refused.
    pub(crate) fn under_refused(text: &str) -> Self {
        let (documents, _) = document::parse(text);
        let read = |document: &document::Document| match validate::validate(document).0 {
            validate::Validation::Refused(stand_in) => stand_in.policy.unwrap(),
            validate::Validation::Accepted(policy) => panic!("{policy:?}"),
        };
        Self::of(documents.iter().map(read).collect())
    }

    /// The policies of both.
    pub(crate) fn beside(mut self, other: Self) -> Self {
        self.policies.extend(other.policies);
        self
    }

    fn of(policies: Vec<Policy>) -> Self {
        let node = |name: &str, role, address: [u8; 4], is_this| {
            let node = InventoryNode {
                labels: owned(&[("role", role)]),
                addresses: BTreeSet::from([address.into()]),
                is_this,
            };
            (name.to_owned(), Arc::new(node))
        };
        let nodes = [node("node", "worker", NODE, false), node("host", "edge", HOST, true)];
        let inventory = Inventory {
            nodes: nodes.into_iter().collect(),
            ..Inventory::default()
        };
        let world = Self {
            pods: Vec::new(),
            policies,
            inventory,
        };
        world.with_pods(pods())
    }

    /// The same policies with other pods.
    pub(crate) fn with_pods(mut self, pods: impl IntoIterator<Item = Pod>) -> Self {
        self.pods = pods.into_iter().collect();
        self.inventory.pods = self.pods.iter().map(Pod::in_inventory).collect();
        self
    }

    pub(crate) fn pod(&self, name: &str) -> &Pod {
        let found = self.pods.iter().find(|pod| pod.name == name);
        found.unwrap_or_else(|| panic!("there is no pod {name}"))
    }

    /// From `namespace/name` to an address: the verdict.
    pub(crate) fn reaches(&self, from: &str, to: [u8; 4], traffic: (Protocol, u16)) -> bool {
        self.explain(from, Some(to.into()), None, traffic).outcome != ExplainOutcome::Denied
    }

    /// From `namespace/name` to `namespace/name`, over TCP.
    pub(crate) fn reaches_pod(&self, from: &str, to: &str, port: u16) -> bool {
        self.explain(from, Some(self.pod(to).address), None, (Protocol::Tcp, port))
            .outcome
            != ExplainOutcome::Denied
    }

    /// The address of `namespace/name`, of this node or the other, or as it is written.
    pub(crate) fn address(&self, end: &str) -> Option<IpAddr> {
        match end {
            "host" => Some(HOST.into()),
            "node" => Some(NODE.into()),
            pod if pod.contains('/') => Some(self.pod(pod).address),
            address => address.parse().ok(),
        }
    }

    /// What becomes of a packet from a pod or an address, by the end that decides: the first that
    /// refuses it, or one of whose rules some rule lets it through.
    pub(crate) fn explain(
        &self,
        from: &str,
        to: Option<IpAddr>,
        name: Option<&str>,
        traffic: (Protocol, u16),
    ) -> Explanation {
        let endpoint_at = |address: IpAddr| match address == IpAddr::from(HOST) {
            true => Some(host()),
            false => self.pods.iter().find(|pod| pod.address == address).map(Pod::endpoint),
        };
        let source = self.address(from).unwrap_or_else(|| panic!("{from} is no address"));
        let named = name.map(|name| KnownName {
            name: Name::parse(name).unwrap(),
            lease: LeaseState::Assumed,
        });
        let towards = self.peer(to, named, traffic);
        let egress = endpoint_at(source).map(|endpoint| self.explained(Direction::Egress, &endpoint, &towards));
        // What comes from its own node passes a pod's ingress.
        let is_asked = |address: &IpAddr| *address != source && source != IpAddr::from(HOST);
        let receiver = to.filter(is_asked).and_then(endpoint_at);
        let ingress = receiver.map(|endpoint| {
            let sender = self.peer(Some(source), None, traffic);
            self.explained(Direction::Ingress, &endpoint, &sender)
        });
        let mut ends: Vec<Explanation> = egress.into_iter().chain(ingress).collect();
        let weight = |end: &Explanation| match (end.outcome, &end.decision) {
            (ExplainOutcome::Denied, _) => 0,
            (ExplainOutcome::Audited, _) => 1,
            (ExplainOutcome::Allowed, Decision::Rule { .. }) => 2,
            (ExplainOutcome::Allowed, _) => 3,
        };
        // The sort is stable: of two that weigh the same the sender's comes first.
        ends.sort_by_key(weight);
        ends.into_iter().next().unwrap_or_else(|| panic!("no end is governed"))
    }

    fn peer(&self, address: Option<IpAddr>, name: Option<KnownName>, traffic: (Protocol, u16)) -> KnownPeer {
        let located = |address: IpAddr| {
            let inside = self.pods.iter().any(|pod| pod.address == address) || address == IpAddr::from(NODE);
            let zone = match inside {
                _ if address == IpAddr::from(HOST) => AddressZone::Host,
                true => AddressZone::Cluster,
                false => AddressZone::World,
            };
            (address, zone)
        };
        KnownPeer {
            address: address.map(located),
            names: name.into_iter().collect(),
            traffic: Some(traffic),
        }
    }

    fn explained(&self, direction: Direction, endpoint: &Endpoint, peer: &KnownPeer) -> Explanation {
        let policies: Vec<&Policy> = self.policies.iter().collect();
        let context = ExplainContext {
            direction,
            endpoint,
            policies: &policies,
            inventory: &self.inventory,
            announced: None,
        };
        explain(context, peer)
    }

    /// Whether a pod may ask the cluster's DNS for a name.
    pub(crate) fn may_ask(&self, from: &str, name: &str) -> bool {
        let Some(governed) = compile(&self.pod(from).endpoint(), &self.policies, &self.inventory) else {
            return true;
        };
        let domain = Name::parse("cluster.local").unwrap();
        let questions = Questions::new(&governed, QuestionMode::Any, std::slice::from_ref(&domain), &[]);
        let asked = SocketAddr::from(([10, 96, 0, 10], 53));
        questions.judge(asked, &Name::parse(name).unwrap()) == QuestionVerdict::Allowed
    }
}

/// This node itself.
fn host() -> Endpoint {
    Endpoint {
        id: EndpointId::of_node("host"),
        labels: endpoint::node_labels(&owned(&[("role", "edge")]), "default"),
        addresses: BTreeSet::from([HOST.into()]),
        ports: Vec::new(),
    }
}

/// The name of the policy whose rule decides, or of the first that closes.
pub(crate) fn decided_by(explanation: &Explanation) -> &str {
    match &explanation.decision {
        Decision::Rule { origin, .. } => &origin.policy.name,
        Decision::Closed { by, .. } => &by[0].policy.name,
        other => panic!("{other}"),
    }
}

fn owned(pairs: &[(&str, &str)]) -> Labels {
    let owned = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    owned.collect()
}
