//! Endpoints: workloads with addresses, the things that policies select.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

use crate::labels::Labels;

/// The name of an endpoint: the namespace and name of its Pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct EndpointId {
    /// The Pod's namespace.
    pub namespace: String,
    /// The Pod's name.
    pub name: String,
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A workload with addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Whose it is.
    pub id: EndpointId,
    /// Pod labels and the special keys of semantics.md (namespace, namespace labels, service account, cluster).
    pub labels: Labels,
    /// Its addresses, both families.
    pub addresses: BTreeSet<IpAddr>,
}
