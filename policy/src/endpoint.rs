//! Endpoints: workloads with addresses, the things that policies select.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::Serialize;

use crate::labels::Labels;
use crate::pod_index::ContainerPort;

pub use crate::special_keys as keys;

/// The name of an endpoint: the namespace and name of its Pod, or the name of a node alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct EndpointId {
    /// The Pod's namespace; empty for a node, which has none.
    pub namespace: String,
    /// The Pod's name, or the node's.
    pub name: String,
}

impl EndpointId {
    /// A node itself, with everything that shares its addresses.
    pub fn of_node(name: &str) -> Self {
        Self {
            namespace: String::new(),
            name: name.to_owned(),
        }
    }

    /// Whether it names a node.
    pub fn is_node(&self) -> bool {
        self.namespace.is_empty()
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_node() {
            true => write!(f, "node {}", self.name),
            false => write!(f, "{}/{}", self.namespace, self.name),
        }
    }
}

/// Reads `NAMESPACE/NAME`, or `NAME` in the namespace `default`.
impl FromStr for EndpointId {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

/// A workload with addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Whose it is.
    pub id: EndpointId,
    /// Pod labels and the special [`keys`]; [`labels`] makes them.
    pub labels: Labels,
    /// Its addresses, both families.
    pub addresses: BTreeSet<IpAddr>,
    /// The ports that its containers name, by which ingress rules may speak of them.
    pub ports: Vec<ContainerPort>,
}

/// The labels that an endpoint is selected by: those of its Pod, and the special [`keys`].
///
/// The special keys win: a Pod may not talk itself into another namespace's policies (or out of its
/// own's) by a label of that name.
pub fn labels(
    pod: &Labels,
    namespace: &str,
    namespace_labels: &Labels,
    service_account: &str,
    cluster: &str,
) -> Labels {
    let mut labels: Labels = pod
        .iter()
        .filter(|(key, _)| !is_special(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    // The API server sets it on every Namespace, always to the name; objects in files may lack it.
    let named = (keys::NAMESPACE_NAME.to_owned(), namespace.to_owned());
    let of_namespace = namespace_labels.clone().into_iter().chain([named]);
    for (key, value) in of_namespace {
        labels.insert(format!("{}{key}", keys::NAMESPACE_LABELS), value);
    }
    labels.insert(keys::NAMESPACE.to_owned(), namespace.to_owned());
    labels.insert(keys::SERVICE_ACCOUNT.to_owned(), service_account.to_owned());
    labels.insert(keys::CLUSTER.to_owned(), cluster.to_owned());
    labels
}

/// The labels that a node is selected by: its own, and its cluster's name.
pub fn node_labels(node: &Labels, cluster: &str) -> Labels {
    let own = node.iter().filter(|(key, _)| !is_special(key));
    let cluster = (keys::CLUSTER.to_owned(), cluster.to_owned());
    own.map(|(key, value)| (key.clone(), value.clone()))
        .chain([cluster])
        .collect()
}

/// Whether a label key is one of the special [`keys`], which no pod can set.
pub(crate) fn is_special(key: &str) -> bool {
    [keys::NAMESPACE, keys::SERVICE_ACCOUNT, keys::CLUSTER].contains(&key) || key.starts_with(keys::NAMESPACE_LABELS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn labels_hold_the_pods_own_and_the_special_keys() {
        let labels = labels(&of(&[("app", "a")]), "n", &of(&[("team", "red")]), "sa", "default");
        let expected = of(&[
            ("app", "a"),
            ("io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name", "n"),
            ("io.cilium.k8s.namespace.labels.team", "red"),
            ("io.cilium.k8s.policy.cluster", "default"),
            ("io.cilium.k8s.policy.serviceaccount", "sa"),
            ("io.kubernetes.pod.namespace", "n"),
        ]);
        assert_eq!(labels, expected);
    }

    #[test]
    fn a_pod_cannot_claim_a_special_key_by_a_label() {
        let claimed = of(&[
            ("io.kubernetes.pod.namespace", "kube-system"),
            ("io.cilium.k8s.namespace.labels.team", "red"),
            ("io.cilium.k8s.policy.serviceaccount", "admin"),
        ]);
        let labels = labels(&claimed, "n", &Labels::new(), "sa", "default");
        assert_eq!(labels.get("io.kubernetes.pod.namespace").map(String::as_str), Some("n"));
        assert_eq!(
            labels.get("io.cilium.k8s.policy.serviceaccount").map(String::as_str),
            Some("sa")
        );
        assert_eq!(labels.get("io.cilium.k8s.namespace.labels.team"), None);
    }
}
