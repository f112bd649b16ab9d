//! The objects, indexed: one synchronous view that every source's changes are applied to.

mod lint_context;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use policy::address::ZoneMap;
use policy::endpoint;
use policy::inventory::{ContainerPort, InventoryNode, InventoryPod, InventoryService};
use policy::labels::Labels;
use policy::{AddressZone, CidrGroup, Endpoint, EndpointId, Inventory, Policy, PolicyId, Protocol};

use crate::object::{Object, ObjectChange, ObjectKey};

/// What the API server puts where a Pod names no service account.
const DEFAULT_SERVICE_ACCOUNT: &str = "default";
/// Cilium's name for a cluster that was given none.
const CLUSTER_NAME: &str = "default";

/// The label of an EndpointSlice that names its Service.
const SLICE_OF: &str = "kubernetes.io/service-name";

/// Every object that is in force.
#[derive(Debug, Default)]
pub struct Cluster {
    pods: BTreeMap<(String, String), KnownPod>,
    namespaces: BTreeMap<String, Namespace>,
    nodes: BTreeMap<String, Node>,
    services: BTreeMap<(String, String), Service>,
    slices: BTreeMap<(String, String), EndpointSlice>,
    cidr_groups: BTreeMap<String, CidrGroup>,
    policies: BTreeMap<PolicyId, Arc<Policy>>,
}

/// What is kept of a Pod: of ten thousand, objects would take a hundred megabytes.
#[derive(Debug)]
struct KnownPod {
    /// `spec.nodeName`.
    node: Option<Box<str>>,
    being_deleted: bool,
    /// It has ended: its addresses may already belong to another.
    ended: bool,
    /// What rules may know of it: the same one as long as nothing of it changes, so that a change
    /// is seen by its pointer. `None` on the host's network, whose addresses are the node's.
    inventory: Option<Arc<InventoryPod>>,
}

impl KnownPod {
    /// What rules may know of it, as long as it has addresses of its own.
    fn addressed(&self) -> Option<&Arc<InventoryPod>> {
        let inventory = self.inventory.as_ref().filter(|_| !self.ended);
        inventory.filter(|pod| !pod.addresses.is_empty())
    }

    /// A Pod without a node is local.
    fn is_on(&self, node: &str) -> bool {
        self.node.as_deref().is_none_or(|name| name == node)
    }
}

impl Cluster {
    /// Applies one change.
    pub fn apply(&mut self, change: ObjectChange) {
        match change {
            ObjectChange::Apply(Object::Pod(pod)) => {
                let key = (namespace_of(&pod.metadata.namespace), name_of(&pod.metadata.name));
                let before = self.pods.remove(&key).and_then(|known| known.inventory);
                let known = self.known(&key.0, &pod, before);
                self.pods.insert(key, known);
            }
            ObjectChange::Apply(Object::Namespace(namespace)) => {
                let name = name_of(&namespace.metadata.name);
                self.namespaces.insert(name.clone(), *namespace);
                self.look_again_at_pods_of(&name);
            }
            ObjectChange::Apply(Object::Node(node)) => {
                self.nodes.insert(name_of(&node.metadata.name), *node);
            }
            ObjectChange::Apply(Object::Service(service)) => {
                let key = (
                    namespace_of(&service.metadata.namespace),
                    name_of(&service.metadata.name),
                );
                self.services.insert(key, *service);
            }
            ObjectChange::Apply(Object::EndpointSlice(slice)) => {
                let key = (namespace_of(&slice.metadata.namespace), name_of(&slice.metadata.name));
                self.slices.insert(key, *slice);
            }
            ObjectChange::Apply(Object::CidrGroup(group)) => {
                self.cidr_groups.insert(group.name.clone(), *group);
            }
            ObjectChange::Apply(Object::Policy(policy)) => {
                self.policies.insert(policy.id.clone(), Arc::from(policy));
            }
            ObjectChange::Delete(ObjectKey::Pod(namespace, name)) => drop(self.pods.remove(&(namespace, name))),
            ObjectChange::Delete(ObjectKey::Namespace(name)) => {
                self.namespaces.remove(&name);
                self.look_again_at_pods_of(&name);
            }
            ObjectChange::Delete(ObjectKey::Node(name)) => drop(self.nodes.remove(&name)),
            ObjectChange::Delete(ObjectKey::Service(namespace, name)) => drop(self.services.remove(&(namespace, name))),
            ObjectChange::Delete(ObjectKey::EndpointSlice(namespace, name)) => {
                drop(self.slices.remove(&(namespace, name)))
            }
            ObjectChange::Delete(ObjectKey::CidrGroup(name)) => drop(self.cidr_groups.remove(&name)),
            ObjectChange::Delete(ObjectKey::Policy(id)) => drop(self.policies.remove(&id)),
        }
    }

    /// The workloads of this node that have addresses of their own, ordered by namespace and name.
    ///
    /// A Pod without `spec.nodeName` is local. Pods on the host's network share its addresses and
    /// are not endpoints. An address that a Pod is given while the object of its former holder is
    /// being deleted belongs to the new one alone: it was free before it was given.
    pub fn endpoints(&self, node: &str) -> Vec<Endpoint> {
        let local = || {
            self.pods
                .iter()
                .filter(|(_, pod)| pod.is_on(node))
                .filter_map(|(key, pod)| Some((key, pod, pod.addressed()?)))
        };
        let to_stay = local().filter(|(_, pod, _)| !pod.being_deleted);
        let taken: BTreeSet<IpAddr> = to_stay.flat_map(|(.., known)| &known.addresses).copied().collect();
        local()
            .map(|((namespace, name), pod, known)| {
                let mut addresses = known.addresses.clone();
                if pod.being_deleted {
                    addresses.retain(|address| !taken.contains(address));
                }
                Endpoint {
                    id: EndpointId {
                        namespace: namespace.clone(),
                        name: name.clone(),
                    },
                    labels: known.labels.clone(),
                    addresses,
                }
            })
            .filter(|endpoint| !endpoint.addresses.is_empty())
            .collect()
    }

    /// A workload of any node, with the node that it names.
    pub fn endpoint(&self, id: &EndpointId) -> Option<(Endpoint, Option<String>)> {
        let pod = self.pods.get(&(id.namespace.clone(), id.name.clone()))?;
        let known = pod.addressed()?;
        let endpoint = Endpoint {
            id: id.clone(),
            labels: known.labels.clone(),
            addresses: known.addresses.clone(),
        };
        Some((endpoint, pod.node.as_deref().map(str::to_owned)))
    }

    /// Every address of a Pod of `node`.
    pub fn addresses(&self, node: &str) -> impl Iterator<Item = IpAddr> {
        let local = self.pods.values().filter(move |pod| pod.is_on(node));
        let known = local.filter_map(KnownPod::addressed);
        known.flat_map(|pod| &pod.addresses).copied()
    }

    /// Where the Pods of a node get their addresses from.
    pub fn pod_ranges(&self, node: &str) -> BTreeSet<IpNet> {
        self.nodes.get(node).map_or_else(BTreeSet::new, pod_ranges)
    }

    /// The name of a Pod that is nearly `id`, as `namespace/name`.
    pub fn nearly(&self, id: &EndpointId) -> Option<String> {
        let names = self.pods.keys().map(|(namespace, name)| format!("{namespace}/{name}"));
        let distance = |name: &String| strsim::levenshtein(name, &id.to_string());
        let nearest = names.min_by_key(distance)?;
        (distance(&nearest) <= 3).then_some(nearest)
    }

    /// Everything that rules may speak of, with addresses, as seen from `node`.
    pub fn inventory(&self, node: &str) -> Inventory {
        Inventory {
            pods: self.pods.values().filter_map(|pod| pod.addressed().cloned()).collect(),
            services: self.inventory_services(),
            nodes: self
                .nodes
                .iter()
                .map(|(name, object)| InventoryNode {
                    labels: object.metadata.labels.clone().unwrap_or_default(),
                    addresses: node_addresses(object).collect(),
                    is_this: name == node,
                })
                .collect(),
            cidr_groups: self.cidr_groups.values().cloned().collect(),
        }
    }

    /// Services with their backends. EndpointSlices alone make a service too: the objects of a
    /// directory need not be complete.
    fn inventory_services(&self) -> Vec<InventoryService> {
        let mut services: BTreeMap<(String, String), InventoryService> = BTreeMap::new();
        for (key, service) in &self.services {
            let selector = service.spec.as_ref().and_then(|spec| spec.selector.clone());
            let entry = services.entry(key.clone()).or_default();
            entry.labels = service.metadata.labels.clone().unwrap_or_default();
            entry.addresses = cluster_addresses(service);
            entry.selector = selector.filter(|selector| !selector.is_empty());
        }
        for ((namespace, _), slice) in &self.slices {
            let labels = slice.metadata.labels.as_ref();
            if let Some(name) = labels.and_then(|labels| labels.get(SLICE_OF)) {
                let entry = services.entry((namespace.clone(), name.clone())).or_default();
                entry.backends.extend(backends(slice));
            }
        }
        for ((namespace, name), service) in &mut services {
            service.namespace.clone_from(namespace);
            service.name.clone_from(name);
        }
        services.into_values().collect()
    }

    /// Policies, ordered by kind, namespace and name.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<Policy>> + Clone {
        self.policies.values()
    }

    /// What lies inside the cluster: pod ranges and addresses, service addresses, node addresses.
    pub fn networks(&self) -> Vec<IpNet> {
        let services = self.services.values().flat_map(cluster_addresses).map(IpNet::from);
        let nodes = self.nodes.values().flat_map(node_networks);
        let ranges: BTreeSet<IpNet> = services.chain(nodes).collect();
        let ranges = IpNet::aggregate(&ranges.into_iter().collect());
        // Of thousands of pods most lie in their node's range.
        let known = ZoneMap::new([], ranges.iter().copied());
        let pods = self.pods.values().filter_map(KnownPod::addressed);
        let addresses = pods.flat_map(|pod| &pod.addresses).copied();
        let strays = addresses.filter(|address| known.of(*address) == AddressZone::World);
        let all: Vec<IpNet> = strays.map(IpNet::from).chain(ranges.iter().copied()).collect();
        IpNet::aggregate(&all)
    }

    /// The DNS Services among `names` (namespace, name), as the addresses that pods ask.
    pub fn dns_services(&self, names: &[(String, String)]) -> Vec<SocketAddr> {
        names
            .iter()
            .filter_map(|key| self.services.get(key))
            .flat_map(|service| {
                let ports = dns_ports(service);
                cluster_addresses(service).into_iter().flat_map(move |address| {
                    ports
                        .clone()
                        .into_iter()
                        .map(move |port| SocketAddr::new(address, port))
                })
            })
            .collect()
    }

    /// What is kept of a pod, with `before` again where that is the same.
    fn known(&self, namespace: &str, pod: &Pod, before: Option<Arc<InventoryPod>>) -> KnownPod {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let now = || InventoryPod {
            labels: self.labels(namespace, pod),
            addresses: addresses(pod),
            ports: named_ports(pod),
        };
        KnownPod {
            node: node.filter(|node| !node.is_empty()).map(Box::from),
            being_deleted: pod.metadata.deletion_timestamp.is_some(),
            ended: has_ended(pod),
            inventory: (!is_on_host(pod)).then(|| same_or_new(before, now())),
        }
    }

    /// The labels of a namespace are part of its pods'.
    fn look_again_at_pods_of(&mut self, namespace: &str) {
        let none = Labels::new();
        let of_namespace = self.namespaces.get(namespace);
        let of_namespace = of_namespace
            .and_then(|object| object.metadata.labels.as_ref())
            .unwrap_or(&none);
        let first = (namespace.to_owned(), String::new());
        let pods = self.pods.range_mut(first..).take_while(|((of, _), _)| of == namespace);
        for (_, pod) in pods {
            let Some(before) = pod.inventory.take() else {
                continue;
            };
            let account = before
                .labels
                .get(endpoint::keys::SERVICE_ACCOUNT)
                .map_or(DEFAULT_SERVICE_ACCOUNT, String::as_str);
            // The special labels among its own are made anew.
            let now = InventoryPod {
                labels: endpoint::labels(&before.labels, namespace, of_namespace, account, CLUSTER_NAME),
                ..(*before).clone()
            };
            pod.inventory = Some(same_or_new(Some(before), now));
        }
    }

    /// The labels that selectors see.
    fn labels(&self, namespace: &str, pod: &Pod) -> Labels {
        let none = Labels::new();
        let of_pod = pod.metadata.labels.as_ref().unwrap_or(&none);
        let of_namespace = self
            .namespaces
            .get(namespace)
            .and_then(|object| object.metadata.labels.as_ref());
        let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
        let account = account.unwrap_or(DEFAULT_SERVICE_ACCOUNT);
        endpoint::labels(of_pod, namespace, of_namespace.unwrap_or(&none), account, CLUSTER_NAME)
    }
}

fn namespace_of(namespace: &Option<String>) -> String {
    namespace
        .clone()
        .filter(|namespace| !namespace.is_empty())
        .unwrap_or_else(|| "default".into())
}

fn name_of(name: &Option<String>) -> String {
    name.clone().unwrap_or_default()
}

/// As an allocation of its own only if it is another one.
fn same_or_new(before: Option<Arc<InventoryPod>>, now: InventoryPod) -> Arc<InventoryPod> {
    before.filter(|before| **before == now).unwrap_or_else(|| Arc::new(now))
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn is_on_host(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false)
}

fn addresses(pod: &Pod) -> BTreeSet<IpAddr> {
    let Some(status) = &pod.status else {
        return BTreeSet::new();
    };
    let many = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    many.chain(status.pod_ip.as_deref())
        .filter_map(|text| text.parse().ok())
        .collect()
}

/// The ports that the containers of a pod name, sidecars included.
fn named_ports(pod: &Pod) -> Vec<ContainerPort> {
    let containers = pod.spec.iter().flat_map(|spec| {
        let first = spec.init_containers.iter().flatten();
        first.chain(&spec.containers)
    });
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            Some(ContainerPort {
                name: port.name.clone()?,
                protocol: match port.protocol.as_deref() {
                    None | Some("TCP") => Protocol::Tcp,
                    Some("UDP") => Protocol::Udp,
                    Some("SCTP") => Protocol::Sctp,
                    Some(_) => return None,
                },
                port: u16::try_from(port.container_port).ok()?,
            })
        })
        .collect()
}

/// The addresses of a slice; one of type FQDN has none. Those that are not ready count: they are
/// about to be, and the kernel should know first.
fn backends(slice: &EndpointSlice) -> impl Iterator<Item = IpAddr> {
    let endpoints = slice.endpoints.iter().flatten();
    endpoints.flat_map(|endpoint| endpoint.addresses.iter().filter_map(|address| address.parse().ok()))
}

/// Addresses of a Service inside the cluster; `None` marks a headless one.
fn cluster_addresses(service: &Service) -> BTreeSet<IpAddr> {
    let Some(spec) = &service.spec else {
        return BTreeSet::new();
    };
    let many = spec.cluster_ips.iter().flatten().map(String::as_str);
    many.chain(spec.cluster_ip.as_deref())
        .filter_map(|text| text.parse().ok())
        .collect()
}

/// The ports that a DNS Service is asked at: those named `dns…` (as `kube-dns` names them), else
/// all of them.
fn dns_ports(service: &Service) -> BTreeSet<u16> {
    let ports = || service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let number = |port: i32| u16::try_from(port).ok();
    let named: BTreeSet<u16> = ports()
        .filter(|port| port.name.as_deref().is_some_and(|name| name.starts_with("dns")))
        .filter_map(|port| number(port.port))
        .collect();
    if named.is_empty() {
        ports().filter_map(|port| number(port.port)).collect()
    } else {
        named
    }
}

fn node_networks(node: &Node) -> Vec<IpNet> {
    let addresses = node_addresses(node).map(IpNet::from);
    pod_ranges(node).into_iter().chain(addresses).collect()
}

/// Where the pods of a node get their addresses from. The first range stands in the object twice.
fn pod_ranges(node: &Node) -> BTreeSet<IpNet> {
    let spec = node.spec.iter();
    let ranges = spec.flat_map(|spec| spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr));
    ranges.filter_map(|cidr| cidr.parse().ok()).collect()
}

fn node_addresses(node: &Node) -> impl Iterator<Item = IpAddr> {
    let status = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    status.filter_map(|address| address.address.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(yaml: serde_json::Value) -> ObjectChange {
        ObjectChange::Apply(Object::Pod(Box::new(serde_json::from_value(yaml).unwrap())))
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
        let mut cluster = Cluster::default();
        cluster.apply(pod(simple("a", "10.0.0.1")));
        let mut elsewhere = simple("b", "10.0.0.2");
        elsewhere["spec"]["nodeName"] = "other".into();
        cluster.apply(pod(elsewhere));
        let local: Vec<String> = cluster
            .endpoints("here")
            .into_iter()
            .map(|e| e.id.to_string())
            .collect();
        assert_eq!(local, ["shop/a"]);
        assert_eq!(
            cluster.networks().len(),
            2,
            "pods of other nodes are inside the cluster"
        );
    }

    #[test]
    fn a_pod_cannot_choose_its_namespace_by_a_label() {
        let mut cluster = Cluster::default();
        cluster.apply(pod(simple("a", "10.0.0.1")));
        assert_eq!(cluster.endpoints("here")[0].labels[endpoint::keys::NAMESPACE], "shop");
    }

    #[test]
    fn ended_pods_and_pods_on_the_hosts_network_are_no_endpoints() {
        let mut cluster = Cluster::default();
        let mut ended = simple("a", "10.0.0.1");
        ended["status"]["phase"] = "Succeeded".into();
        cluster.apply(pod(ended));
        let mut on_host = simple("b", "10.0.0.2");
        on_host["spec"]["hostNetwork"] = true.into();
        cluster.apply(pod(on_host));
        assert!(cluster.endpoints("here").is_empty());
    }

    #[test]
    fn a_pod_that_is_being_deleted_keeps_its_address_until_another_claims_it() {
        let mut cluster = Cluster::default();
        let mut old = simple("a", "10.0.0.1");
        old["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        cluster.apply(pod(old));
        let claimants = |cluster: &Cluster| -> Vec<String> {
            let endpoints = cluster.endpoints("here");
            endpoints.iter().map(|endpoint| endpoint.id.to_string()).collect()
        };
        assert_eq!(claimants(&cluster), ["shop/a"]);
        cluster.apply(pod(simple("b", "10.0.0.1")));
        assert_eq!(claimants(&cluster), ["shop/b"]);
    }

    #[test]
    fn labels_of_the_namespace_reach_its_pods() {
        let mut cluster = Cluster::default();
        cluster.apply(pod(simple("a", "10.0.0.1")));
        let namespace = serde_json::json!({"metadata": {"name": "shop", "labels": {"team": "red"}}});
        cluster.apply(ObjectChange::Apply(Object::Namespace(Box::new(
            serde_json::from_value(namespace).unwrap(),
        ))));
        assert_eq!(
            cluster.endpoints("here")[0].labels["io.cilium.k8s.namespace.labels.team"],
            "red"
        );
    }

    #[test]
    fn a_dns_service_is_asked_at_its_dns_ports() {
        let mut cluster = Cluster::default();
        let service = serde_json::json!({
            "metadata": {"name": "kube-dns", "namespace": "kube-system"},
            "spec": {"clusterIP": "10.96.0.10", "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53}, {"name": "metrics", "port": 9153}]},
        });
        cluster.apply(ObjectChange::Apply(Object::Service(Box::new(
            serde_json::from_value(service).unwrap(),
        ))));
        let asked = cluster.dns_services(&[("kube-system".into(), "kube-dns".into())]);
        assert_eq!(asked, ["10.96.0.10:53".parse().unwrap()]);
    }

    #[test]
    fn the_inventory_holds_pods_of_every_node_and_services_known_by_their_slices_alone() {
        let mut cluster = Cluster::default();
        let mut elsewhere = simple("a", "10.0.0.1");
        elsewhere["spec"] = serde_json::json!({"nodeName": "other", "containers": [{"name": "c", "ports": [
            {"name": "web", "containerPort": 8080}, {"containerPort": 1}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]}]});
        cluster.apply(pod(elsewhere));
        let slice = serde_json::json!({
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": {SLICE_OF: "kubernetes"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["192.0.2.10"], "conditions": {"ready": false}}],
        });
        cluster.apply(ObjectChange::Apply(Object::EndpointSlice(Box::new(
            serde_json::from_value(slice).unwrap(),
        ))));
        for (name, address) in [("here", "192.0.2.1"), ("other", "192.0.2.2")] {
            let node = serde_json::json!({
                "metadata": {"name": name},
                "status": {"addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}]},
            });
            cluster.apply(ObjectChange::Apply(Object::Node(Box::new(
                serde_json::from_value(node).unwrap(),
            ))));
        }
        let inventory = cluster.inventory("here");
        let [pod] = inventory.pods.as_slice() else {
            panic!("{inventory:?}")
        };
        let ports: Vec<_> = pod
            .ports
            .iter()
            .map(|it| (it.name.as_str(), it.protocol, it.port))
            .collect();
        assert_eq!(ports, [("web", Protocol::Tcp, 8080), ("dns", Protocol::Udp, 53)]);
        let [service] = inventory.services.as_slice() else {
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
            .iter()
            .map(|node| (node.is_this, node.addresses.len()))
            .collect();
        assert_eq!(nodes, [(true, 1), (false, 1)]);
    }
}
