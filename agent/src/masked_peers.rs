//! Pods of other clusters whose addresses are masked on the way, where refused packets show it.
//!
//! A gateway between clusters that masquerades puts its own or a node's address in a pod's place.
//! Then no selector of pods matches, and nothing in a packet tells why. What tells is a refused
//! source that is a *node* of a cluster of which the receiver's policies name *pods*.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::RecordRow;
use policy::labels::{LabelSelector, Labels};
use policy::{Endpoint, Inventory, ObjectSelector, PeerSelector, Policy, endpoint};

/// What is known of the receivers and senders.
#[derive(Clone, Copy)]
pub(crate) struct MaskingScene<'a> {
    /// The pods of this node.
    pub(crate) local: &'a [Endpoint],
    pub(crate) policies: &'a [&'a Policy],
    pub(crate) inventory: &'a Inventory,
}

/// For each other cluster the sources that are probably masked pods of it, one line each.
pub(crate) fn find(records: &[RecordRow], scene: MaskingScene<'_>) -> BTreeMap<String, BTreeSet<String>> {
    let mut masked: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let refused = records
        .iter()
        .filter(|row| row.direction == "ingress" && row.verdict == "refused");
    for row in refused {
        let Some((pod, cluster)) = row.pod.as_ref().zip(scene.cluster_of_node(row.source)) else {
            continue;
        };
        if !scene.names_pods_of(cluster, pod) {
            continue;
        }
        let port = row
            .port
            .map(|port| format!(" at {port}/{}", row.protocol))
            .unwrap_or_default();
        masked.entry(cluster.to_owned()).or_default().insert(format!(
            "{}, a node of it, was refused by {pod}{port}, whose policies name pods of it: these may be masked by that address on the way",
            row.source
        ));
    }
    masked
}

impl<'a> MaskingScene<'a> {
    /// The other cluster of which a node has this address.
    fn cluster_of_node(self, address: IpAddr) -> Option<&'a str> {
        let nodes = self.inventory.nodes.values();
        let mut there = nodes.filter(|node| node.addresses.contains(&address));
        there.find_map(|node| self.inventory.other_cluster(&node.labels))
    }

    /// Whether a policy that selects a pod (`namespace/name`) lets in pods of a cluster.
    fn names_pods_of(self, cluster: &str, pod: &str) -> bool {
        let Some(endpoint) = self.local.iter().find(|endpoint| endpoint.id.to_string() == pod) else {
            return false;
        };
        let specs = self.policies.iter().flat_map(|policy| &policy.specs);
        let mut rules = specs
            .filter(|spec| spec.selects(endpoint))
            .flat_map(|spec| &spec.directions.ingress.rules);
        rules.any(|rule| match &rule.peers {
            PeerSelector::Objects(selectors) => selectors.iter().any(|selector| match selector {
                ObjectSelector::Pods(labels) => may_mean(labels, cluster),
                _ => false,
            }),
            _ => false,
        })
    }
}

/// Whether pods of a cluster may be selected.
fn may_mean(selector: &LabelSelector, cluster: &str) -> bool {
    let labels = Labels::from([(endpoint::keys::CLUSTER.to_owned(), cluster.to_owned())]);
    let mut about = selector.about_clusters();
    selector.speaks_of_clusters() && about.all(|requirement| requirement.holds(&labels))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use policy::inventory::InventoryNode;
    use policy::{EndpointId, OtherClusters, document, validate};

    use super::*;

    fn told(selector: &str, change: impl FnOnce(&mut RecordRow)) -> Vec<String> {
        let text = format!(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p, namespace: shop}}\n\
             spec: {{endpointSelector: {{}}, ingress: [{{fromEndpoints: [{selector}]}}]}}\n"
        );
        let (documents, _) = document::parse(&text);
        let policy = validate::validate(&documents[0]).0.accepted().unwrap();
        let none = Default::default();
        let receiver = Endpoint {
            id: EndpointId {
                namespace: "shop".into(),
                name: "db".into(),
            },
            labels: endpoint::labels(&none, "shop", &none, "default", "east"),
            addresses: BTreeSet::from([IpAddr::from([10, 0, 0, 2])]),
            ports: Vec::new(),
        };
        let node = InventoryNode {
            labels: [(endpoint::keys::CLUSTER.to_owned(), "west".to_owned())].into(),
            addresses: [IpAddr::from([192, 0, 2, 9])].into(),
            is_this: false,
        };
        let inventory = Inventory {
            nodes: [("west/n".to_owned(), Arc::new(node))].into_iter().collect(),
            other_clusters: Some(Arc::new(OtherClusters {
                own_name: "east".into(),
                ranges: Vec::new(),
            })),
            ..Inventory::default()
        };
        let mut row = api::examples::records().rows[0].clone();
        row.direction = "ingress".into();
        row.verdict = "refused".into();
        row.pod = Some("shop/db".into());
        row.source = IpAddr::from([192, 0, 2, 9]);
        row.port = Some(5432);
        change(&mut row);
        let scene = MaskingScene {
            local: &[receiver],
            policies: &[&policy],
            inventory: &inventory,
        };
        let found = find(&[row], scene);
        found
            .into_iter()
            .flat_map(|(cluster, lines)| lines.into_iter().map(move |line| format!("{cluster}: {line}")))
            .collect()
    }

    #[test]
    fn a_refused_node_of_a_cluster_whose_pods_are_named_is_told() {
        let key = endpoint::keys::CLUSTER;
        let named = format!("{{matchLabels: {{{key}: west}}}}");
        let lines = told(&named, |_| {});
        assert_eq!(lines.len(), 1);
        assert!(
            lines[0].starts_with("west: 192.0.2.9, a node of it, was refused by shop/db at 5432/TCP"),
            "{lines:?}"
        );
        let every = format!("{{matchExpressions: [{{key: {key}, operator: Exists}}]}}");
        assert_eq!(told(&every, |_| {}).len(), 1);
        // Nobody means the cluster, or somebody else was refused.
        assert_eq!(told("{matchLabels: {app: web}}", |_| {}), [""; 0]);
        assert_eq!(told(&format!("{{matchLabels: {{{key}: north}}}}"), |_| {}), [""; 0]);
        assert_eq!(told(&named, |row| row.source = IpAddr::from([192, 0, 2, 1])), [""; 0]);
        assert_eq!(told(&named, |row| row.direction = "egress".into()), [""; 0]);
        assert_eq!(told(&named, |row| row.verdict = "audited".into()), [""; 0]);
        assert_eq!(told(&named, |row| row.pod = Some("shop/other".into())), [""; 0]);
    }
}
