//! Objects of Kubernetes with the fields alone that Namegate reads. An agent may know hundreds of
//! thousands of pods, so what many of them share is kept once ([`Interner`]), and the sources and
//! the index share the objects themselves.
//!
//! - `wire`: the fields as they are written; `conversion`: what they mean, and what is wrong.
//! - [`interner`]: what many objects share.
//! - `documents`: objects as JSON, for a later process.

mod conversion;
mod documents;
mod interner;
mod wire;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use policy::Protocol;
use policy::inventory::{ContainerPort, PodAddresses};
use policy::labels::Labels;
use policy::lint::TargetPort;

pub(crate) use conversion::{BadValue, SlimKind};
pub use interner::Interner;
pub use wire::WireObject;

/// The namespace of an object that needs one and names none, as `kubectl apply` without a context
/// has it.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";

/// A workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlimPod {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// What it shares with others of its kind.
    pub template: Arc<PodTemplate>,
    /// `spec.nodeName`, where it has one.
    pub node: Option<Arc<str>>,
    /// Its addresses; none of one that has ended, since they may be another pod's by now.
    pub addresses: PodAddresses,
    /// Whether it has a `metadata.deletionTimestamp`.
    pub being_deleted: bool,
}

/// What the pods of a ReplicaSet have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PodTemplate {
    /// Their namespace, never empty.
    pub namespace: Arc<str>,
    /// Their own labels.
    pub labels: Labels,
    /// Their service account; what the API server puts there, where they name none.
    pub service_account: Arc<str>,
    /// The ports that their containers name, sidecars included.
    pub ports: Box<[ContainerPort]>,
    /// Whether they are on the host's network, and share its addresses.
    pub on_host: bool,
}

/// A namespace. Its labels are part of its pods' labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlimNamespace {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// Its labels.
    pub labels: Labels,
}

/// A node. Its addresses and ranges belong to the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlimNode {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// Its labels.
    pub labels: Labels,
    /// Where its pods get their addresses from.
    pub pod_ranges: BTreeSet<IpNet>,
    /// Its own addresses.
    pub addresses: BTreeSet<IpAddr>,
}

/// A Service. Its addresses belong to the cluster; one for DNS is a trusted resolver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlimService {
    /// Its namespace, never empty.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
    /// Its labels.
    pub labels: Labels,
    /// The labels of the pods behind it, where it says them.
    pub selector: Option<Labels>,
    /// Its addresses inside the cluster; a headless one has none.
    pub addresses: BTreeSet<IpAddr>,
    /// Its addresses outside of it: `externalIPs`, and those of its load balancer.
    pub external: BTreeSet<IpAddr>,
    /// Its ports.
    pub ports: Box<[SlimServicePort]>,
    /// Whether nodes without a Pod of it forward to it what comes from outside, with their own
    /// address in the client's place (`spec.externalTrafficPolicy`).
    pub hides_clients: bool,
}

/// A Service that other clusters export to this one (MCS API, KEP-1645).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlimServiceImport {
    /// Its namespace, never empty.
    pub namespace: Arc<str>,
    /// `metadata.name`: that of the Services that are exported.
    pub name: Arc<str>,
    /// Its labels.
    pub labels: Labels,
    /// Its addresses inside this cluster; a headless one has none.
    pub addresses: BTreeSet<IpAddr>,
    /// The names of the clusters that export it.
    pub exporters: BTreeSet<Arc<str>>,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlimServicePort {
    /// Its name, where it has one.
    pub name: Option<Box<str>>,
    /// Its protocol; `None` for one that is not known here.
    pub protocol: Option<Protocol>,
    /// The port at which the Service listens.
    pub port: u16,
    /// The port at which its backends listen; `None` where that is no port.
    pub target: Option<TargetPort>,
    /// The port at which each node listens for it, where it has one.
    pub node_port: Option<u16>,
}

/// Backends of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlimEndpointSlice {
    /// Its namespace, never empty.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
    /// The name of its Service, where it says one.
    pub service: Option<Arc<str>>,
    /// The name of the ServiceImport that it is of, where it says one.
    pub import: Option<Arc<str>>,
    /// The addresses of the backends; one that holds names has none. Those that are not ready
    /// count: they are about to be, and the kernel should know first.
    pub backends: Box<[IpAddr]>,
    /// The ports at which all of them listen.
    pub ports: Box<[SlimSlicePort]>,
}

/// A port of the backends of an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlimSlicePort {
    /// The name of the Service's port that leads there, where it has one.
    pub name: Option<Box<str>>,
    /// Its protocol; `None` for one that is not known here.
    pub protocol: Option<Protocol>,
    /// Its number.
    pub port: u16,
}

impl SlimPod {
    /// Its namespace.
    pub fn namespace(&self) -> &Arc<str> {
        &self.template.namespace
    }

    /// Whether it is on a node. A pod without a node is on every one.
    pub fn is_on(&self, node: &str) -> bool {
        self.node.as_deref().is_none_or(|name| name == node)
    }
}
