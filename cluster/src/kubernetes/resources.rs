//! The resources that are watched: one row each.

use std::sync::Arc;

use kube::core::ApiResource;
use policy::PolicyKind;

/// A resource that is watched. Where two watches hold the same object, the first in this order
/// counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// The pods of this node.
    LocalPods,
    /// The pods of every other node; followed only while something depends on their addresses.
    OtherPods,
    /// Namespaces.
    Namespaces,
    /// Nodes.
    Nodes,
    /// Services.
    Services,
    /// EndpointSlices.
    EndpointSlices,
    /// CiliumCIDRGroups.
    CidrGroups,
    /// CiliumNetworkPolicies.
    CiliumNetworkPolicies,
    /// CiliumClusterwideNetworkPolicies.
    CiliumClusterwideNetworkPolicies,
    /// NetworkPolicies.
    NetworkPolicies,
    /// ClusterNetworkPolicies.
    ClusterNetworkPolicies,
    /// ServiceImports, which few clusters have.
    ServiceImports,
}

/// Which objects a source watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchScope {
    /// Those of the own cluster that matter to this node.
    Node(String),
    /// Those of another cluster, of this name, that may be peers. Every pod of it is one of another
    /// node.
    OtherCluster(Arc<str>),
}

impl WatchScope {
    /// The watches from the start on.
    pub fn kinds(&self) -> impl Iterator<Item = &'static ResourceKind> {
        let is_watched = |kind: &&ResourceKind| match self {
            WatchScope::Node(_) => kind.resource != Resource::OtherPods,
            WatchScope::OtherCluster(_) => matches!(
                kind.resource,
                Resource::OtherPods
                    | Resource::Namespaces
                    | Resource::Nodes
                    | Resource::Services
                    | Resource::EndpointSlices
            ),
        };
        KINDS.iter().filter(is_watched)
    }

    /// The watch that probes an API server which does not answer.
    pub(super) fn scout(&self) -> Resource {
        match self {
            WatchScope::Node(_) => Resource::LocalPods,
            WatchScope::OtherCluster(_) => Resource::Namespaces,
        }
    }
}

/// The API of a watched resource, and what is kept of its objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourceKind {
    /// The resource that this row is about.
    pub resource: Resource,
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// The version of the group that is asked for first.
    pub version: &'static str,
    /// An older one with the same fields, for API servers that lack the newer.
    pub older: Option<&'static str>,
    /// The kind, as objects write it: `Pod`.
    pub kind: &'static str,
    /// The plural, as paths write it: `pods`.
    pub plural: &'static str,
    /// How much of its objects is kept.
    pub kept: KeptFields,
}

/// How much of an object is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptFields {
    /// The few fields that [`WireObject`](crate::slim::WireObject) lists.
    Selected,
    /// Everything that its author wrote.
    All,
    /// The same, of a policy.
    Policy {
        /// Whether the kind has a status for what became of its objects.
        status: bool,
    },
}

/// Every watch. The API server may lack the kinds that are not its own: they are skipped until they
/// appear.
pub const KINDS: [ResourceKind; 12] = [
    row(Resource::LocalPods, "", "v1", "Pod", "pods", KeptFields::Selected),
    row(Resource::OtherPods, "", "v1", "Pod", "pods", KeptFields::Selected),
    row(
        Resource::Namespaces,
        "",
        "v1",
        "Namespace",
        "namespaces",
        KeptFields::Selected,
    ),
    row(Resource::Nodes, "", "v1", "Node", "nodes", KeptFields::Selected),
    row(
        Resource::Services,
        "",
        "v1",
        "Service",
        "services",
        KeptFields::Selected,
    ),
    row(
        Resource::EndpointSlices,
        "discovery.k8s.io",
        "v1",
        "EndpointSlice",
        "endpointslices",
        KeptFields::Selected,
    ),
    row(
        Resource::CidrGroups,
        "cilium.io",
        "v2",
        "CiliumCIDRGroup",
        "ciliumcidrgroups",
        KeptFields::All,
    ),
    row(
        Resource::CiliumNetworkPolicies,
        "cilium.io",
        "v2",
        "CiliumNetworkPolicy",
        "ciliumnetworkpolicies",
        KeptFields::Policy { status: true },
    ),
    row(
        Resource::CiliumClusterwideNetworkPolicies,
        "cilium.io",
        "v2",
        "CiliumClusterwideNetworkPolicy",
        "ciliumclusterwidenetworkpolicies",
        KeptFields::Policy { status: true },
    ),
    row(
        Resource::NetworkPolicies,
        "networking.k8s.io",
        "v1",
        "NetworkPolicy",
        "networkpolicies",
        KeptFields::Policy { status: false },
    ),
    row(
        Resource::ClusterNetworkPolicies,
        "policy.networking.k8s.io",
        "v1beta1",
        "ClusterNetworkPolicy",
        "clusternetworkpolicies",
        KeptFields::Policy { status: true },
    )
    .or_older("v1alpha2"),
    row(
        Resource::ServiceImports,
        "multicluster.x-k8s.io",
        "v1beta1",
        "ServiceImport",
        "serviceimports",
        KeptFields::Selected,
    )
    .or_older("v1alpha1"),
];

const fn row(
    resource: Resource,
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    kept: KeptFields,
) -> ResourceKind {
    ResourceKind {
        resource,
        group,
        version,
        older: None,
        kind,
        plural,
        kept,
    }
}

impl ResourceKind {
    const fn or_older(self, version: &'static str) -> Self {
        Self {
            older: Some(version),
            ..self
        }
    }

    /// The row of a resource.
    pub fn of(resource: Resource) -> &'static ResourceKind {
        // Every resource has a row (a test says so), in the order of the enum.
        &KINDS[resource as usize]
    }

    /// The kind of an object with this `apiVersion` and `kind`.
    pub fn named(api_version: &str, kind: &str) -> Option<&'static ResourceKind> {
        KINDS
            .iter()
            .find(|it| it.kind == kind && it.versions().any(|version| it.api_version_of(version) == api_version))
    }

    /// `apiVersion`, as objects write it.
    pub fn api_version(&self) -> String {
        self.api_version_of(self.version)
    }

    /// The versions that an API server may have, in the order in which it is asked for them.
    pub fn versions(&self) -> impl Iterator<Item = &'static str> {
        [self.version].into_iter().chain(self.older)
    }

    /// What a client needs to ask for one of the [`versions`](Self::versions).
    pub fn api_resource(&self, version: &str) -> ApiResource {
        ApiResource {
            group: self.group.into(),
            version: version.into(),
            api_version: self.api_version_of(version),
            kind: self.kind.into(),
            plural: self.plural.into(),
        }
    }

    fn api_version_of(&self, version: &str) -> String {
        match self.group {
            "" => version.into(),
            group => format!("{group}/{version}"),
        }
    }

    /// The field selector of the watch.
    pub fn selector(&self, scope: &WatchScope) -> Option<String> {
        // Pods that have ended have no addresses any more, those of no node none yet.
        const WITH_ADDRESS: &str = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed";
        match (self.resource, scope) {
            (Resource::LocalPods, WatchScope::Node(node)) => Some(format!("spec.nodeName={node}")),
            (Resource::OtherPods, WatchScope::Node(node)) => Some(format!("spec.nodeName!={node},{WITH_ADDRESS}")),
            (Resource::OtherPods, WatchScope::OtherCluster(_)) => Some(WITH_ADDRESS.to_owned()),
            _ => None,
        }
    }

    /// Whether nothing is missing where the API server does not have it.
    pub fn is_optional(&self) -> bool {
        self.resource == Resource::ServiceImports
    }

    /// Whether its objects are policies.
    pub fn is_policy(&self) -> bool {
        matches!(self.kept, KeptFields::Policy { .. })
    }

    /// Which kind of policy its objects are.
    pub fn policy(&self) -> Option<PolicyKind> {
        let kinds = PolicyKind::ALL.into_iter();
        kinds
            .filter(|_| self.is_policy())
            .find(|kind| kind.as_str() == self.kind)
    }

    /// Whether what became of its objects is written into them.
    pub fn has_status(&self) -> bool {
        self.kept == KeptFields::Policy { status: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feed_has_its_row() {
        for kind in &KINDS {
            assert_eq!(ResourceKind::of(kind.resource), kind);
        }
    }

    #[test]
    fn a_pod_of_this_node_is_in_one_feed_only() {
        let scope = WatchScope::Node("node-1".to_owned());
        let selector = |resource| ResourceKind::of(resource).selector(&scope).unwrap();
        assert_eq!(selector(Resource::LocalPods), "spec.nodeName=node-1");
        assert!(selector(Resource::OtherPods).starts_with("spec.nodeName!=node-1,"));
    }

    #[test]
    fn of_another_cluster_every_pod_and_no_policy_is_watched() {
        let scope = WatchScope::OtherCluster("west".into());
        let plurals: Vec<&str> = scope.kinds().map(|kind| kind.plural).collect();
        assert_eq!(plurals, ["pods", "namespaces", "nodes", "services", "endpointslices"]);
        let pods = ResourceKind::of(Resource::OtherPods).selector(&scope).unwrap();
        assert!(pods.starts_with("spec.nodeName!=,"), "{pods}");
    }
}
