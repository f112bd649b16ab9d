//! The objects of the cluster that rules may speak of, with their addresses.
//!
//! Policies name objects by labels; the kernel knows addresses. This is the picture that the one is turned into the other with.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::cidr_group::CidrGroup;
use crate::endpoint::keys;
use crate::labels::{LabelSelector, Labels};
use crate::policy::{CidrGroupSelector, NamedPort, ObjectSelector, Peers, ServiceSelector, Zone};
use crate::ports::{PortRange, PortSet, Protocol};
use crate::prefix;

/// What the cluster holds.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// The pods of every node that have addresses of their own.
    pub pods: Vec<InventoryPod>,
    /// Services, and what is only known by its backends.
    pub services: Vec<InventoryService>,
    /// Nodes.
    pub nodes: Vec<InventoryNode>,
    /// CiliumCIDRGroups.
    pub cidr_groups: Vec<CidrGroup>,
}

/// A pod with addresses of its own.
#[derive(Debug, Clone, Default)]
pub struct InventoryPod {
    /// Its labels and the special keys, as [`endpoint::labels`](crate::endpoint::labels) makes them.
    pub labels: Labels,
    /// Its addresses, both families.
    pub addresses: BTreeSet<IpAddr>,
    /// The ports that its containers name.
    pub ports: Vec<ContainerPort>,
}

/// A service.
#[derive(Debug, Clone, Default)]
pub struct InventoryService {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its own labels.
    pub labels: Labels,
    /// The labels of the pods behind it; `None` where its backends are written by hand.
    pub selector: Option<Labels>,
    /// The addresses of its EndpointSlices, ready or not.
    pub backends: BTreeSet<IpAddr>,
    /// Its own addresses inside the cluster.
    pub addresses: BTreeSet<IpAddr>,
}

/// A node.
#[derive(Debug, Clone, Default)]
pub struct InventoryNode {
    /// Its labels.
    pub labels: Labels,
    /// Its own addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Whether it is the one that policies are compiled for.
    pub is_this: bool,
}

/// A port that a container names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerPort {
    /// Its name.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number.
    pub port: u16,
}

impl Inventory {
    /// The prefixes of peers that are addresses or objects; none for names.
    ///
    /// An object's address is meant wherever it lies: a service's backend may be outside the cluster.
    pub(crate) fn prefixes(&self, peers: &Peers) -> Vec<(Zone, IpNet)> {
        let selectors = match peers {
            Peers::Names(_) | Peers::Unresolved => return Vec::new(),
            Peers::Prefixes(prefixes) => return prefixes.clone(),
            Peers::Objects(selectors) => selectors,
        };
        let mut hosts = BTreeSet::new();
        let mut prefixes = Vec::new();
        for selector in selectors {
            match selector {
                ObjectSelector::Pods(labels) => hosts.extend(self.pods(labels).flat_map(|pod| &pod.addresses)),
                ObjectSelector::Services(selector) => {
                    let services = self.services.iter().filter(|service| selector.matches(service));
                    hosts.extend(services.flat_map(|service| self.backends(service)));
                }
                ObjectSelector::Nodes(labels) => {
                    let nodes = self.nodes.iter().filter(|node| labels.matches(&node.labels));
                    hosts.extend(nodes.flat_map(|node| &node.addresses));
                }
                ObjectSelector::RemoteNodes => {
                    let nodes = self.nodes.iter().filter(|node| !node.is_this);
                    hosts.extend(nodes.flat_map(|node| &node.addresses));
                }
                ObjectSelector::ApiServer => {
                    let services = self.services.iter().filter(|service| service.is_api_server());
                    hosts.extend(services.flat_map(|service| self.backends(service).chain(&service.addresses)));
                }
                ObjectSelector::CidrGroups(selector) => {
                    let groups = self.cidr_groups.iter().filter(|group| selector.matches(group));
                    let all = groups.flat_map(|group| &group.prefixes);
                    let left = all.flat_map(|whole| prefix::without(*whole, &selector.except));
                    prefixes.extend(left.map(|prefix| (Zone::World, prefix)));
                }
                ObjectSelector::Prefix(zone, prefix) => prefixes.push((*zone, *prefix)),
            }
        }
        let hosts: Vec<IpNet> = hosts.into_iter().copied().map(IpNet::from).collect();
        let hosts = IpNet::aggregate(&hosts);
        prefixes.extend(hosts.into_iter().map(|prefix| (Zone::Anywhere, prefix)));
        prefixes
    }

    /// The addresses of the pods among `destinations` that name one of `ports`, each with the numbers that the pod itself gives them.
    pub(crate) fn named_ports(&self, destinations: &[(Zone, IpNet)], ports: &[NamedPort]) -> Vec<(IpNet, PortSet)> {
        // Pods are inside the cluster, and never this node.
        let reached = |address: &IpAddr| {
            destinations
                .iter()
                .any(|(zone, prefix)| matches!(zone, Zone::Anywhere | Zone::Cluster) && prefix.contains(address))
        };
        let mut opened = Vec::new();
        for pod in &self.pods {
            let set = pod.named(ports);
            if !set.is_empty() {
                let reached = pod.addresses.iter().filter(|address| reached(address));
                opened.extend(reached.map(|address| (IpNet::from(*address), set.clone())));
            }
        }
        opened
    }

    /// What stands in its EndpointSlices, and the pods that it selects: either may be known before the other.
    fn backends<'a>(&'a self, service: &'a InventoryService) -> impl Iterator<Item = &'a IpAddr> {
        let pods = self.pods.iter().filter(|pod| service.selects(pod));
        service.backends.iter().chain(pods.flat_map(|pod| &pod.addresses))
    }

    fn pods<'a>(&'a self, selector: &'a LabelSelector) -> impl Iterator<Item = &'a InventoryPod> {
        self.pods.iter().filter(|pod| selector.matches(&pod.labels))
    }
}

impl InventoryPod {
    fn named(&self, ports: &[NamedPort]) -> PortSet {
        let wanted = |known: &&ContainerPort| {
            ports
                .iter()
                .any(|port| port.name == known.name && port.protocols.contains(&known.protocol))
        };
        let known = self.ports.iter().filter(wanted);
        PortSet::from_ranges(known.map(|known| PortRange::single(known.protocol, known.port)))
    }
}

impl InventoryService {
    /// The API server writes this service, and its backends, itself.
    fn is_api_server(&self) -> bool {
        self.namespace == "default" && self.name == "kubernetes"
    }

    fn selects(&self, pod: &InventoryPod) -> bool {
        let has = |(key, value): (&String, &String)| pod.labels.get(key) == Some(value);
        pod.labels.get(keys::NAMESPACE) == Some(&self.namespace)
            && self.selector.as_ref().is_some_and(|labels| labels.iter().all(has))
    }
}

impl CidrGroupSelector {
    fn matches(&self, group: &CidrGroup) -> bool {
        self.name.as_ref().is_none_or(|wanted| *wanted == group.name) && self.labels.matches(&group.labels)
    }
}

impl ServiceSelector {
    fn matches(&self, service: &InventoryService) -> bool {
        self.namespace
            .as_ref()
            .is_none_or(|wanted| *wanted == service.namespace)
            && self.name.as_ref().is_none_or(|wanted| *wanted == service.name)
            && self.labels.matches(&service.labels)
    }
}

#[cfg(test)]
mod tests;
