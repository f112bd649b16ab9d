//! Clusters besides the own one: what a rule means that does not say which it speaks of.
//!
//! Addresses of every cluster lie in [`Zone::Mesh`], and a program does not tell them apart. So
//! what means the own cluster alone is narrowed to it where rules are resolved: a selector by the
//! cluster's name, a prefix by the ranges of the others.

use std::borrow::Cow;

use ipnet::IpNet;

use crate::endpoint::keys;
use crate::labels::{LabelSelector, Requirement};
use crate::prefix;
use crate::zone::Zone;

/// What rules have to know of other clusters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherClusters {
    /// The name of the own cluster, which [`keys::CLUSTER`] of its pods and nodes holds.
    pub own_name: String,
    /// Where the pods of the others are. Their nodes are left out: to every cluster they are nodes
    /// besides this one.
    pub ranges: Vec<IpNet>,
}

impl OtherClusters {
    /// As in Cilium since 1.19, a selector that does not speak of clusters means the own one.
    pub(crate) fn narrowed<'a>(&self, selector: &'a LabelSelector) -> Cow<'a, LabelSelector> {
        if selector.speaks_of_clusters() {
            return Cow::Borrowed(selector);
        }
        let mut narrowed = selector.clone();
        narrowed
            .requirements
            .push(Requirement::equals(keys::CLUSTER, &self.own_name));
        Cow::Owned(narrowed)
    }

    /// What of a prefix lies in a zone: the own cluster's is not where others are.
    pub(crate) fn within(&self, zone: Zone, prefix: IpNet) -> Vec<IpNet> {
        match zone {
            Zone::Cluster => prefix::without(prefix, &self.ranges),
            Zone::Anywhere | Zone::World | Zone::Host | Zone::Mesh => vec![prefix],
        }
    }
}

impl LabelSelector {
    /// Whether it says which clusters it means.
    pub fn speaks_of_clusters(&self) -> bool {
        self.about_clusters().next().is_some()
    }

    /// What it says of clusters.
    pub fn about_clusters(&self) -> impl Iterator<Item = &Requirement> {
        let requirements = self.requirements.iter();
        requirements.filter(|requirement| requirement.key == keys::CLUSTER)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use super::*;
    use crate::compile::compile;
    use crate::direction::Direction;
    use crate::endpoint::{self, Endpoint, EndpointId};
    use crate::inventory::{InventoryNode, InventoryPod, InventoryService};
    use crate::labels::Labels;
    use crate::program::{Peer, Rule};
    use crate::{Inventory, document, validate};

    fn labels(text: &str) -> Labels {
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    fn of_cluster(pod: &str, cluster: &str) -> Labels {
        endpoint::labels(&labels(pod), "shop", &Labels::new(), "default", cluster)
    }

    /// The cluster `east` with a pod, a node and a service, and the same of `west`.
    fn inventory() -> Inventory {
        let pod = |cluster: &str, address: [u8; 4]| {
            InventoryPod::new(of_cluster("app=db", cluster), [IpAddr::from(address)], Vec::new())
        };
        let node = |cluster: &str, address: [u8; 4], is_this: bool| {
            let node = InventoryNode {
                labels: labels(&format!("{}={cluster},disk=ssd", keys::CLUSTER)),
                addresses: [IpAddr::from(address)].into(),
                is_this,
            };
            (cluster.to_owned(), Arc::new(node))
        };
        let service = InventoryService {
            namespace: "shop".into(),
            name: "db".into(),
            selector: Some(labels("app=db")),
            ..InventoryService::default()
        };
        Inventory {
            pods: [pod("east", [10, 1, 0, 2]), pod("west", [10, 2, 0, 2])]
                .into_iter()
                .collect(),
            services: [service].into_iter().collect(),
            nodes: [node("east", [192, 0, 2, 1], true), node("west", [192, 0, 2, 2], false)]
                .into_iter()
                .collect(),
            other_clusters: Some(Arc::new(OtherClusters {
                own_name: "east".into(),
                ranges: vec!["10.2.0.0/16".parse().unwrap()],
            })),
            ..Inventory::default()
        }
    }

    fn rules(kind: &str, spec: &str, direction: Direction) -> Vec<Rule> {
        let text = format!("{kind}\nmetadata: {{name: p, namespace: shop}}\nspec: {spec}\n");
        let (documents, errors) = document::parse(&text);
        assert_eq!(errors, []);
        let (policy, diagnostics) = validate::validate(&documents[0]);
        let policy = policy.accepted().unwrap_or_else(|| panic!("{diagnostics:?}"));
        let endpoint = Endpoint {
            id: EndpointId {
                namespace: "shop".into(),
                name: "web".into(),
            },
            labels: of_cluster("app=web", "east"),
            addresses: Default::default(),
            ports: Vec::new(),
        };
        let governed = compile(&endpoint, [&policy], &inventory()).unwrap();
        governed.programs.take(direction).unwrap().enforced.network
    }

    /// The last octets but two of what rules select: 1 of pods of `east`, 2 of `west`; 0 of nodes.
    fn selected(rules: &[Rule]) -> Vec<String> {
        let members = rules.iter().flat_map(|rule| inventory().members(rule).into_keys());
        members.map(|address| address.to_string()).collect()
    }

    fn from(peers: &str) -> Vec<String> {
        let spec = format!("{{endpointSelector: {{}}, ingress: [{{{peers}}}]}}");
        let kind = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy";
        selected(&rules(kind, &spec, Direction::Ingress))
    }

    #[test]
    fn a_selector_means_the_own_cluster_unless_it_speaks_of_clusters() {
        let (own, other) = ("10.1.0.2", "10.2.0.2");
        let key = "io.cilium.k8s.policy.cluster";
        for (selector, expected) in [
            ("matchLabels: {app: db}".to_owned(), &[own][..]),
            (String::new(), &[own]),
            (format!("matchLabels: {{app: db, {key}: west}}"), &[other]),
            (format!("matchLabels: {{'k8s:{key}': east}}"), &[own]),
            (
                format!("matchExpressions: [{{key: {key}, operator: Exists}}]"),
                &[own, other],
            ),
            (
                format!("matchExpressions: [{{key: {key}, operator: NotIn, values: [east]}}]"),
                &[other],
            ),
            (format!("matchLabels: {{{key}: north}}"), &[]),
        ] {
            assert_eq!(
                from(&format!("fromEndpoints: [{{{selector}}}]")),
                expected,
                "{selector}"
            );
        }
        let network_policy = |peer: &str| {
            let spec = format!("{{podSelector: {{}}, ingress: [{{from: [{peer}]}}]}}");
            let kind = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy";
            selected(&rules(kind, &spec, Direction::Ingress))
        };
        assert_eq!(network_policy("{podSelector: {}}"), [own]);
        assert_eq!(network_policy("{namespaceSelector: {}}"), [own]);
        assert_eq!(
            network_policy(&format!("{{podSelector: {{matchLabels: {{{key}: west}}}}}}")),
            [other]
        );
    }

    #[test]
    fn nodes_are_selected_as_pods_are_and_remote_ones_are_of_every_cluster() {
        let (own, other) = ("192.0.2.1", "192.0.2.2");
        let key = "io.cilium.k8s.policy.cluster";
        assert_eq!(from("fromNodes: [{matchLabels: {disk: ssd}}]"), [own]);
        assert_eq!(from(&format!("fromNodes: [{{matchLabels: {{{key}: west}}}}]")), [other]);
        assert_eq!(
            from(&format!(
                "fromNodes: [{{matchExpressions: [{{key: {key}, operator: Exists}}]}}]"
            )),
            [own, other]
        );
        assert_eq!(from("fromEntities: [remote-node]"), [other]);
    }

    #[test]
    fn a_service_is_the_own_clusters() {
        let spec = "{endpointSelector: {}, egress: [{toServices: [{k8sService: {serviceName: db, namespace: shop}}]}]}";
        let kind = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy";
        assert_eq!(selected(&rules(kind, spec, Direction::Egress)), ["10.1.0.2"]);
    }

    #[test]
    fn the_own_cluster_is_where_others_are_not_and_the_mesh_is_everywhere() {
        let holds = |entity: &str, address: [u8; 4]| {
            let spec = format!("{{endpointSelector: {{}}, ingress: [{{fromEntities: [{entity}]}}]}}");
            let kind = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy";
            let address = IpAddr::from(address);
            rules(kind, &spec, Direction::Ingress).iter().any(|rule| {
                matches!(&rule.peer, Peer::Prefix(Zone::Cluster | Zone::Mesh, prefix) if prefix.contains(&address))
            })
        };
        let (own, other, its_node) = ([10, 1, 0, 2], [10, 2, 0, 2], [192, 0, 2, 2]);
        assert_eq!(
            [own, other, its_node].map(|it| holds("cluster", it)),
            [true, false, true]
        );
        assert_eq!([own, other, its_node].map(|it| holds("cluster-mesh", it)), [true; 3]);
    }
}
