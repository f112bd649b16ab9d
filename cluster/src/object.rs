//! The objects that Namegate acts on, and what happens to them.

use std::fmt;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use policy::{CidrGroup, Policy, PolicyId};

use crate::report::ReadReport;

/// An object that Namegate acts on.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// A workload.
    Pod(Box<Pod>),
    /// Its labels are part of its pods' labels.
    Namespace(Box<Namespace>),
    /// Its addresses and pod ranges belong to the cluster.
    Node(Box<Node>),
    /// Its addresses belong to the cluster; a DNS Service is a trusted resolver.
    Service(Box<Service>),
    /// Backends of a Service.
    EndpointSlice(Box<EndpointSlice>),
    /// Prefixes that policies refer to.
    CidrGroup(Box<CidrGroup>),
    /// A validated policy.
    Policy(Box<Policy>),
}

/// The identity of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKey {
    /// Namespace and name of a Pod.
    Pod(String, String),
    /// Name of a Namespace.
    Namespace(String),
    /// Name of a Node.
    Node(String),
    /// Namespace and name of a Service.
    Service(String, String),
    /// Namespace and name of an EndpointSlice.
    EndpointSlice(String, String),
    /// Name of a CiliumCIDRGroup.
    CidrGroup(String),
    /// A policy.
    Policy(PolicyId),
}

impl ObjectKey {
    /// The kind, as objects write it.
    pub fn kind(&self) -> &'static str {
        match self {
            ObjectKey::Pod(..) => "Pod",
            ObjectKey::Namespace(_) => "Namespace",
            ObjectKey::Node(_) => "Node",
            ObjectKey::Service(..) => "Service",
            ObjectKey::EndpointSlice(..) => "EndpointSlice",
            ObjectKey::CidrGroup(_) => "CiliumCIDRGroup",
            ObjectKey::Policy(id) => id.kind.as_str(),
        }
    }
}

/// `kind namespace/name`, or `kind name` for what has no namespace.
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        match self {
            ObjectKey::Pod(namespace, name)
            | ObjectKey::Service(namespace, name)
            | ObjectKey::EndpointSlice(namespace, name) => {
                write!(f, "{kind} {namespace}/{name}")
            }
            ObjectKey::Namespace(name) | ObjectKey::Node(name) | ObjectKey::CidrGroup(name) => {
                write!(f, "{kind} {name}")
            }
            ObjectKey::Policy(id) => write!(f, "{kind} {id}"),
        }
    }
}

/// One thing that happened to the objects.
#[derive(Debug, Clone, PartialEq)]
pub enum ObjectChange {
    /// The object is now this.
    Apply(Object),
    /// The object is gone.
    Delete(ObjectKey),
}

/// What a source says at a time. The first update is the complete initial list: nothing is
/// enforced before it, so that half a list is never in force.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Update {
    /// In order.
    pub changes: Vec<ObjectChange>,
    /// What is to be said of every file or object, complete: it replaces the reports of the update
    /// before.
    pub reports: Vec<ReadReport>,
}
