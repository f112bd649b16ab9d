//! Special keys that selectors may use beside a Pod's own labels, in Cilium's spelling.

/// The Pod's namespace.
pub const NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Before each label key of the Pod's namespace.
pub const NAMESPACE_LABELS: &str = "io.cilium.k8s.namespace.labels.";
/// The label of every namespace that holds its name.
pub const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
/// The Pod's service account.
pub const SERVICE_ACCOUNT: &str = "io.cilium.k8s.policy.serviceaccount";
/// The cluster's name.
pub const CLUSTER: &str = "io.cilium.k8s.policy.cluster";
