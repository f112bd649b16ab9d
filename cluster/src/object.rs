//! The objects that Namegate acts on, and what happens to them.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use policy::labels::Labels;
use policy::{CidrGroup, Policy, PolicyId, PolicyKind};

use crate::report::ReadReport;
use crate::slim::{SlimEndpointSlice, SlimNamespace, SlimNode, SlimPod, SlimService, SlimServiceImport};

/// An object that Namegate acts on.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// A workload.
    Pod(Arc<SlimPod>),
    /// Its labels are part of its pods' labels.
    Namespace(Arc<SlimNamespace>),
    /// Its addresses and pod ranges belong to the cluster.
    Node(Arc<SlimNode>),
    /// Its addresses belong to the cluster; a DNS Service is a trusted resolver.
    Service(Arc<SlimService>),
    /// Backends of a Service.
    EndpointSlice(Arc<SlimEndpointSlice>),
    /// A Service that other clusters export.
    ServiceImport(Arc<SlimServiceImport>),
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
    /// Namespace and name of a ServiceImport.
    ServiceImport(String, String),
    /// Name of a CiliumCIDRGroup.
    CidrGroup(String),
    /// A policy.
    Policy(PolicyId),
}

impl Object {
    /// About how many bytes are kept of it, without what it shares with others.
    pub(crate) fn kept_bytes(&self) -> usize {
        let of_labels = |labels: &Labels| labels.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        let addresses = |count: usize| count * size_of::<IpAddr>();
        self.name().name.len()
            + match self {
                Object::Pod(pod) => size_of::<SlimPod>() + addresses(pod.addresses.as_slice().len().saturating_sub(1)),
                Object::Namespace(namespace) => size_of::<SlimNamespace>() + of_labels(&namespace.labels),
                Object::Node(node) => size_of::<SlimNode>() + of_labels(&node.labels) + addresses(node.addresses.len()),
                Object::Service(service) => {
                    let labels = of_labels(&service.labels) + service.selector.as_ref().map_or(0, of_labels);
                    size_of::<SlimService>() + labels + addresses(service.addresses.len())
                }
                Object::EndpointSlice(slice) => size_of::<SlimEndpointSlice>() + addresses(slice.backends.len()),
                Object::ServiceImport(import) => {
                    size_of::<SlimServiceImport>() + of_labels(&import.labels) + addresses(import.addresses.len())
                }
                Object::CidrGroup(group) => size_of::<CidrGroup>() + size_of_val(group.prefixes.as_slice()),
                Object::Policy(_) => size_of::<Policy>(),
            }
    }

    /// Which object it is.
    pub fn key(&self) -> ObjectKey {
        self.name().to_key()
    }
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
            ObjectKey::ServiceImport(..) => "ServiceImport",
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
            | ObjectKey::EndpointSlice(namespace, name)
            | ObjectKey::ServiceImport(namespace, name) => {
                write!(f, "{kind} {namespace}/{name}")
            }
            ObjectKey::Namespace(name) | ObjectKey::Node(name) | ObjectKey::CidrGroup(name) => {
                write!(f, "{kind} {name}")
            }
            ObjectKey::Policy(id) => write!(f, "{kind} {id}"),
        }
    }
}

/// What names an object, for a search: its kind, its namespace, and its name. Ordered as
/// [`ObjectKey`]s are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ObjectName<'a> {
    pub(crate) kind: ObjectKind,
    /// Empty for a kind without namespaces.
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
}

/// A kind of objects that Namegate acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ObjectKind {
    Pod,
    Namespace,
    Node,
    Service,
    EndpointSlice,
    ServiceImport,
    CidrGroup,
    Policy(PolicyKind),
}

impl ObjectKind {
    pub(crate) fn is_policy(self) -> bool {
        matches!(self, ObjectKind::Policy(_))
    }

    /// Whether snapshots hold what its author wrote, and not the object.
    pub(crate) fn is_kept_as_document(self) -> bool {
        matches!(self, ObjectKind::Policy(_) | ObjectKind::CidrGroup)
    }
}

impl Object {
    pub(crate) fn name(&self) -> ObjectName<'_> {
        let (kind, namespace, name) = match self {
            Object::Pod(pod) => (ObjectKind::Pod, &**pod.namespace(), &*pod.name),
            Object::Namespace(namespace) => (ObjectKind::Namespace, "", &*namespace.name),
            Object::Node(node) => (ObjectKind::Node, "", &*node.name),
            Object::Service(service) => (ObjectKind::Service, &*service.namespace, &*service.name),
            Object::EndpointSlice(slice) => (ObjectKind::EndpointSlice, &*slice.namespace, &*slice.name),
            Object::ServiceImport(import) => (ObjectKind::ServiceImport, &*import.namespace, &*import.name),
            Object::CidrGroup(group) => (ObjectKind::CidrGroup, "", group.name.as_str()),
            Object::Policy(policy) => return ObjectName::of_policy(&policy.id),
        };
        ObjectName { kind, namespace, name }
    }
}

impl ObjectKey {
    pub(crate) fn name(&self) -> ObjectName<'_> {
        let (kind, namespace, name) = match self {
            ObjectKey::Pod(namespace, name) => (ObjectKind::Pod, namespace.as_str(), name),
            ObjectKey::Namespace(name) => (ObjectKind::Namespace, "", name),
            ObjectKey::Node(name) => (ObjectKind::Node, "", name),
            ObjectKey::Service(namespace, name) => (ObjectKind::Service, namespace.as_str(), name),
            ObjectKey::EndpointSlice(namespace, name) => (ObjectKind::EndpointSlice, namespace.as_str(), name),
            ObjectKey::ServiceImport(namespace, name) => (ObjectKind::ServiceImport, namespace.as_str(), name),
            ObjectKey::CidrGroup(name) => (ObjectKind::CidrGroup, "", name),
            ObjectKey::Policy(id) => return ObjectName::of_policy(id),
        };
        ObjectName { kind, namespace, name }
    }
}

impl<'a> ObjectName<'a> {
    fn of_policy(id: &'a PolicyId) -> Self {
        Self {
            kind: ObjectKind::Policy(id.kind),
            namespace: &id.namespace,
            name: &id.name,
        }
    }

    pub(crate) fn to_key(self) -> ObjectKey {
        let (namespace, name) = (self.namespace.to_owned(), self.name.to_owned());
        match self.kind {
            ObjectKind::Pod => ObjectKey::Pod(namespace, name),
            ObjectKind::Namespace => ObjectKey::Namespace(name),
            ObjectKind::Node => ObjectKey::Node(name),
            ObjectKind::Service => ObjectKey::Service(namespace, name),
            ObjectKind::EndpointSlice => ObjectKey::EndpointSlice(namespace, name),
            ObjectKind::ServiceImport => ObjectKey::ServiceImport(namespace, name),
            ObjectKind::CidrGroup => ObjectKey::CidrGroup(name),
            ObjectKind::Policy(kind) => ObjectKey::Policy(PolicyId { kind, namespace, name }),
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
    /// Those of the own cluster, in order.
    pub changes: Vec<ObjectChange>,
    /// Those of other clusters, each with the cluster's name, in order.
    pub of_others: Vec<(Arc<str>, ObjectChange)>,
    /// What is to be said of every file or object, complete: it replaces the reports of the update
    /// before. The same allocation as long as it is the same.
    pub reports: Arc<[ReadReport]>,
}
