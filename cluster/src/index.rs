//! The objects, indexed: one synchronous view that every source's changes are applied to.
//!
//! A change costs what it concerns. What plans are made of is shared with them: as long as nothing
//! of it changes, it is told by its pointer.
//!
//! - `known_cluster`: the objects of a cluster, the own one or another; `pods`, `services`,
//!   `identities` of them.
//! - [`mesh`]: other clusters; `claims`: whose an address is.
//! - `networks`: what lies inside. `frontends`: where Services are reached.

pub mod mesh;

mod claims;
mod frontends;
mod identities;
mod known_cluster;
mod lint_context;
mod networks;
mod pods;
mod services;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};

use ipnet::IpNet;
use policy::inventory::InventoryNode;
use policy::{CidrGroup, Endpoint, EndpointId, Inventory, Policy, PolicyId};

use crate::object::{Object, ObjectChange, ObjectKey};
use crate::slim::SlimNode;

pub use frontends::ServiceFrontend;
use known_cluster::KnownCluster;
use mesh::OtherClusterIndex;
use networks::ClusterNetworks;

/// The name of a cluster that is given none, as Cilium has it.
pub const DEFAULT_NAME: &str = "default";

/// Every object that is in force, as seen from one node.
#[derive(Debug)]
pub struct Cluster {
    node: String,
    own: KnownCluster,
    others: OtherClusterIndex,
    cidr_groups: BTreeMap<String, CidrGroup>,
    policies: BTreeMap<PolicyId, Arc<Policy>>,
    networks: ClusterNetworks,
    inventory: Inventory,
    /// Made when somebody asks.
    policy_list: OnceLock<Arc<[Arc<Policy>]>>,
}

impl Default for Cluster {
    fn default() -> Self {
        Self::new("")
    }
}

impl Cluster {
    /// Without objects, alone. Pods without `spec.nodeName` are on `node` too.
    pub fn new(node: &str) -> Self {
        Self::of_mesh(node, DEFAULT_NAME, [])
    }

    /// A cluster of this name, without objects, and the `others`.
    pub fn of_mesh<'a>(node: &str, name: &str, others: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            node: node.to_owned(),
            own: KnownCluster::new(name.into(), Some(node)),
            others: OtherClusterIndex::new(others),
            cidr_groups: BTreeMap::new(),
            policies: BTreeMap::new(),
            networks: ClusterNetworks::default(),
            inventory: Inventory::default(),
            policy_list: OnceLock::new(),
        }
    }

    /// Applies one change. Where there are other clusters, [`settle`](Self::settle) is called after
    /// the last one.
    pub fn apply(&mut self, change: ObjectChange) {
        match change {
            ObjectChange::Apply(Object::Pod(pod)) => {
                let moved = self.own.apply_pod(pod, &mut self.inventory.pods, |_| false);
                self.networks.move_pods(&moved, &self.inventory.pods);
                self.others.note_moved(&moved);
            }
            ObjectChange::Apply(Object::Namespace(namespace)) => {
                let name = Arc::clone(&namespace.name);
                self.own
                    .change_namespace(&name, Some(namespace), &mut self.inventory.pods);
            }
            ObjectChange::Apply(Object::Node(node)) => {
                self.change_node(Arc::clone(&node.name), Some(node));
            }
            ObjectChange::Apply(Object::Service(service)) => {
                if self.own.services.apply(service, &mut self.inventory.services) {
                    self.networks.change_services();
                }
            }
            ObjectChange::Apply(Object::EndpointSlice(slice)) => {
                self.own.services.apply_slice(slice, &mut self.inventory.services);
            }
            ObjectChange::Apply(Object::ServiceImport(import)) => {
                self.others.note_import(&import.namespace, &import.name);
                if self.own.services.apply_import(import, &mut self.inventory.services) {
                    self.networks.change_services();
                }
            }
            ObjectChange::Apply(Object::CidrGroup(group)) => {
                self.cidr_groups.insert(group.name.clone(), *group);
                self.inventory.cidr_groups = self.cidr_groups.values().cloned().collect();
            }
            ObjectChange::Apply(Object::Policy(policy)) => {
                self.policies.insert(policy.id.clone(), Arc::from(policy));
                self.policy_list.take();
            }
            ObjectChange::Delete(key) => self.delete(key),
        }
    }

    fn delete(&mut self, key: ObjectKey) {
        match key {
            ObjectKey::Pod(namespace, name) => {
                let moved = self.own.pods.delete(&namespace, &name, &mut self.inventory.pods);
                self.networks.move_pods(&moved, &self.inventory.pods);
                self.others.note_moved(&moved);
            }
            ObjectKey::Namespace(name) => {
                self.own.change_namespace(&name, None, &mut self.inventory.pods);
            }
            ObjectKey::Node(name) => {
                self.change_node(name.into(), None);
            }
            ObjectKey::Service(namespace, name) => {
                if self
                    .own
                    .services
                    .delete(&namespace, &name, &mut self.inventory.services)
                {
                    self.networks.change_services();
                }
            }
            ObjectKey::EndpointSlice(namespace, name) => {
                self.own
                    .services
                    .delete_slice(&namespace, &name, &mut self.inventory.services);
            }
            ObjectKey::ServiceImport(namespace, name) => {
                let services = &mut self.inventory.services;
                if self.own.services.delete_import(&namespace, &name, services) {
                    self.networks.change_services();
                }
            }
            ObjectKey::CidrGroup(name) => {
                self.cidr_groups.remove(&name);
                self.inventory.cidr_groups = self.cidr_groups.values().cloned().collect();
            }
            ObjectKey::Policy(id) => {
                self.policies.remove(&id);
                self.policy_list.take();
            }
        }
    }

    fn change_node(&mut self, name: Arc<str>, now: Option<Arc<SlimNode>>) {
        let nodes = &mut self.own.nodes;
        self.networks
            .change_node(nodes.get(&name).map(Arc::as_ref), now.as_deref());
        self.others.note_claims();
        let known = now
            .as_ref()
            .map(|node| self.own.inventory_node(node, *name == *self.node));
        put_node(&mut self.inventory, name.to_string(), known);
        match now {
            Some(node) => self.own.nodes.insert(name, node),
            None => self.own.nodes.remove(&name),
        };
    }

    /// The workloads of this node that have addresses of their own, ordered by namespace and name.
    ///
    /// A Pod without `spec.nodeName` is local. Pods on the host's network share its addresses and
    /// are not endpoints. An address that a Pod is given while the object of its former holder is
    /// being deleted belongs to the new one alone: it was free before it was given.
    pub fn endpoints(&self) -> Arc<[Endpoint]> {
        self.own.pods.endpoints(&self.inventory.pods)
    }

    /// A workload of any node of the own cluster, with the node that it names.
    pub fn endpoint(&self, id: &EndpointId) -> Option<(Endpoint, Option<String>)> {
        self.own.pods.endpoint(id, &self.inventory.pods)
    }

    /// Every address of a Pod of this node.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.own.pods.local_addresses(&self.inventory.pods)
    }

    /// Where the Pods of this node get their addresses from.
    pub fn pod_ranges(&self) -> BTreeSet<IpNet> {
        let node = self.own.nodes.get(self.node.as_str());
        node.map_or_else(BTreeSet::new, |node| node.pod_ranges.clone())
    }

    /// The name of a Pod that is nearly `id`, as `namespace/name`.
    pub fn nearly(&self, id: &EndpointId) -> Option<String> {
        let distance = |name: &String| strsim::levenshtein(name, &id.to_string());
        let nearest = self.own.pods.names().min_by_key(distance)?;
        (distance(&nearest) <= 3).then_some(nearest)
    }

    /// Everything that rules may speak of, with addresses. It shares its parts with the index.
    pub fn inventory(&self) -> Inventory {
        Inventory {
            other_clusters: self.other_clusters(),
            ..self.inventory.clone()
        }
    }

    /// As [`inventory`](Self::inventory), as seen from another node.
    pub fn inventory_from(&self, node: &str) -> Inventory {
        let mut inventory = self.inventory();
        for (name, object) in &self.own.nodes {
            let known = self.own.inventory_node(object, **name == *node);
            put_node(&mut inventory, name.to_string(), Some(known));
        }
        inventory
    }

    /// Policies, ordered by kind, namespace and name.
    pub fn policies(&self) -> &Arc<[Arc<Policy>]> {
        self.policy_list
            .get_or_init(|| self.policies.values().cloned().collect())
    }

    /// What lies inside a cluster: pod ranges and addresses, node addresses, and the own cluster's
    /// service addresses. (To those of others no packet comes.)
    pub fn networks(&self) -> Arc<[IpNet]> {
        self.networks.all(&self.inventory.pods, self.own.services.addresses())
    }

    /// The DNS Services among `names` (namespace, name), as the addresses that pods ask.
    pub fn dns_services(&self, names: &[(String, String)]) -> Vec<SocketAddr> {
        self.own.services.dns(names)
    }

    /// Where the Services with backends are reached over TCP.
    pub fn service_frontends(&self) -> impl Iterator<Item = ServiceFrontend> {
        self.own.services.frontends()
    }

    /// Another number whenever a Service or an EndpointSlice is another.
    pub fn services_revision(&self) -> u64 {
        self.own.services.revision()
    }
}

/// Puts a node into an inventory, where it is not the same there already, or takes it out.
fn put_node(inventory: &mut Inventory, key: String, now: Option<InventoryNode>) {
    match now {
        Some(node) if inventory.nodes.get(&key).is_some_and(|before| **before == node) => {}
        Some(node) => drop(inventory.nodes.insert(key, Arc::new(node))),
        None => drop(inventory.nodes.remove(&key)),
    }
}

#[cfg(test)]
mod tests {
    use policy::{Protocol, endpoint};

    use super::*;

    fn pod(yaml: serde_json::Value) -> ObjectChange {
        ObjectChange::Apply(Object::Pod(Arc::new(serde_json::from_value(yaml).unwrap())))
    }

    fn simple(name: &str, address: &str) -> serde_json::Value {
        serde_json::json!({
            "metadata": {"name": name, "namespace": "shop", "labels": {"app": "web", endpoint::keys::NAMESPACE: "kube-system"}},
            "spec": {"containers": []},
            "status": {"podIPs": [{"ip": address}]},
        })
    }

    #[test]
    fn a_pod_without_node_is_local_and_one_of_another_node_is_not() {
        let mut cluster = Cluster::new("here");
        cluster.apply(pod(simple("a", "10.0.0.1")));
        let mut elsewhere = simple("b", "10.0.0.2");
        elsewhere["spec"]["nodeName"] = "other".into();
        cluster.apply(pod(elsewhere));
        let local: Vec<String> = cluster.endpoints().iter().map(|e| e.id.to_string()).collect();
        assert_eq!(local, ["shop/a"]);
        assert_eq!(
            cluster.networks().len(),
            2,
            "pods of other nodes are inside the cluster"
        );
    }

    #[test]
    fn a_pod_cannot_choose_its_namespace_by_a_label() {
        let mut cluster = Cluster::new("here");
        cluster.apply(pod(simple("a", "10.0.0.1")));
        assert_eq!(cluster.endpoints()[0].labels[endpoint::keys::NAMESPACE], "shop");
    }

    #[test]
    fn ended_pods_and_pods_on_the_hosts_network_are_no_endpoints() {
        let mut cluster = Cluster::new("here");
        let mut ended = simple("a", "10.0.0.1");
        ended["status"]["phase"] = "Succeeded".into();
        cluster.apply(pod(ended));
        let mut on_host = simple("b", "10.0.0.2");
        on_host["spec"]["hostNetwork"] = true.into();
        cluster.apply(pod(on_host));
        assert!(cluster.endpoints().is_empty());
    }

    #[test]
    fn a_pod_that_is_being_deleted_keeps_its_address_until_another_claims_it() {
        let mut cluster = Cluster::new("here");
        let mut old = simple("a", "10.0.0.1");
        old["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        cluster.apply(pod(old));
        let claimants = |cluster: &Cluster| -> Vec<String> {
            let endpoints = cluster.endpoints();
            endpoints.iter().map(|endpoint| endpoint.id.to_string()).collect()
        };
        assert_eq!(claimants(&cluster), ["shop/a"]);
        cluster.apply(pod(simple("b", "10.0.0.1")));
        assert_eq!(claimants(&cluster), ["shop/b"]);
    }

    #[test]
    fn labels_of_the_namespace_reach_its_pods() {
        let mut cluster = Cluster::new("here");
        cluster.apply(pod(simple("a", "10.0.0.1")));
        let namespace = serde_json::json!({"metadata": {"name": "shop", "labels": {"team": "red"}}});
        cluster.apply(ObjectChange::Apply(Object::Namespace(Arc::new(
            serde_json::from_value(namespace).unwrap(),
        ))));
        assert_eq!(
            cluster.endpoints()[0].labels["io.cilium.k8s.namespace.labels.team"],
            "red"
        );
    }

    #[test]
    fn a_dns_service_is_asked_at_its_dns_ports() {
        let mut cluster = Cluster::new("here");
        let service = serde_json::json!({
            "metadata": {"name": "kube-dns", "namespace": "kube-system"},
            "spec": {"clusterIP": "10.96.0.10", "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53}, {"name": "metrics", "port": 9153}]},
        });
        cluster.apply(ObjectChange::Apply(Object::Service(Arc::new(
            serde_json::from_value(service).unwrap(),
        ))));
        let asked = cluster.dns_services(&[("kube-system".into(), "kube-dns".into())]);
        assert_eq!(asked, ["10.96.0.10:53".parse().unwrap()]);
    }

    #[test]
    fn the_inventory_holds_pods_of_every_node_and_services_known_by_their_slices_alone() {
        let mut cluster = Cluster::new("here");
        let mut elsewhere = simple("a", "10.0.0.1");
        elsewhere["spec"] = serde_json::json!({"nodeName": "other", "containers": [{"name": "c", "ports": [
            {"name": "web", "containerPort": 8080}, {"containerPort": 1}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]}]});
        cluster.apply(pod(elsewhere));
        let slice = serde_json::json!({
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["192.0.2.10"], "conditions": {"ready": false}}],
        });
        cluster.apply(ObjectChange::Apply(Object::EndpointSlice(Arc::new(
            serde_json::from_value(slice).unwrap(),
        ))));
        for (name, address) in [("here", "192.0.2.1"), ("other", "192.0.2.2")] {
            let node = serde_json::json!({
                "metadata": {"name": name},
                "status": {"addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}]},
            });
            cluster.apply(ObjectChange::Apply(Object::Node(Arc::new(
                serde_json::from_value(node).unwrap(),
            ))));
        }
        let inventory = cluster.inventory();
        let pods: Vec<_> = inventory.pods.iter().collect();
        let [pod] = pods.as_slice() else {
            panic!("{inventory:?}")
        };
        let ports: Vec<_> = pod
            .ports()
            .iter()
            .map(|it| (it.name.as_str(), it.protocol, it.port))
            .collect();
        assert_eq!(ports, [("web", Protocol::Tcp, 8080), ("dns", Protocol::Udp, 53)]);
        let services: Vec<_> = inventory.services.iter().collect();
        let [service] = services.as_slice() else {
            panic!("{inventory:?}")
        };
        assert_eq!(
            (service.namespace.as_str(), service.name.as_str()),
            ("default", "kubernetes")
        );
        assert_eq!(
            service.backends,
            BTreeSet::from(["192.0.2.10".parse().unwrap()]),
            "ready or not"
        );
        let nodes: Vec<_> = inventory
            .nodes
            .values()
            .map(|node| (node.is_this, node.addresses.len()))
            .collect();
        assert_eq!(nodes, [(true, 1), (false, 1)]);
    }
}
