//! The objects of the cluster that rules may speak of, with their addresses.
//!
//! Policies select objects by labels, and the kernel knows addresses. An [`Inventory`] turns the
//! one into the other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use ipnet::IpNet;

use crate::cidr_group::CidrGroup;
use crate::endpoint::keys;
use crate::labels::{LabelSelector, Labels};
use crate::other_clusters::OtherClusters;
use crate::peer_selector::{CidrGroupSelector, NamedPort, ObjectSelector, PeerSelector, ServiceSelector};
use crate::ports::{PortRange, PortSet};
use crate::prefix;
use crate::program::{Peer, Rule};
use crate::zone::Zone;

pub use crate::pod_addresses::PodAddresses;
pub use crate::pod_index::{ContainerPort, IdentityNumber, IndexedPod, InventoryPod, PodIdentity, PodIndex, PodNumber};
pub use crate::service_index::{InventoryService, ServiceIndex};

/// The objects of a cluster, as far as rules may select them. A clone shares them all.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// The pods of every node that have addresses of their own.
    pub pods: PodIndex,
    /// Services, and what is only known by its backends.
    pub services: ServiceIndex,
    /// The nodes of every cluster, this one included: by name, those of other clusters as
    /// `cluster/name`.
    pub nodes: OrdMap<String, Arc<InventoryNode>>,
    /// The CiliumCIDRGroups, whose prefixes rules may select.
    pub cidr_groups: Arc<[CidrGroup]>,
    /// Clusters besides the own one, where there may be some.
    pub other_clusters: Option<Arc<OtherClusters>>,
}

/// A Node, with its addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InventoryNode {
    /// The labels that `toNodes` selects it by.
    pub labels: Labels,
    /// Its own addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Whether it is the one that policies are compiled for.
    pub is_this: bool,
}

impl Inventory {
    /// The peers of a rule, CiliumCIDRGroups resolved to prefixes.
    pub(crate) fn peers(&self, peers: &PeerSelector) -> Vec<Peer> {
        match peers {
            PeerSelector::Unresolved => Vec::new(),
            PeerSelector::Names(patterns) => patterns.iter().cloned().map(Peer::Name).collect(),
            PeerSelector::Prefixes(prefixes) => prefixes
                .iter()
                .flat_map(|(zone, prefix)| self.within(*zone, *prefix))
                .collect(),
            PeerSelector::Objects(selectors) => selectors.iter().flat_map(|selector| self.resolve(selector)).collect(),
        }
    }

    fn resolve(&self, selector: &ObjectSelector) -> Vec<Peer> {
        match selector {
            ObjectSelector::Prefix(zone, prefix) => self.within(*zone, *prefix),
            ObjectSelector::CidrGroups(selector) => {
                let groups = self.cidr_groups.iter().filter(|group| selector.matches(group));
                let all = groups.flat_map(|group| &group.prefixes);
                let left = all.flat_map(|whole| prefix::without(*whole, &selector.except));
                left.map(|prefix| Peer::Prefix(Zone::World, prefix)).collect()
            }
            ObjectSelector::Pods(labels) => vec![Peer::Object(ObjectSelector::Pods(self.narrowed(labels)))],
            ObjectSelector::Nodes(labels) => vec![Peer::Object(ObjectSelector::Nodes(self.narrowed(labels)))],
            objects => vec![Peer::Object(objects.clone())],
        }
    }

    fn narrowed(&self, selector: &LabelSelector) -> LabelSelector {
        match &self.other_clusters {
            Some(others) => others.narrowed(selector).into_owned(),
            None => selector.clone(),
        }
    }

    fn within(&self, zone: Zone, prefix: IpNet) -> Vec<Peer> {
        let parts = match &self.other_clusters {
            Some(others) => others.within(zone, prefix),
            None => vec![prefix],
        };
        parts.into_iter().map(|part| Peer::Prefix(zone, part)).collect()
    }

    /// The pods of the own cluster that have an address.
    pub fn own_pods_at(&self, address: IpAddr) -> impl Iterator<Item = IndexedPod<'_>> {
        self.pods.at(address).filter(|pod| self.is_own(pod.labels()))
    }

    /// The cluster of a pod or node with these labels, where it is another than the own one.
    pub fn other_cluster<'a>(&self, labels: &'a Labels) -> Option<&'a str> {
        let cluster = labels.get(keys::CLUSTER).filter(|_| !self.is_own(labels));
        cluster.map(String::as_str)
    }

    fn is_own(&self, labels: &Labels) -> bool {
        let of_own = |others: &Arc<OtherClusters>| labels.get(keys::CLUSTER) == Some(&others.own_name);
        self.other_clusters.as_ref().is_none_or(of_own)
    }

    /// The addresses of the objects that a rule selects, with the rule's ports there. Empty for
    /// rules about prefixes and names.
    ///
    /// An object's address counts wherever it lies: a service's backend may be outside the cluster.
    pub fn members(&self, rule: &Rule) -> BTreeMap<IpAddr, PortSet> {
        let mut members: BTreeMap<IpAddr, PortSet> = BTreeMap::new();
        let mut add = |address: IpAddr, ports: &PortSet| {
            let known = members.entry(address).or_insert_with(|| PortSet::Ranges(Vec::new()));
            *known = known.union(ports);
        };
        match &rule.peer {
            Peer::Prefix(..) | Peer::Name(_) => return members,
            // Pods are inside a cluster, and never this node.
            Peer::PodsWithin(Zone::World | Zone::Host, _) => return members,
            Peer::PodsWithin(Zone::Anywhere | Zone::Cluster | Zone::Mesh, prefix) => {
                for pod in self.pods.iter() {
                    let ports = pod.identity().named(&rule.named);
                    let within = pod.addresses().iter().filter(|address| prefix.contains(*address));
                    within.for_each(|address| add(*address, &ports));
                }
            }
            Peer::Object(ObjectSelector::Pods(selector)) => {
                for pod in self.pods.selected(selector) {
                    let ports = rule.ports.union(&pod.identity().named(&rule.named));
                    pod.addresses().iter().for_each(|address| add(*address, &ports));
                }
            }
            Peer::Object(selector) => {
                let addresses = self.addresses(selector);
                for address in addresses {
                    add(address, &rule.ports);
                    if !rule.named.is_empty() {
                        let pods = self.pods.at(address);
                        pods.for_each(|pod| add(address, &pod.identity().named(&rule.named)));
                    }
                }
            }
        }
        members.retain(|_, ports| !ports.is_empty());
        members
    }

    /// As [`members`](Self::members), of one address: the ports that the rule means there. Empty
    /// where no object with the address is selected.
    pub fn ports_at(&self, rule: &Rule, address: IpAddr) -> PortSet {
        let none = PortSet::Ranges(Vec::new());
        let of_pods = |selects: &dyn Fn(&PodIdentity) -> Option<PortSet>| {
            let ports = self.pods.at(address).filter_map(|pod| selects(pod.identity()));
            ports.fold(none.clone(), |all, ports| all.union(&ports))
        };
        match &rule.peer {
            Peer::Prefix(..) | Peer::Name(_) | Peer::PodsWithin(Zone::World | Zone::Host, _) => none,
            Peer::PodsWithin(Zone::Anywhere | Zone::Cluster | Zone::Mesh, prefix) if !prefix.contains(&address) => none,
            Peer::PodsWithin(Zone::Anywhere | Zone::Cluster | Zone::Mesh, _) => {
                of_pods(&|pod| Some(pod.named(&rule.named)))
            }
            Peer::Object(ObjectSelector::Pods(selector)) => of_pods(&|pod| {
                let is_selected = selector.matches(&pod.labels);
                is_selected.then(|| rule.ports.union(&pod.named(&rule.named)))
            }),
            Peer::Object(selector) if self.addresses(selector).contains(&address) => {
                rule.ports.union(&of_pods(&|pod| Some(pod.named(&rule.named))))
            }
            Peer::Object(_) => none,
        }
    }

    /// The addresses of the objects that a selector selects.
    pub fn addresses(&self, selector: &ObjectSelector) -> BTreeSet<IpAddr> {
        match selector {
            ObjectSelector::Pods(selector) => {
                let pods = self.pods.selected(selector);
                pods.flat_map(|pod| pod.addresses()).copied().collect()
            }
            ObjectSelector::Services(selector) => {
                let services = self.services.selected(selector);
                services.flat_map(|service| self.backends(service)).collect()
            }
            ObjectSelector::Nodes(labels) => {
                let nodes = self.nodes.values().filter(|node| labels.matches(&node.labels));
                nodes.flat_map(|node| &node.addresses).copied().collect()
            }
            ObjectSelector::RemoteNodes => {
                let nodes = self.nodes.values().filter(|node| !node.is_this);
                nodes.flat_map(|node| &node.addresses).copied().collect()
            }
            ObjectSelector::ApiServer => {
                let service = self.services.api_server().into_iter();
                let addresses = service.flat_map(|service| self.backends(service).chain(service.addresses.clone()));
                addresses.collect()
            }
            // Compiled to prefixes.
            ObjectSelector::CidrGroups(_) | ObjectSelector::Prefix(..) => BTreeSet::new(),
        }
    }

    /// The addresses in its EndpointSlices and of the pods that it selects: either may be known
    /// before the other.
    fn backends<'a>(&'a self, service: &'a InventoryService) -> impl Iterator<Item = IpAddr> + 'a {
        let identities = self.pods.identities_of(&service.namespace);
        let selected = identities.filter(|(_, identity)| service.selects(identity) && self.is_own(&identity.labels));
        let pods = selected.flat_map(|(number, _)| self.pods.of_identity(number));
        let of_pods = pods.flat_map(|pod| pod.addresses()).copied();
        service.backends.iter().copied().chain(of_pods)
    }
}

impl PodIdentity {
    /// The numbers of these ports.
    pub(crate) fn named(&self, ports: &[NamedPort]) -> PortSet {
        named_ports(&self.ports, ports)
    }
}

/// The numbers that containers give these ports.
pub(crate) fn named_ports(known: &[ContainerPort], wanted: &[NamedPort]) -> PortSet {
    let is_wanted = |known: &&ContainerPort| {
        wanted
            .iter()
            .any(|port| port.name == known.name && port.protocols.contains(&known.protocol))
    };
    let known = known.iter().filter(is_wanted);
    PortSet::from_ranges(known.map(|known| PortRange::single(known.protocol, known.port)))
}

impl CidrGroupSelector {
    pub(crate) fn matches(&self, group: &CidrGroup) -> bool {
        self.name.as_ref().is_none_or(|wanted| *wanted == group.name) && self.labels.matches(&group.labels)
    }
}

impl ServiceSelector {
    pub(crate) fn matches(&self, service: &InventoryService) -> bool {
        self.namespace
            .as_ref()
            .is_none_or(|wanted| *wanted == service.namespace)
            && self.name.as_ref().is_none_or(|wanted| *wanted == service.name)
            && self.labels.matches(&service.labels)
    }
}

#[cfg(test)]
mod tests;
