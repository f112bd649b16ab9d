//! The services of a cluster, found by their namespaces and names. Persistent, as the
//! [pods](crate::pod_index) are.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use crate::labels::Labels;
use crate::peer_selector::ServiceSelector;
use crate::pod_index::PodIdentity;

/// The namespace and name of the API server's service.
const API_SERVER: (&str, &str) = ("default", "kubernetes");

/// A Service, with the addresses of its backends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InventoryService {
    /// The namespace of the Service.
    pub namespace: String,
    /// The name of the Service.
    pub name: String,
    /// Its own labels.
    pub labels: Labels,
    /// The labels of the pods behind it; `None` where its backends are written by hand.
    pub selector: Option<Labels>,
    /// The addresses of its EndpointSlices, ready or not.
    pub backends: BTreeSet<IpAddr>,
    /// Its own addresses inside the cluster.
    pub addresses: BTreeSet<IpAddr>,
}

/// The services of a cluster.
#[derive(Debug, Clone, Default)]
pub struct ServiceIndex {
    services: OrdMap<ServiceKey, Arc<InventoryService>>,
}

/// Namespace and name.
type ServiceKey = (Arc<str>, Arc<str>);

impl InventoryService {
    /// The API server writes this service, and its backends, itself.
    pub(crate) fn is_api_server(&self) -> bool {
        (self.namespace.as_str(), self.name.as_str()) == API_SERVER
    }

    /// Whether pods of an identity stand behind it.
    pub(crate) fn selects(&self, pods: &PodIdentity) -> bool {
        let has = |(key, value): (&String, &String)| pods.labels.get(key) == Some(value);
        pods.namespace() == self.namespace && self.selector.as_ref().is_some_and(|labels| labels.iter().all(has))
    }
}

impl ServiceIndex {
    /// Adds a service, or puts it in the place of the one that has its name.
    pub fn insert(&mut self, service: InventoryService) {
        let key = (service.namespace.as_str().into(), service.name.as_str().into());
        if self.services.get(&key).is_none_or(|known| **known != service) {
            self.services.insert(key, Arc::new(service));
        }
    }

    /// Removes a service.
    pub fn remove(&mut self, namespace: &str, name: &str) {
        self.services.remove(&(Arc::from(namespace), Arc::from(name)));
    }

    /// Every service, by namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = &InventoryService> {
        self.services.values().map(Arc::as_ref)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// A service.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&InventoryService> {
        let service = self.services.get(&(Arc::from(namespace), Arc::from(name)))?;
        Some(service)
    }

    /// The one that the API server stands behind.
    pub(crate) fn api_server(&self) -> Option<&InventoryService> {
        self.get(API_SERVER.0, API_SERVER.1)
    }

    /// The services of a namespace.
    pub(crate) fn of_namespace(&self, namespace: &str) -> impl Iterator<Item = &InventoryService> {
        let namespace: Arc<str> = namespace.into();
        let first: ServiceKey = (Arc::clone(&namespace), Arc::from(""));
        let later = self.services.range(first..);
        later
            .take_while(move |((of, _), _)| *of == namespace)
            .map(|(_, service)| service.as_ref())
    }

    /// The services that a selector selects. It takes a look at those of the namespace that the
    /// selector names, or at all.
    pub(crate) fn selected<'a>(
        &'a self,
        selector: &'a ServiceSelector,
    ) -> impl Iterator<Item = &'a InventoryService> + 'a {
        let of_one = selector
            .namespace
            .as_deref()
            .map(|namespace| self.of_namespace(namespace));
        let all = selector.namespace.is_none().then(|| self.iter());
        let candidates = of_one.into_iter().flatten().chain(all.into_iter().flatten());
        candidates.filter(|service| selector.matches(service))
    }

    /// The services that differ in `now`, as they are here and as they are there.
    pub(crate) fn changes<'a>(&'a self, now: &'a Self) -> impl Iterator<Item = &'a InventoryService> {
        let changes = self.services.diff(&now.services);
        let both = changes.map(|item| match item {
            DiffItem::Add(_, now) => [Some(now), None],
            DiffItem::Remove(_, before) => [Some(before), None],
            DiffItem::Update { old, new } => [Some(old.1), Some(new.1)],
        });
        both.flatten().flatten().map(Arc::as_ref)
    }
}

impl FromIterator<InventoryService> for ServiceIndex {
    fn from_iter<I: IntoIterator<Item = InventoryService>>(services: I) -> Self {
        let mut index = Self::default();
        for service in services {
            index.insert(service);
        }
        index
    }
}
