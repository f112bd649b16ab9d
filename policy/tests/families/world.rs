//! A small cluster, to ask who may reach what.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use names::Name;
use policy::endpoint;
use policy::explain::{
    Decision, ExplainContext, ExplainOutcome, Explanation, KnownName, KnownPeer, LeaseState, explain,
};
use policy::inventory::{ContainerPort, Inventory, InventoryNode, InventoryPod};
use policy::labels::Labels;
use policy::{AddressZone, Direction, Endpoint, EndpointId, Policy, Protocol, document, validate};

type Pairs = &'static [(&'static str, &'static str)];

/// A pod. Each has a container with the ports `web`, 8080/TCP, and `dns`, 53/UDP.
struct Pod {
    name: &'static str,
    of_namespace: Pairs,
    own: Pairs,
    address: [u8; 4],
}

const TENANT_RED: Pairs = &[("kind", "tenant"), ("team", "red")];
const TENANT_BLUE: Pairs = &[("kind", "tenant"), ("team", "blue")];

static PODS: [Pod; 6] = [
    Pod::new("shop/web", TENANT_RED, &[("app", "web")], 1),
    Pod::new("shop/db", TENANT_RED, &[("app", "db")], 2),
    Pod::new("bank/web", TENANT_BLUE, &[("app", "web")], 3),
    Pod::new("bank/db", TENANT_BLUE, &[("app", "db")], 4),
    Pod::new("kube-system/dns", &[], &[("k8s-app", "kube-dns")], 5),
    Pod::new("monitoring/gateway", &[("team", "ops")], &[("app", "gateway")], 6),
];

impl Pod {
    const fn new(name: &'static str, of_namespace: Pairs, own: Pairs, number: u8) -> Self {
        Self {
            name,
            of_namespace,
            own,
            address: [10, 244, 0, number],
        }
    }

    fn named(name: &str) -> &'static Self {
        PODS.iter().find(|pod| pod.name == name).unwrap()
    }

    fn id(&self) -> EndpointId {
        let (namespace, name) = self.name.split_once('/').unwrap();
        EndpointId {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    fn labels(&self) -> Labels {
        let (own, of_namespace) = (owned(self.own), owned(self.of_namespace));
        endpoint::labels(&own, &self.id().namespace, &of_namespace, "default", "default")
    }
}

/// A node, with the label `role: worker`.
pub(crate) const NODE: [u8; 4] = [192, 168, 0, 7];

/// The cluster under some policies.
pub(crate) struct World {
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
        let pods = PODS.iter().map(|pod| {
            let port = |name: &str, protocol, port| ContainerPort {
                name: name.to_owned(),
                protocol,
                port,
            };
            Arc::new(InventoryPod {
                labels: pod.labels(),
                addresses: BTreeSet::from([IpAddr::from(pod.address)]),
                ports: vec![port("web", Protocol::Tcp, 8080), port("dns", Protocol::Udp, 53)],
            })
        });
        let node = InventoryNode {
            labels: owned(&[("role", "worker")]),
            addresses: BTreeSet::from([NODE.into()]),
            is_this: false,
        };
        let inventory = Inventory {
            pods: pods.collect(),
            nodes: vec![node],
            ..Inventory::default()
        };
        Self { policies, inventory }
    }

    /// From `namespace/name` to an address: the verdict.
    pub(crate) fn reaches(&self, from: &str, to: [u8; 4], traffic: (Protocol, u16)) -> bool {
        self.explain(from, Some(to.into()), None, traffic).outcome != ExplainOutcome::Denied
    }

    /// From `namespace/name` to `namespace/name`, over TCP.
    pub(crate) fn reaches_pod(&self, from: &str, to: &str, port: u16) -> bool {
        self.reaches(from, Pod::named(to).address, (Protocol::Tcp, port))
    }

    /// From `namespace/name` to what a name resolves to outside the cluster, over TCP.
    pub(crate) fn reaches_name(&self, from: &str, name: &str, port: u16) -> bool {
        let explanation = self.explain(from, Some([203, 0, 113, 80].into()), Some(name), (Protocol::Tcp, port));
        explanation.outcome != ExplainOutcome::Denied
    }

    /// The policy that decides, and the outcome.
    pub(crate) fn explain(
        &self,
        from: &str,
        to: Option<IpAddr>,
        name: Option<&str>,
        traffic: (Protocol, u16),
    ) -> Explanation {
        let pod = Pod::named(from);
        let endpoint = Endpoint {
            id: pod.id(),
            labels: pod.labels(),
            addresses: BTreeSet::from([IpAddr::from(pod.address)]),
        };
        let place = |address: IpAddr| {
            let inside = PODS.iter().any(|pod| IpAddr::from(pod.address) == address) || address == IpAddr::from(NODE);
            (
                address,
                if inside {
                    AddressZone::Cluster
                } else {
                    AddressZone::World
                },
            )
        };
        let name = name.map(|name| KnownName {
            name: Name::parse(name).unwrap(),
            lease: LeaseState::Assumed,
        });
        let policies: Vec<&Policy> = self.policies.iter().collect();
        let context = ExplainContext {
            direction: Direction::Egress,
            endpoint: &endpoint,
            policies: &policies,
            inventory: &self.inventory,
        };
        let towards = KnownPeer {
            address: to.map(place),
            names: name.into_iter().collect(),
            traffic: Some(traffic),
        };
        explain(context, &towards)
    }
}

/// The name of the policy whose rule decides.
pub(crate) fn decided_by(explanation: &Explanation) -> &str {
    match &explanation.decision {
        Decision::Rule { origin, .. } => &origin.policy.name,
        other => panic!("{other}"),
    }
}

fn owned(pairs: &[(&str, &str)]) -> Labels {
    let owned = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    owned.collect()
}
