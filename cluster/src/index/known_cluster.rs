//! The objects of one cluster, as far as rules may speak of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use policy::endpoint::keys;
use policy::inventory::{InventoryNode, PodIndex, ServiceIndex};
use policy::labels::Labels;

use crate::slim::{SlimNamespace, SlimNode, SlimPod};

use super::claims::{Claim, ContestedClaims, ForeignAddresses};
use super::pods::{KnownPods, MovedAddresses};
use super::services::KnownServices;

/// What is known of a cluster besides what stands in the inventory.
#[derive(Debug)]
pub(super) struct KnownCluster {
    pub(super) name: Arc<str>,
    pub(super) pods: KnownPods,
    pub(super) namespaces: BTreeMap<Arc<str>, Arc<SlimNamespace>>,
    pub(super) nodes: BTreeMap<Arc<str>, Arc<SlimNode>>,
    pub(super) services: KnownServices,
}

/// A cluster besides the own one.
#[derive(Debug)]
pub(super) struct OtherCluster {
    pub(super) known: KnownCluster,
    /// Its Services. No rule speaks of them but through the own cluster's objects.
    pub(super) services: ServiceIndex,
    /// Of what its nodes claim, what is others' too.
    pub(super) contested: ContestedClaims,
    /// Where its pods and nodes may not be.
    pub(super) foreign: ForeignAddresses,
}

impl KnownCluster {
    /// One of this name. Pods of `node` are local.
    pub(super) fn new(name: Arc<str>, node: Option<&str>) -> Self {
        Self {
            pods: KnownPods::new(Arc::clone(&name), node),
            name,
            namespaces: BTreeMap::new(),
            nodes: BTreeMap::new(),
            services: KnownServices::default(),
        }
    }

    /// The labels of a namespace.
    pub(super) fn labels_of(&self, namespace: &str) -> &Labels {
        static NONE: Labels = Labels::new();
        self.namespaces
            .get(namespace)
            .map_or(&NONE, |namespace| &namespace.labels)
    }

    /// Takes in a Pod; see [`KnownPods::apply`].
    pub(super) fn apply_pod(
        &mut self,
        pod: Arc<SlimPod>,
        index: &mut PodIndex,
        is_withheld: impl Fn(&IpAddr) -> bool,
    ) -> MovedAddresses {
        static NONE: Labels = Labels::new();
        let namespace = self.namespaces.get(&**pod.namespace());
        let of_namespace = namespace.map_or(&NONE, |namespace| &namespace.labels);
        self.pods.apply(pod, of_namespace, index, is_withheld)
    }

    /// Takes in a namespace, or that there is none of the name. Its labels are part of its pods'.
    pub(super) fn change_namespace(&mut self, name: &str, now: Option<Arc<SlimNamespace>>, index: &mut PodIndex) {
        match now {
            Some(namespace) => drop(self.namespaces.insert(Arc::clone(&namespace.name), namespace)),
            None => drop(self.namespaces.remove(name)),
        }
        static NONE: Labels = Labels::new();
        let labels = self.namespaces.get(name).map_or(&NONE, |namespace| &namespace.labels);
        self.pods.relabel(name, labels, index);
    }

    /// What its nodes claim.
    pub(super) fn claims(&self) -> impl Iterator<Item = Claim> {
        let ranges = self.nodes.values().flat_map(|node| {
            let addresses = node.addresses.iter().copied().map(IpNet::from);
            node.pod_ranges.iter().copied().chain(addresses)
        });
        ranges.map(|range| Claim {
            range: range.trunc(),
            cluster: Arc::clone(&self.name),
        })
    }

    /// A node, as rules see it.
    pub(super) fn inventory_node(&self, node: &SlimNode, is_this: bool) -> InventoryNode {
        let mut labels = node.labels.clone();
        labels.insert(keys::CLUSTER.to_owned(), self.name.to_string());
        InventoryNode {
            labels,
            addresses: node.addresses.clone(),
            is_this,
        }
    }
}

impl OtherCluster {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self {
            known: KnownCluster::new(name, None),
            services: ServiceIndex::default(),
            contested: ContestedClaims::new(),
            foreign: ForeignAddresses::default(),
        }
    }

    /// The key of one of its nodes in an inventory.
    pub(super) fn node_key(&self, node: &str) -> String {
        format!("{}/{node}", self.known.name)
    }

    /// A node, as rules see it: without addresses that are others' too.
    pub(super) fn inventory_node(&self, node: &SlimNode) -> InventoryNode {
        let mut node = self.known.inventory_node(node, false);
        node.addresses.retain(|address| !self.foreign.contain(*address));
        node
    }

    /// What its nodes claim and nobody else does.
    pub(super) fn uncontested(&self) -> impl Iterator<Item = IpNet> {
        let claims = self.known.claims().map(|claim| claim.range);
        claims.filter(|range| !self.contested.contains_key(range))
    }

    /// As [`uncontested`](Self::uncontested), of pods alone.
    pub(super) fn pod_ranges(&self) -> impl Iterator<Item = IpNet> {
        let ranges = self.known.nodes.values().flat_map(|node| &node.pod_ranges);
        ranges
            .map(IpNet::trunc)
            .filter(|range| !self.contested.contains_key(range))
    }
}
