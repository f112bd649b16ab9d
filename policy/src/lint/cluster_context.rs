//! The objects that policies are held against.

use std::borrow::Cow;
use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::inventory::Inventory;
use crate::ports::Protocol;

/// What there is beside policies. Any of it may be missing.
#[derive(Debug, Clone, Default)]
pub struct ClusterContext<'a> {
    /// Objects with labels and addresses. Pods need not have addresses yet.
    pub inventory: Cow<'a, Inventory>,
    /// Where pods get their addresses from.
    pub pod_ranges: Vec<IpNet>,
    /// The ports of each service, by its namespace and name.
    pub service_ports: BTreeMap<(String, String), Vec<ServicePortMapping>>,
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePortMapping {
    /// Its protocol.
    pub protocol: Protocol,
    /// Where the service listens.
    pub port: u16,
    /// Where its backends do.
    pub target: TargetPort,
}

/// A port of a service's backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetPort {
    /// By its number.
    Number(u16),
    /// By the name that a container gives it.
    Name(String),
}
