//! The objects that policies are compared with.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::inventory::Inventory;
use crate::ports::Protocol;

/// The objects of a cluster that lints look at. Any of them may be missing.
#[derive(Debug, Clone, Default)]
pub struct ClusterContext<'a> {
    /// Pods, Services, Nodes and CiliumCIDRGroups. Pods need not have addresses yet.
    pub inventory: Cow<'a, Inventory>,
    /// The ranges that Pods get their addresses from.
    pub pod_ranges: Vec<IpNet>,
    /// The ports of each Service, by its namespace and name.
    pub service_ports: BTreeMap<(String, String), Vec<ServicePortMapping>>,
    /// The Services, by namespace and name, to which every node forwards what comes to it from
    /// outside: a Pod of theirs sees another node as the source (NodePort and LoadBalancer without
    /// `externalTrafficPolicy: Local`).
    pub masquerading: BTreeSet<(String, String)>,
}

/// A port of a Service, and the port of its backends that it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePortMapping {
    /// The protocol of both ports.
    pub protocol: Protocol,
    /// The port at which the Service listens.
    pub port: u16,
    /// The port at which its backends listen.
    pub target: TargetPort,
}

/// How a Service names the port of its backends (`targetPort`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetPort {
    /// By its number.
    Number(u16),
    /// By the name that a container gives it.
    Name(String),
}
