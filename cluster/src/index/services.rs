//! The Services, with the backends of their EndpointSlices.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use policy::inventory::{InventoryService, ServiceIndex};

use crate::slim::{SlimEndpointSlice, SlimService};

/// Namespace and name.
type SharedName = (Arc<str>, Arc<str>);

/// Services, and what is only known by its slices: the objects of a directory need not be complete.
#[derive(Debug, Default)]
pub(super) struct KnownServices {
    services: BTreeMap<SharedName, Arc<SlimService>>,
    /// By namespace and name of the slice. They have a Service.
    slices: BTreeMap<SharedName, Arc<SlimEndpointSlice>>,
    /// The names of each service's slices.
    slices_of: BTreeMap<SharedName, BTreeSet<Arc<str>>>,
}

impl KnownServices {
    /// Returns whether it has other addresses than before.
    pub(super) fn apply(&mut self, service: Arc<SlimService>, index: &mut ServiceIndex) -> bool {
        let key = (Arc::clone(&service.namespace), Arc::clone(&service.name));
        let before = self.services.insert(key.clone(), Arc::clone(&service));
        self.look_again(key, index);
        match before {
            Some(before) => before.addresses != service.addresses,
            None => !service.addresses.is_empty(),
        }
    }

    /// Returns whether it had addresses.
    pub(super) fn delete(&mut self, namespace: &str, name: &str, index: &mut ServiceIndex) -> bool {
        let key = (namespace.into(), name.into());
        let before = self.services.remove(&key);
        self.look_again(key, index);
        before.is_some_and(|before| !before.addresses.is_empty())
    }

    pub(super) fn apply_slice(&mut self, slice: Arc<SlimEndpointSlice>, index: &mut ServiceIndex) {
        let key = (Arc::clone(&slice.namespace), Arc::clone(&slice.name));
        let service = slice.service.as_ref();
        let service = service.map(|service| (Arc::clone(&slice.namespace), Arc::clone(service)));
        if let Some(service) = &service {
            let slices = self.slices_of.entry(service.clone()).or_default();
            slices.insert(Arc::clone(&slice.name));
        }
        let before = match service {
            Some(_) => self.slices.insert(key, slice),
            None => self.slices.remove(&key),
        };
        // It may have been another's.
        if let Some(before) = before.filter(|before| service.as_ref().map(|(_, name)| name) != before.service.as_ref())
        {
            self.lose(&before, index);
        }
        if let Some(service) = service {
            self.look_again(service, index);
        }
    }

    pub(super) fn delete_slice(&mut self, namespace: &str, name: &str, index: &mut ServiceIndex) {
        if let Some(gone) = self.slices.remove(&(namespace.into(), name.into())) {
            self.lose(&gone, index);
        }
    }

    /// A slice is not its Service's any more.
    fn lose(&mut self, gone: &SlimEndpointSlice, index: &mut ServiceIndex) {
        let Some(service) = &gone.service else { return };
        let key = (Arc::clone(&gone.namespace), Arc::clone(service));
        if let Some(slices) = self.slices_of.get_mut(&key) {
            slices.remove(&gone.name);
            if slices.is_empty() {
                self.slices_of.remove(&key);
            }
        }
        self.look_again(key, index);
    }

    /// Makes one service of the index anew.
    fn look_again(&self, key: SharedName, index: &mut ServiceIndex) {
        let (service, slices) = (self.services.get(&key), self.slices_of.get(&key));
        let (namespace, name) = key;
        if service.is_none() && slices.is_none() {
            return index.remove(&namespace, &name);
        }
        let of_slice = |slice: &Arc<str>| self.slices.get(&(Arc::clone(&namespace), Arc::clone(slice)));
        let slices = slices.into_iter().flatten().filter_map(of_slice);
        index.insert(InventoryService {
            labels: service.map(|service| service.labels.clone()).unwrap_or_default(),
            addresses: service.map(|service| service.addresses.clone()).unwrap_or_default(),
            selector: service.and_then(|service| service.selector.clone()),
            backends: slices.flat_map(|slice| slice.backends.iter().copied()).collect(),
            namespace: namespace.to_string(),
            name: name.to_string(),
        });
    }

    /// Every Service's own addresses.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.services
            .values()
            .flat_map(|service| service.addresses.iter().copied())
    }

    /// The Services, by namespace and name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&SharedName, &SlimService)> {
        self.services.iter().map(|(key, service)| (key, &**service))
    }

    /// The DNS Services among `names` (namespace, name), as the addresses that pods ask.
    pub(super) fn dns(&self, names: &[(String, String)]) -> Vec<SocketAddr> {
        let known = |(namespace, name): &(String, String)| {
            self.services
                .get(&(Arc::from(namespace.as_str()), Arc::from(name.as_str())))
        };
        let asked = names.iter().filter_map(known).flat_map(|service| {
            let ports = dns_ports(service);
            let at = move |address: &IpAddr| {
                let (address, ports) = (*address, ports.clone());
                ports.into_iter().map(move |port| SocketAddr::new(address, port))
            };
            service.addresses.iter().flat_map(at)
        });
        asked.collect()
    }
}

/// The ports that a DNS Service is asked at: those named `dns…` (as `kube-dns` names them), else
/// all of them.
fn dns_ports(service: &SlimService) -> BTreeSet<u16> {
    let is_named = |name: &str| name.starts_with("dns");
    let named = service
        .ports
        .iter()
        .filter(|port| port.name.as_deref().is_some_and(is_named));
    let named: BTreeSet<u16> = named.map(|port| port.port).collect();
    match named.is_empty() {
        true => service.ports.iter().map(|port| port.port).collect(),
        false => named,
    }
}
