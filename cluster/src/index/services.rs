//! The Services, with the backends of their EndpointSlices.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use policy::inventory::{InventoryService, ServiceIndex};

use crate::slim::{SlimEndpointSlice, SlimService, SlimServiceImport};

use super::frontends::{self, ServiceFrontend};

/// Namespace and name.
pub(super) type SharedName = (Arc<str>, Arc<str>);

/// Services, and what is only known by its slices: the objects of a directory need not be complete.
#[derive(Debug, Default)]
pub(super) struct KnownServices {
    services: BTreeMap<SharedName, Arc<SlimService>>,
    /// What other clusters export. It is one with the Service of its name.
    imports: BTreeMap<SharedName, Arc<SlimServiceImport>>,
    /// Where the exporters have it themselves, as far as they are known.
    exported: BTreeMap<SharedName, BTreeSet<IpAddr>>,
    /// By namespace and name of the slice. They have a Service or a ServiceImport.
    slices: BTreeMap<SharedName, Arc<SlimEndpointSlice>>,
    /// The names of each service's slices.
    slices_of: SlicesOf,
    /// The same of ServiceImports.
    slices_of_imports: SlicesOf,
    /// How often something of this changed.
    revision: u64,
}

type SlicesOf = BTreeMap<SharedName, BTreeSet<Arc<str>>>;

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

    /// Takes in a ServiceImport. Returns whether it has other addresses than before.
    pub(super) fn apply_import(&mut self, import: Arc<SlimServiceImport>, index: &mut ServiceIndex) -> bool {
        let key = (Arc::clone(&import.namespace), Arc::clone(&import.name));
        let before = self.imports.insert(key.clone(), Arc::clone(&import));
        self.look_again(key, index);
        before.map(|before| before.addresses.clone()).unwrap_or_default() != import.addresses
    }

    /// Returns whether it had addresses.
    pub(super) fn delete_import(&mut self, namespace: &str, name: &str, index: &mut ServiceIndex) -> bool {
        let key = (namespace.into(), name.into());
        let before = self.imports.remove(&key);
        self.exported.remove(&key);
        self.look_again(key, index);
        before.is_some_and(|before| !before.addresses.is_empty())
    }

    /// A ServiceImport.
    pub(super) fn import(&self, key: &SharedName) -> Option<&SlimServiceImport> {
        self.imports.get(key).map(Arc::as_ref)
    }

    /// The names of every ServiceImport.
    pub(super) fn imports(&self) -> impl Iterator<Item = &SharedName> {
        self.imports.keys()
    }

    /// Takes in where the exporters of a ServiceImport have it.
    pub(super) fn export(&mut self, key: SharedName, backends: BTreeSet<IpAddr>, index: &mut ServiceIndex) {
        self.exported.insert(key.clone(), backends);
        self.look_again(key, index);
    }

    pub(super) fn apply_slice(&mut self, slice: Arc<SlimEndpointSlice>, index: &mut ServiceIndex) {
        self.delete_slice(&Arc::clone(&slice.namespace), &Arc::clone(&slice.name), index);
        if slice.service.is_none() && slice.import.is_none() {
            return;
        }
        let of = |owner: &Option<Arc<str>>| Some((Arc::clone(&slice.namespace), Arc::clone(owner.as_ref()?)));
        let owners = [of(&slice.service), of(&slice.import)];
        let each = [&mut self.slices_of, &mut self.slices_of_imports];
        for (slices_of, owner) in each.into_iter().zip(&owners) {
            if let Some(owner) = owner {
                let slices = slices_of.entry(owner.clone()).or_default();
                slices.insert(Arc::clone(&slice.name));
            }
        }
        let key = (Arc::clone(&slice.namespace), Arc::clone(&slice.name));
        self.slices.insert(key, slice);
        for owner in owners.into_iter().flatten() {
            self.look_again(owner, index);
        }
    }

    pub(super) fn delete_slice(&mut self, namespace: &str, name: &str, index: &mut ServiceIndex) {
        let Some(gone) = self.slices.remove(&(namespace.into(), name.into())) else {
            return;
        };
        let each = [&mut self.slices_of, &mut self.slices_of_imports];
        let mut owners = Vec::new();
        for (slices_of, owner) in each.into_iter().zip([&gone.service, &gone.import]) {
            let Some(owner) = owner else { continue };
            let key = (Arc::clone(&gone.namespace), Arc::clone(owner));
            if let Some(slices) = slices_of.get_mut(&key) {
                slices.remove(&gone.name);
                if slices.is_empty() {
                    slices_of.remove(&key);
                }
            }
            owners.push(key);
        }
        for owner in owners {
            self.look_again(owner, index);
        }
    }

    /// The Service that a slice is of.
    pub(super) fn services_of(&self, namespace: &str, slice: &str) -> Option<SharedName> {
        let slice = self.slices.get(&(namespace.into(), slice.into()))?;
        Some((Arc::clone(&slice.namespace), Arc::clone(slice.service.as_ref()?)))
    }

    /// Makes one service of the index anew.
    fn look_again(&mut self, key: SharedName, index: &mut ServiceIndex) {
        self.revision += 1;
        let (service, import) = (self.services.get(&key), self.imports.get(&key));
        let slices = self.slices_of.get(&key);
        // Without its object nothing says that it is imported.
        let of_import = import.and_then(|_| self.slices_of_imports.get(&key));
        let exported = import.and_then(|_| self.exported.get(&key));
        let (namespace, name) = key;
        if service.is_none() && import.is_none() && slices.is_none() {
            return index.remove(&namespace, &name);
        }
        let of_slice = |slice: &Arc<str>| self.slices.get(&(Arc::clone(&namespace), Arc::clone(slice)));
        let slices = slices.into_iter().chain(of_import).flatten().filter_map(of_slice);
        let backends = slices.flat_map(|slice| slice.backends.iter().copied());
        let addresses = service.map(|service| &service.addresses);
        let addresses = addresses.into_iter().chain(import.map(|import| &import.addresses));
        let labels = service.map(|service| &service.labels);
        index.insert(InventoryService {
            labels: labels
                .or(import.map(|import| &import.labels))
                .cloned()
                .unwrap_or_default(),
            addresses: addresses.flatten().copied().collect(),
            selector: service.and_then(|service| service.selector.clone()),
            backends: backends.chain(exported.into_iter().flatten().copied()).collect(),
            namespace: namespace.to_string(),
            name: name.to_string(),
        });
    }

    /// Every Service's own addresses, and those of ServiceImports.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let services = self.services.values().map(|service| &service.addresses);
        let imports = self.imports.values().map(|import| &import.addresses);
        services.chain(imports).flatten().copied()
    }

    /// The Services, by namespace and name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&SharedName, &SlimService)> {
        self.services.iter().map(|(key, service)| (key, &**service))
    }

    /// Where they are reached over TCP, those with backends.
    pub(super) fn frontends(&self) -> impl Iterator<Item = ServiceFrontend> {
        self.services.iter().flat_map(|(key, service)| {
            let slices = self.slices_of.get(key).into_iter().flatten();
            let slice = |name: &Arc<str>| self.slices.get(&(Arc::clone(&key.0), Arc::clone(name)));
            let slices: Vec<&SlimEndpointSlice> = slices.filter_map(slice).map(Arc::as_ref).collect();
            frontends::of_service(service, &slices).collect::<Vec<_>>()
        })
    }

    /// Another number whenever one of them, or a slice, is another.
    pub(super) fn revision(&self) -> u64 {
        self.revision
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
