//! Other clusters: their pods and nodes are peers, and an address is of one cluster alone.
//!
//! What stands in whose way is found by [`Cluster::settle`], once for all changes of an update:
//! node objects come by the thousand when a list is read.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use ipnet::IpNet;
use policy::endpoint::keys;
use policy::{Diagnostic, OtherClusters, Severity};

use crate::object::{Object, ObjectChange, ObjectKey};
use crate::report::{ReadReport, ReportState};
use crate::slim::{SlimNode, SlimPod};

use super::claims::{self, Claim, ContestedClaims, ForeignAddresses};
use super::known_cluster::OtherCluster;
use super::pods::MovedAddresses;
use super::services::SharedName;
use super::{Cluster, put_node};

/// So many findings about a cluster are told; the rest are counted.
const TOLD: usize = 5;

/// The other clusters, by name.
#[derive(Debug, Default)]
pub(super) struct OtherClusterIndex {
    clusters: BTreeMap<Arc<str>, OtherCluster>,
    /// Addresses that pods of several clusters have, with the names of these.
    duplicates: BTreeMap<IpAddr, BTreeSet<Arc<str>>>,
    /// Addresses that pods have been given or have lost since all was settled.
    moved: BTreeSet<IpAddr>,
    /// ServiceImports whose exporters may have other backends since.
    exports: BTreeSet<SharedName>,
    /// Whether a node has come, gone or changed since.
    claims_changed: bool,
    /// Made when somebody asks.
    known: OnceLock<Arc<OtherClusters>>,
}

/// Who has an address that several clusters may have.
#[derive(Debug)]
struct AddressHolders {
    /// The names of the clusters.
    holders: BTreeSet<Arc<str>>,
    /// The pods of other clusters, each with its cluster's name.
    pods: Vec<(Arc<str>, Arc<SlimPod>)>,
}

/// Another cluster, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherClusterFigures {
    /// Its name.
    pub name: Arc<str>,
    /// Pods that are known of it.
    pub pods: usize,
    /// Nodes that are known of it.
    pub nodes: usize,
    /// What of it cannot be told from what another cluster has, one line each.
    pub contested: Vec<String>,
}

impl OtherClusterIndex {
    pub(super) fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let names = names.into_iter().map(Arc::<str>::from);
        Self {
            clusters: names.map(|name| (Arc::clone(&name), OtherCluster::new(name))).collect(),
            ..Self::default()
        }
    }

    /// Pods of the own cluster have been given these addresses, or have lost them.
    pub(super) fn note_moved(&mut self, moved: &MovedAddresses) {
        if !self.clusters.is_empty() {
            self.moved.extend(moved);
        }
    }

    /// A ServiceImport, or what may be behind it in another cluster, has changed.
    pub(super) fn note_import(&mut self, namespace: &str, name: &str) {
        if !self.clusters.is_empty() {
            self.exports.insert((namespace.into(), name.into()));
        }
    }

    /// A node of the own cluster has changed.
    pub(super) fn note_claims(&mut self) {
        self.claims_changed |= !self.clusters.is_empty();
    }
}

impl Cluster {
    /// Applies a change of another cluster. Its policies and CIDR groups are not ours to apply.
    /// [`settle`](Self::settle) is called after the last one.
    pub fn apply_of(&mut self, cluster: &str, change: ObjectChange) {
        let index = &mut self.others;
        let Some(other) = index.clusters.get_mut(cluster) else {
            return;
        };
        let pods = &mut self.inventory.pods;
        let mut moved = MovedAddresses::new();
        match change {
            ObjectChange::Apply(Object::Pod(pod)) => {
                let OtherCluster { known, foreign, .. } = other;
                let duplicates = &index.duplicates;
                let is_withheld = |address: &IpAddr| foreign.contain(*address) || duplicates.contains_key(address);
                moved = known.apply_pod(pod, pods, is_withheld);
            }
            ObjectChange::Delete(ObjectKey::Pod(namespace, name)) => {
                moved = other.known.pods.delete(&namespace, &name, pods);
            }
            ObjectChange::Apply(Object::Namespace(namespace)) => {
                let name = Arc::clone(&namespace.name);
                other.known.change_namespace(&name, Some(namespace), pods);
            }
            ObjectChange::Delete(ObjectKey::Namespace(name)) => other.known.change_namespace(&name, None, pods),
            ObjectChange::Apply(Object::Node(node)) => {
                put_node(
                    &mut self.inventory,
                    other.node_key(&node.name),
                    Some(other.inventory_node(&node)),
                );
                other.known.nodes.insert(Arc::clone(&node.name), node);
                index.claims_changed = true;
            }
            ObjectChange::Delete(ObjectKey::Node(name)) => {
                put_node(&mut self.inventory, other.node_key(&name), None);
                other.known.nodes.remove(name.as_str());
                index.claims_changed = true;
            }
            ObjectChange::Apply(Object::Service(service)) => {
                index
                    .exports
                    .insert((Arc::clone(&service.namespace), Arc::clone(&service.name)));
                other.known.services.apply(service, &mut other.services);
            }
            ObjectChange::Delete(ObjectKey::Service(namespace, name)) => {
                index.exports.insert((namespace.as_str().into(), name.as_str().into()));
                other.known.services.delete(&namespace, &name, &mut other.services);
            }
            ObjectChange::Apply(Object::EndpointSlice(slice)) => {
                index
                    .exports
                    .extend(other.known.services.services_of(&slice.namespace, &slice.name));
                let service = slice.service.as_ref();
                index
                    .exports
                    .extend(service.map(|service| (Arc::clone(&slice.namespace), Arc::clone(service))));
                other.known.services.apply_slice(slice, &mut other.services);
            }
            ObjectChange::Delete(ObjectKey::EndpointSlice(namespace, name)) => {
                index
                    .exports
                    .extend(other.known.services.services_of(&namespace, &name));
                other
                    .known
                    .services
                    .delete_slice(&namespace, &name, &mut other.services);
            }
            ObjectChange::Apply(Object::ServiceImport(_) | Object::CidrGroup(_) | Object::Policy(_))
            | ObjectChange::Delete(ObjectKey::ServiceImport(..) | ObjectKey::CidrGroup(_) | ObjectKey::Policy(_)) => {}
        }
        self.networks.move_pods(&moved, &self.inventory.pods);
        index.moved.extend(moved);
    }

    /// Finds out which addresses are of one cluster alone, after changes. Nobody else's pods and
    /// nodes are peers at the others.
    pub fn settle(&mut self) {
        if std::mem::take(&mut self.others.claims_changed) {
            self.settle_claims();
            // Some of their backends may have become others' too, or may not be any more.
            self.others.exports.extend(self.own.services.imports().cloned());
        }
        for key in std::mem::take(&mut self.others.exports) {
            self.settle_import(key);
        }
        // Who is placed anew has moved too.
        while !self.others.moved.is_empty() {
            let moved = std::mem::take(&mut self.others.moved);
            self.settle_addresses(moved);
        }
        // Who it was is known by its pointer.
        let before = self.others.known.take();
        if let Some(now) = self.other_clusters().zip(before).filter(|(now, before)| now == before) {
            self.others.known = OnceLock::from(now.1);
        }
    }

    /// Finds the backends that the exporters of a ServiceImport have for it.
    fn settle_import(&mut self, key: SharedName) {
        let Some(import) = self.own.services.import(&key) else {
            return;
        };
        let exporters = import
            .exporters
            .iter()
            .filter_map(|name| self.others.clusters.get(name));
        let (namespace, name) = (&*key.0, &*key.1);
        let backends = exporters.filter_map(|other| Some((other, other.services.get(namespace, name)?)));
        let own = backends.flat_map(|(other, service)| {
            let backends = service.backends.iter().copied();
            backends.filter(|address| !other.foreign.contain(*address))
        });
        let backends = own.collect();
        let services = &mut self.inventory.services;
        self.own.services.export(key, backends, services);
    }

    fn settle_claims(&mut self) {
        let others = self.others.clusters.values();
        let claims: Vec<Claim> = self
            .own
            .claims()
            .chain(others.flat_map(|other| other.known.claims()))
            .collect();
        let mut contested = claims::contested(claims.clone());
        let names: Vec<Arc<str>> = self.others.clusters.keys().cloned().collect();
        for name in names {
            let contested = contested.remove(&name).unwrap_or_default();
            let others = claims.iter().filter(|claim| claim.cluster != name);
            let foreign: Vec<IpNet> = others
                .map(|claim| claim.range)
                .chain(contested.keys().copied())
                .collect();
            self.confine(&name, contested, ForeignAddresses::new(&foreign));
        }
        let others = self.others.clusters.values();
        let others: Vec<IpNet> = others.flat_map(OtherCluster::uncontested).collect();
        self.networks.change_others(IpNet::aggregate(&others));
    }

    /// Puts the pods and nodes of a cluster where they may be. Where that is as before, nothing
    /// moves; otherwise it takes a look at each.
    fn confine(&mut self, name: &Arc<str>, contested: ContestedClaims, foreign: ForeignAddresses) {
        let Some(other) = self.others.clusters.get_mut(name) else {
            return;
        };
        other.contested = contested;
        if other.foreign == foreign {
            return;
        }
        other.foreign = foreign;
        self.others.moved.extend(self.others.duplicates.keys());
        for node in other.known.nodes.values() {
            put_node(
                &mut self.inventory,
                other.node_key(&node.name),
                Some(other.inventory_node(node)),
            );
        }
        let pods = other.known.pods.all();
        self.place(name, pods);
    }

    /// Puts pods of another cluster into the index, or withholds them, as it is settled now.
    fn place(&mut self, name: &Arc<str>, pods: Vec<Arc<SlimPod>>) {
        let Some(OtherCluster { known, foreign, .. }) = self.others.clusters.get_mut(name) else {
            return;
        };
        let duplicates = &self.others.duplicates;
        let mut moved = MovedAddresses::new();
        for pod in pods {
            let is_withheld = |address: &IpAddr| foreign.contain(*address) || duplicates.contains_key(address);
            moved.extend(known.apply_pod(pod, &mut self.inventory.pods, is_withheld));
        }
        self.networks.move_pods(&moved, &self.inventory.pods);
        self.others.moved.extend(moved);
    }

    /// Finds out whether pods of several clusters have one of these addresses. Only where some may,
    /// it takes a look at each pod of other clusters, and at each once.
    fn settle_addresses(&mut self, addresses: BTreeSet<IpAddr>) {
        let indexed = |address: &IpAddr| -> BTreeSet<Arc<str>> {
            let indexed = self.inventory.pods.at(*address);
            let named = indexed.filter_map(|pod| pod.labels().get(keys::CLUSTER));
            named.map(|name| Arc::from(name.as_str())).collect()
        };
        let mut doubtful: BTreeMap<IpAddr, AddressHolders> = BTreeMap::new();
        for address in addresses {
            let holders = indexed(&address);
            if holders.len() > 1 || self.others.duplicates.contains_key(&address) {
                let pods = Vec::new();
                doubtful.insert(address, AddressHolders { holders, pods });
            }
        }
        if doubtful.is_empty() {
            return;
        }
        for (name, other) in &self.others.clusters {
            for pod in other.known.pods.all() {
                for address in pod.addresses.as_slice() {
                    // Where a cluster may not have pods, it stands in nobody's way.
                    let doubtful = doubtful.get_mut(address).filter(|_| !other.foreign.contain(*address));
                    if let Some(doubtful) = doubtful {
                        doubtful.holders.insert(Arc::clone(name));
                        doubtful.pods.push((Arc::clone(name), Arc::clone(&pod)));
                    }
                }
            }
        }
        let mut to_place: BTreeMap<Arc<str>, Vec<Arc<SlimPod>>> = BTreeMap::new();
        for (address, AddressHolders { holders, pods }) in doubtful {
            let before = match holders.len() {
                0 | 1 => self.others.duplicates.remove(&address),
                _ => self.others.duplicates.insert(address, holders.clone()),
            };
            // Where it is held as before, all of them are placed.
            if before.is_none_or(|before| before != holders) {
                for (name, pod) in pods {
                    to_place.entry(name).or_default().push(pod);
                }
            }
        }
        for (name, pods) in to_place {
            self.place(&name, pods);
        }
    }

    /// What rules have to know of other clusters, where there are some.
    pub(super) fn other_clusters(&self) -> Option<Arc<OtherClusters>> {
        let OtherClusterIndex { clusters, known, .. } = &self.others;
        (!clusters.is_empty()).then(|| {
            let known = known.get_or_init(|| {
                let pods = &self.inventory.pods;
                let is_others = |address: &IpAddr| {
                    let mut there = pods.at(*address);
                    there.any(|pod| {
                        pod.labels()
                            .get(keys::CLUSTER)
                            .is_some_and(|name| **name != *self.own.name)
                    })
                };
                let strays = self.networks.strays(pods).filter(is_others).map(IpNet::from);
                let ranges = clusters.values().flat_map(OtherCluster::pod_ranges).chain(strays);
                Arc::new(OtherClusters {
                    own_name: self.own.name.to_string(),
                    ranges: IpNet::aggregate(&ranges.collect::<Vec<_>>()),
                })
            });
            Arc::clone(known)
        })
    }

    /// The other clusters, for people.
    pub fn others(&self) -> Vec<OtherClusterFigures> {
        let clusters = self.others.clusters.values();
        let figures = clusters.map(|other| OtherClusterFigures {
            name: Arc::clone(&other.known.name),
            pods: other.known.pods.len(),
            nodes: other.known.nodes.len(),
            contested: self.contested(other),
        });
        figures.collect()
    }

    /// What of another cluster cannot be told from what somebody else has.
    fn contested(&self, other: &OtherCluster) -> Vec<String> {
        let name = &other.known.name;
        let claims = other.contested.iter().map(|(range, by)| {
            let node = other.known.nodes.values().find(|node| claims_it(node, range));
            let node = node.map_or_else(String::new, |node| format!(" of its Node {}", node.name));
            format!(
                "{range}{node} overlaps {} of the cluster {}: packets from there cannot be told apart, so its pods and nodes \
                 there are no peers",
                by.range, by.cluster
            )
        });
        let duplicates = self
            .others
            .duplicates
            .iter()
            .filter(|(_, holders)| holders.contains(name));
        let duplicates = duplicates.map(|(address, holders)| {
            let others: Vec<&str> = holders.iter().filter(|it| *it != name).map(|it| &**it).collect();
            format!(
                "{address} is the address of a pod of the cluster {} too: its own pod there is no peer",
                others.join(" and of ")
            )
        });
        claims.chain(duplicates).collect()
    }

    /// What is to be said of other clusters.
    pub fn report_others(&self, reports: &mut Vec<ReadReport>) {
        for other in self.others() {
            let found = other.contested.len();
            if found == 0 {
                continue;
            }
            let more = (found > TOLD).then(|| format!("and {} more like these", found - TOLD));
            let reasons = other.contested.into_iter().take(TOLD).chain(more);
            let findings = reasons.map(|reason| Diagnostic {
                severity: Severity::Unenforced,
                code: "contested-cluster",
                path: String::new(),
                position: None,
                reason,
                suggestion: Some("give each cluster pod ranges and node addresses of its own".to_owned()),
            });
            let object = format!("cluster {}", other.name);
            reports.push(ReadReport::new(None, object, ReportState::Partial, findings.collect()));
        }
    }
}

fn claims_it(node: &SlimNode, range: &IpNet) -> bool {
    let mut ranges = node.pod_ranges.iter().map(IpNet::trunc);
    ranges.any(|it| it == *range) || node.addresses.iter().any(|address| IpNet::from(*address) == *range)
}

#[cfg(test)]
mod tests;
