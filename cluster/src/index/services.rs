//! The Services, with the backends of their EndpointSlices.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use policy::inventory::{InventoryService, ServiceIndex};

use super::{name_of, namespace_of};

/// The label of an EndpointSlice that names its Service.
pub(super) const SLICE_OF: &str = "kubernetes.io/service-name";

/// Namespace and name.
type NamespacedName = (String, String);

/// Services, and what is only known by its slices: the objects of a directory need not be complete.
#[derive(Debug, Default)]
pub(super) struct KnownServices {
    services: BTreeMap<NamespacedName, Service>,
    /// By namespace and name of the slice.
    slices: BTreeMap<(String, String), KnownSlice>,
    /// The names of each service's slices.
    slices_of: BTreeMap<NamespacedName, BTreeSet<String>>,
}

#[derive(Debug)]
struct KnownSlice {
    /// The name of its Service.
    service: String,
    backends: Box<[IpAddr]>,
}

impl KnownServices {
    /// Returns whether it has other addresses than before.
    pub(super) fn apply(&mut self, service: Service, index: &mut ServiceIndex) -> bool {
        let key = (
            namespace_of(&service.metadata.namespace),
            name_of(&service.metadata.name),
        );
        let now = cluster_addresses(&service);
        let before = self.services.insert(key.clone(), service);
        self.look_again(key, index);
        before.map(|before| cluster_addresses(&before)).unwrap_or_default() != now
    }

    /// Returns whether it had addresses.
    pub(super) fn delete(&mut self, namespace: String, name: String, index: &mut ServiceIndex) -> bool {
        let key = (namespace, name);
        let before = self.services.remove(&key);
        self.look_again(key, index);
        before.is_some_and(|before| !cluster_addresses(&before).is_empty())
    }

    pub(super) fn apply_slice(&mut self, slice: &EndpointSlice, index: &mut ServiceIndex) {
        let (namespace, name) = (namespace_of(&slice.metadata.namespace), name_of(&slice.metadata.name));
        let labels = slice.metadata.labels.as_ref();
        let service = labels.and_then(|labels| labels.get(SLICE_OF)).cloned();
        // It may have been another's.
        self.delete_slice(namespace.clone(), name.clone(), index);
        let Some(service) = service else { return };
        let key = (namespace.clone(), service.clone());
        self.slices_of.entry(key.clone()).or_default().insert(name.clone());
        let known = KnownSlice {
            service,
            backends: backends(slice).collect(),
        };
        self.slices.insert((namespace, name), known);
        self.look_again(key, index);
    }

    pub(super) fn delete_slice(&mut self, namespace: String, name: String, index: &mut ServiceIndex) {
        let slice = (namespace, name);
        let Some(gone) = self.slices.remove(&slice) else { return };
        let (namespace, name) = slice;
        let key = (namespace, gone.service);
        if let Some(slices) = self.slices_of.get_mut(&key) {
            slices.remove(&name);
            if slices.is_empty() {
                self.slices_of.remove(&key);
            }
        }
        self.look_again(key, index);
    }

    /// Makes one service of the index anew.
    fn look_again(&self, (namespace, name): NamespacedName, index: &mut ServiceIndex) {
        let key = (namespace, name);
        let (service, slices) = (self.services.get(&key), self.slices_of.get(&key));
        let (namespace, name) = key;
        if service.is_none() && slices.is_none() {
            return index.remove(&namespace, &name);
        }
        let of_slice = |slice: &String| self.slices.get(&(namespace.clone(), slice.clone()));
        let slices = slices.into_iter().flatten().filter_map(of_slice);
        let backends = slices.flat_map(|slice| slice.backends.iter().copied()).collect();
        let selector = service.and_then(|service| service.spec.as_ref()?.selector.clone());
        index.insert(InventoryService {
            labels: service
                .and_then(|service| service.metadata.labels.clone())
                .unwrap_or_default(),
            addresses: service.map(cluster_addresses).unwrap_or_default(),
            selector: selector.filter(|selector| !selector.is_empty()),
            backends,
            namespace,
            name,
        });
    }

    /// Every Service's own addresses.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.services.values().flat_map(cluster_addresses)
    }

    /// The Services, by namespace and name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&NamespacedName, &Service)> {
        self.services.iter()
    }

    /// The DNS Services among `names`, as the addresses that pods ask.
    pub(super) fn dns(&self, names: &[NamespacedName]) -> Vec<SocketAddr> {
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
