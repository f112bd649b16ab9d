//! Which object a policy is.

use std::fmt;

use serde::Serialize;

/// The kinds of policy objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum PolicyKind {
    /// `cilium.io/v2` CiliumNetworkPolicy.
    CiliumNetworkPolicy,
    /// `cilium.io/v2` CiliumClusterwideNetworkPolicy.
    CiliumClusterwideNetworkPolicy,
    /// `networking.k8s.io/v1` NetworkPolicy.
    NetworkPolicy,
    /// `policy.networking.k8s.io/v1beta1` (and `v1alpha2`) ClusterNetworkPolicy.
    ClusterNetworkPolicy,
}

impl PolicyKind {
    /// All of them, in the order in which people meet them.
    pub const ALL: [PolicyKind; 4] = [
        PolicyKind::CiliumNetworkPolicy,
        PolicyKind::CiliumClusterwideNetworkPolicy,
        PolicyKind::NetworkPolicy,
        PolicyKind::ClusterNetworkPolicy,
    ];

    /// The kind as objects write it.
    pub fn as_str(self) -> &'static str {
        match self {
            PolicyKind::CiliumNetworkPolicy => "CiliumNetworkPolicy",
            PolicyKind::CiliumClusterwideNetworkPolicy => "CiliumClusterwideNetworkPolicy",
            PolicyKind::NetworkPolicy => "NetworkPolicy",
            PolicyKind::ClusterNetworkPolicy => "ClusterNetworkPolicy",
        }
    }

    /// The `apiVersion` to write.
    pub fn api_version(self) -> &'static str {
        match self {
            PolicyKind::CiliumNetworkPolicy | PolicyKind::CiliumClusterwideNetworkPolicy => "cilium.io/v2",
            PolicyKind::NetworkPolicy => "networking.k8s.io/v1",
            PolicyKind::ClusterNetworkPolicy => "policy.networking.k8s.io/v1beta1",
        }
    }

    /// Whether an object of this `apiVersion` is understood, which may be an older one with the
    /// same fields.
    pub fn is_understood(self, api_version: &str) -> bool {
        let is_older = self == PolicyKind::ClusterNetworkPolicy && api_version == "policy.networking.k8s.io/v1alpha2";
        is_older || api_version == self.api_version()
    }

    /// Whether its objects live in a namespace.
    pub fn is_namespaced(self) -> bool {
        matches!(self, PolicyKind::CiliumNetworkPolicy | PolicyKind::NetworkPolicy)
    }
}

/// Which object a policy is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct PolicyId {
    /// The object's kind.
    pub kind: PolicyKind,
    /// Its namespace; empty for a clusterwide one.
    pub namespace: String,
    /// The name of the object.
    pub name: String,
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}
