//! The Pods, of which thousands may be known.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use k8s_openapi::api::core::v1::Pod;
use policy::inventory::{ContainerPort, InventoryPod, PodIdentity, PodIndex, PodNumber};
use policy::labels::Labels;
use policy::{Endpoint, EndpointId, Protocol, endpoint};
use smallvec::SmallVec;

use super::name_of;

/// What the API server puts where a Pod names no service account.
const DEFAULT_SERVICE_ACCOUNT: &str = "default";
/// Cilium's name for a cluster that was given none.
const CLUSTER_NAME: &str = "default";

/// Addresses that a change has given to a pod or taken from it.
pub(super) type MovedAddresses = SmallVec<[IpAddr; 4]>;

/// The Pods. What rules may know of those that have addresses stands in a [`PodIndex`], which
/// belongs to the inventory.
#[derive(Debug, Default)]
pub(super) struct KnownPods {
    /// The node whose Pods are local.
    node: Arc<str>,
    pods: BTreeMap<PodKey, KnownPod>,
    local: BTreeSet<PodKey>,
    /// The names of namespaces and nodes, each once.
    names: HashSet<Arc<str>>,
    /// Made when somebody asks.
    endpoints: OnceLock<Arc<[Endpoint]>>,
}

/// Namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct PodKey(Arc<str>, Box<str>);

/// What is kept of a Pod: of ten thousand, objects would take a hundred megabytes.
#[derive(Debug)]
struct KnownPod {
    /// `spec.nodeName`.
    node: Option<Arc<str>>,
    being_deleted: bool,
    place: PodPlace,
}

/// Where a Pod's addresses are.
#[derive(Debug)]
enum PodPlace {
    /// On the host's network: they are the node's.
    Host,
    /// In the index.
    Index(PodNumber),
    /// It has none, yet or any more. One that has ended may stand with those that belong to
    /// another now.
    Nowhere(Box<InventoryPod>),
}

impl KnownPods {
    pub(super) fn new(node: &str) -> Self {
        Self {
            node: node.into(),
            ..Self::default()
        }
    }

    /// Takes in a Pod, whose namespace has these labels.
    pub(super) fn apply(
        &mut self,
        namespace: String,
        pod: &Pod,
        of_namespace: &Labels,
        index: &mut PodIndex,
    ) -> MovedAddresses {
        let identity = PodIdentity {
            labels: labels(&namespace, pod, of_namespace),
            ports: named_ports(pod),
        };
        let key = PodKey(self.name(&namespace), name_of(&pod.metadata.name).into());
        let before = self.pods.remove(&key);
        let known = before.as_ref().and_then(|before| before.place.number());
        let mut moved = addresses_in(index, known);
        let has_ended = has_ended(pod);
        let now = InventoryPod::of(Arc::new(identity), addresses(pod));
        let place = match known {
            _ if is_on_host(pod) => PodPlace::Host,
            _ if has_ended || now.addresses().is_empty() => PodPlace::Nowhere(Box::new(now)),
            Some(number) => {
                index.replace(number, now);
                PodPlace::Index(number)
            }
            None => PodPlace::Index(index.insert(now)),
        };
        let number = place.number();
        if let (Some(gone), None) = (known, number) {
            index.remove(gone);
        }
        moved.extend(addresses_in(index, number));
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let node = node.filter(|node| !node.is_empty()).map(|node| self.name(node));
        let known = KnownPod {
            being_deleted: pod.metadata.deletion_timestamp.is_some(),
            node,
            place,
        };
        let was_local = self.local.contains(&key);
        let is_local = known.is_on(&self.node);
        if was_local || is_local {
            self.endpoints.take();
        }
        match is_local {
            true if !was_local => drop(self.local.insert(key.clone())),
            false if was_local => drop(self.local.remove(&key)),
            _ => {}
        }
        self.pods.insert(key, known);
        moved
    }

    pub(super) fn delete(&mut self, namespace: &str, name: &str, index: &mut PodIndex) -> MovedAddresses {
        let key = PodKey(namespace.into(), name.into());
        let Some(gone) = self.pods.remove(&key) else {
            return MovedAddresses::new();
        };
        if self.local.remove(&key) {
            self.endpoints.take();
        }
        let number = gone.place.number();
        let moved = addresses_in(index, number);
        if let Some(number) = number {
            index.remove(number);
        }
        moved
    }

    /// Takes in the labels of a namespace, which are part of its pods'.
    pub(super) fn relabel(&mut self, namespace: &str, of_namespace: &Labels, index: &mut PodIndex) {
        let first = PodKey(namespace.into(), "".into());
        // Pods that agreed do so again.
        let mut relabelled: BTreeMap<Arc<PodIdentity>, Arc<PodIdentity>> = BTreeMap::new();
        let mut anew = |pod: &InventoryPod| {
            let before = pod.identity();
            let identity = relabelled.entry(Arc::clone(before)).or_insert_with(|| {
                let account = before
                    .labels
                    .get(endpoint::keys::SERVICE_ACCOUNT)
                    .map_or(DEFAULT_SERVICE_ACCOUNT, String::as_str);
                Arc::new(PodIdentity {
                    // The special labels among its own are made anew.
                    labels: endpoint::labels(&before.labels, namespace, of_namespace, account, CLUSTER_NAME),
                    ports: before.ports.clone(),
                })
            });
            InventoryPod::of(Arc::clone(identity), pod.addresses().iter().copied())
        };
        let pods = self.pods.range_mut(first..);
        for (key, known) in pods.take_while(|(key, _)| &*key.0 == namespace) {
            match &mut known.place {
                PodPlace::Host => continue,
                PodPlace::Nowhere(pod) => **pod = anew(pod),
                PodPlace::Index(number) => {
                    if let Some(now) = index.get(*number).map(|pod| anew(pod)) {
                        index.replace(*number, now);
                    }
                }
            }
            if self.local.contains(key) {
                self.endpoints.take();
            }
        }
    }

    /// See [`Cluster::endpoints`](super::Cluster::endpoints).
    pub(super) fn endpoints(&self, index: &PodIndex) -> Arc<[Endpoint]> {
        let endpoints = self.endpoints.get_or_init(|| {
            let to_stay = self.local(index).filter(|(_, known, _)| !known.being_deleted);
            let taken: BTreeSet<IpAddr> = to_stay.flat_map(|(.., pod)| pod.addresses()).copied().collect();
            let endpoints = self.local(index).map(|(key, known, pod)| {
                let mut endpoint = key.endpoint(pod);
                if known.being_deleted {
                    endpoint.addresses.retain(|address| !taken.contains(address));
                }
                endpoint
            });
            endpoints.filter(|endpoint| !endpoint.addresses.is_empty()).collect()
        });
        Arc::clone(endpoints)
    }

    fn local<'a>(&'a self, index: &'a PodIndex) -> impl Iterator<Item = (&'a PodKey, &'a KnownPod, &'a InventoryPod)> {
        self.local.iter().filter_map(|key| {
            let known = self.pods.get(key)?;
            let pod = index.get(known.place.number()?)?;
            Some((key, known, &**pod))
        })
    }

    /// A workload of any node, with the node that it names.
    pub(super) fn endpoint(&self, id: &EndpointId, index: &PodIndex) -> Option<(Endpoint, Option<String>)> {
        let key = PodKey(id.namespace.as_str().into(), id.name.as_str().into());
        let known = self.pods.get(&key)?;
        let pod = index.get(known.place.number()?)?;
        Some((key.endpoint(pod), known.node.as_deref().map(str::to_owned)))
    }

    /// Every address of a local Pod.
    pub(super) fn local_addresses<'a>(&'a self, index: &'a PodIndex) -> impl Iterator<Item = IpAddr> + 'a {
        self.local(index).flat_map(|(.., pod)| pod.addresses()).copied()
    }

    /// Every Pod, as `namespace/name`.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        self.pods
            .keys()
            .map(|PodKey(namespace, name)| format!("{namespace}/{name}"))
    }

    /// Every Pod that is not on the host's network, with addresses or without.
    pub(super) fn inventory(&self, index: &PodIndex) -> PodIndex {
        let known = self.pods.values().filter_map(|known| match &known.place {
            PodPlace::Host => None,
            PodPlace::Index(number) => index.get(*number).map(|pod| InventoryPod::clone(pod)),
            PodPlace::Nowhere(pod) => Some(InventoryPod::clone(pod)),
        });
        known.collect()
    }

    /// A name that is kept once.
    fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        self.names.insert(Arc::clone(&name));
        name
    }
}

impl PodKey {
    fn endpoint(&self, pod: &InventoryPod) -> Endpoint {
        Endpoint {
            id: EndpointId {
                namespace: self.0.as_ref().to_owned(),
                name: self.1.as_ref().to_owned(),
            },
            labels: pod.labels().clone(),
            addresses: pod.addresses().iter().copied().collect(),
            ports: pod.ports().to_vec(),
        }
    }
}

impl KnownPod {
    /// A Pod without a node is local.
    fn is_on(&self, node: &str) -> bool {
        self.node.as_deref().is_none_or(|name| name == node)
    }
}

impl PodPlace {
    fn number(&self) -> Option<PodNumber> {
        match self {
            PodPlace::Index(number) => Some(*number),
            PodPlace::Host | PodPlace::Nowhere(_) => None,
        }
    }
}

fn addresses_in(index: &PodIndex, pod: Option<PodNumber>) -> MovedAddresses {
    let pod = pod.and_then(|number| index.get(number));
    pod.map_or_else(MovedAddresses::new, |pod| pod.addresses().iter().copied().collect())
}

/// The labels that selectors see.
fn labels(namespace: &str, pod: &Pod, of_namespace: &Labels) -> Labels {
    let none = Labels::new();
    let of_pod = pod.metadata.labels.as_ref().unwrap_or(&none);
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
    let account = account.unwrap_or(DEFAULT_SERVICE_ACCOUNT);
    endpoint::labels(of_pod, namespace, of_namespace, account, CLUSTER_NAME)
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
