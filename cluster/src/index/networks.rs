//! What lies inside the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use ipnet::IpNet;
use policy::AddressZone;
use policy::address::ZoneMap;
use policy::inventory::PodIndex;

use crate::slim::SlimNode;

use super::pods::MovedAddresses;

/// The ranges of all clusters. Of thousands of pods most lie in their node's range, so a pod that
/// comes or goes seldom changes them.
#[derive(Debug, Default)]
pub(super) struct ClusterNetworks {
    /// The ranges and addresses of nodes, and how many nodes have each.
    nodes: BTreeMap<IpNet, usize>,
    /// The same of other clusters.
    others: Vec<IpNet>,
    /// Made when somebody asks.
    strays: OnceLock<Strays>,
    all: OnceLock<Arc<[IpNet]>>,
}

/// Pods outside their nodes' ranges.
#[derive(Debug)]
struct Strays {
    by_nodes: ZoneMap,
    addresses: BTreeSet<IpAddr>,
}

impl ClusterNetworks {
    /// Takes in what one node had and has.
    pub(super) fn change_node(&mut self, before: Option<&SlimNode>, now: Option<&SlimNode>) {
        let (before, now) = (before.map(node_networks), now.map(node_networks));
        if before == now {
            return;
        }
        for range in before.into_iter().flatten() {
            if let Some(count) = self.nodes.get_mut(&range) {
                *count -= 1;
                if *count == 0 {
                    self.nodes.remove(&range);
                }
            }
        }
        for range in now.into_iter().flatten() {
            *self.nodes.entry(range).or_default() += 1;
        }
        self.strays.take();
        self.all.take();
    }

    /// The nodes of other clusters have these ranges and addresses.
    pub(super) fn change_others(&mut self, others: Vec<IpNet>) {
        if others != self.others {
            self.others = others;
            self.strays.take();
            self.all.take();
        }
    }

    /// A service has other addresses.
    pub(super) fn change_services(&mut self) {
        self.all.take();
    }

    /// Takes in addresses that pods have been given or have lost.
    pub(super) fn move_pods(&mut self, moved: &MovedAddresses, pods: &PodIndex) {
        let Some(Strays { by_nodes, addresses }) = self.strays.get_mut() else {
            return;
        };
        for address in moved.iter().filter(|address| is_stray(by_nodes, **address)) {
            let has_pod = pods.at(*address).next().is_some();
            let is_change = match has_pod {
                true => addresses.insert(*address),
                false => addresses.remove(address),
            };
            if is_change {
                self.all.take();
            }
        }
    }

    /// Everything, aggregated. It is the same allocation as long as nothing changes. After a change
    /// of nodes it takes a look at each pod.
    pub(super) fn all(&self, pods: &PodIndex, services: impl Iterator<Item = IpAddr>) -> Arc<[IpNet]> {
        let all = self.all.get_or_init(|| {
            let single = self.strays(pods).chain(services).map(IpNet::from);
            let all: Vec<IpNet> = self.of_nodes().copied().chain(single).collect();
            IpNet::aggregate(&all).into()
        });
        Arc::clone(all)
    }

    /// The addresses of pods that lie in no node's range.
    pub(super) fn strays(&self, pods: &PodIndex) -> impl Iterator<Item = IpAddr> {
        let strays = self.strays.get_or_init(|| Strays::find(self.of_nodes(), pods));
        strays.addresses.iter().copied()
    }

    fn of_nodes(&self) -> impl Iterator<Item = &IpNet> {
        self.nodes.keys().chain(&self.others)
    }
}

impl Strays {
    fn find<'a>(nodes: impl Iterator<Item = &'a IpNet>, pods: &PodIndex) -> Self {
        let ranges: Vec<IpNet> = nodes.copied().collect();
        let by_nodes = ZoneMap::new([], IpNet::aggregate(&ranges));
        let addresses = pods.iter().flat_map(|pod| pod.addresses()).copied();
        Self {
            addresses: addresses.filter(|address| is_stray(&by_nodes, *address)).collect(),
            by_nodes,
        }
    }
}

fn is_stray(by_nodes: &ZoneMap, address: IpAddr) -> bool {
    by_nodes.of(address) == AddressZone::World
}

fn node_networks(node: &SlimNode) -> Vec<IpNet> {
    let addresses = node.addresses.iter().copied().map(IpNet::from);
    node.pod_ranges.iter().copied().chain(addresses).collect()
}
