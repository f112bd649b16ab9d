//! The Pods, of which hundreds of thousands may be known.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use policy::inventory::{IndexedPod, InventoryPod, PodIndex, PodNumber};
use policy::labels::Labels;
use policy::{Endpoint, EndpointId};
use smallvec::SmallVec;

use crate::slim::SlimPod;

use super::identities::Identities;

/// Addresses that a change has given to a pod or taken from it.
pub(super) type MovedAddresses = SmallVec<[IpAddr; 4]>;

/// The Pods. What rules may know of those that have addresses stands in a [`PodIndex`], which
/// belongs to the inventory.
#[derive(Debug)]
pub(super) struct KnownPods {
    /// The node whose Pods are local; of another cluster none is.
    node: Option<Arc<str>>,
    pods: BTreeMap<NamedPod, PodPlace>,
    local: BTreeSet<NamedPod>,
    identities: Identities,
    /// Made when somebody asks.
    endpoints: OnceLock<Arc<[Endpoint]>>,
}

/// A Pod, found by its namespace and name.
#[derive(Debug, Clone)]
struct NamedPod(Arc<SlimPod>);

/// Where a Pod's addresses are.
#[derive(Debug, Clone, Copy)]
enum PodPlace {
    /// On the host's network: they are the node's.
    Host,
    /// In the index.
    Index(PodNumber),
    /// Left out of the index: somebody else may be there.
    Withheld,
    /// It has none, yet or any more.
    Nowhere,
}

impl KnownPods {
    /// Those of a cluster of this name. Those of `node` are local.
    pub(super) fn new(cluster: Arc<str>, node: Option<&str>) -> Self {
        Self {
            node: node.map(Arc::from),
            pods: BTreeMap::new(),
            local: BTreeSet::new(),
            identities: Identities::new(cluster),
            endpoints: OnceLock::new(),
        }
    }

    /// Takes in a Pod, whose namespace has these labels. `is_withheld` says of an address that no
    /// Pod there may be in the index.
    ///
    /// Of the addresses that it returns, which the Pod had and has, those are among them at which
    /// it was and is withheld.
    pub(super) fn apply(
        &mut self,
        pod: Arc<SlimPod>,
        of_namespace: &Labels,
        index: &mut PodIndex,
        is_withheld: impl Fn(&IpAddr) -> bool,
    ) -> MovedAddresses {
        let key = NamedPod(pod);
        let before = self.pods.remove_entry(&key);
        let mut moved = MovedAddresses::new();
        if let Some((NamedPod(before), PodPlace::Withheld)) = &before {
            moved.extend_from_slice(before.addresses.as_slice());
        }
        let known = before.and_then(|(_, place)| place.number());
        moved.extend(addresses_in(index, known));
        let pod = &key.0;
        let mut in_index = || InventoryPod::at(self.identities.of(&pod.template, of_namespace), pod.addresses.clone());
        let place = match known {
            _ if pod.template.on_host => PodPlace::Host,
            _ if pod.addresses.as_slice().is_empty() => PodPlace::Nowhere,
            _ if pod.addresses.as_slice().iter().any(is_withheld) => PodPlace::Withheld,
            Some(number) => {
                index.replace(number, in_index());
                PodPlace::Index(number)
            }
            None => PodPlace::Index(index.insert(in_index())),
        };
        let number = place.number();
        if let (Some(gone), None) = (known, number) {
            index.remove(gone);
        }
        match place {
            PodPlace::Withheld => moved.extend_from_slice(pod.addresses.as_slice()),
            _ => moved.extend(addresses_in(index, number)),
        }
        let was_local = self.local.remove(&key);
        let is_local = self.is_local(pod);
        if was_local || is_local {
            self.endpoints.take();
        }
        if is_local {
            self.local.insert(key.clone());
        }
        self.pods.insert(key, place);
        moved
    }

    pub(super) fn delete(&mut self, namespace: &str, name: &str, index: &mut PodIndex) -> MovedAddresses {
        let key: &dyn NamespacedName = &(namespace, name);
        let Some((NamedPod(pod), gone)) = self.pods.remove_entry(key) else {
            return MovedAddresses::new();
        };
        if self.local.remove(key) {
            self.endpoints.take();
        }
        let number = gone.number();
        let moved = match gone {
            PodPlace::Withheld => pod.addresses.as_slice().into(),
            _ => addresses_in(index, number),
        };
        if let Some(number) = number {
            index.remove(number);
        }
        moved
    }

    /// Takes in the labels of a namespace, which are part of its pods'.
    pub(super) fn relabel(&mut self, namespace: &str, of_namespace: &Labels, index: &mut PodIndex) {
        self.identities.relabel(namespace);
        let first: &dyn NamespacedName = &(namespace, "");
        let pods = self
            .pods
            .range::<dyn NamespacedName, _>((Bound::Included(first), Bound::Unbounded));
        for (NamedPod(pod), place) in pods.take_while(|(NamedPod(pod), _)| &**pod.namespace() == namespace) {
            let Some(number) = place.number() else { continue };
            let identity = self.identities.of(&pod.template, of_namespace);
            index.replace(number, InventoryPod::at(identity, pod.addresses.clone()));
            if self.node.as_ref().is_some_and(|node| pod.is_on(node)) {
                self.endpoints.take();
            }
        }
    }

    fn is_local(&self, pod: &SlimPod) -> bool {
        self.node.as_ref().is_some_and(|node| pod.is_on(node))
    }

    /// Every Pod that may be in the index. It takes a look at each.
    pub(super) fn all(&self) -> Vec<Arc<SlimPod>> {
        let placed = self.pods.iter().filter(|(_, place)| !matches!(place, PodPlace::Host));
        placed.map(|(NamedPod(pod), _)| Arc::clone(pod)).collect()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.pods.len()
    }

    /// See [`Cluster::endpoints`](super::Cluster::endpoints).
    pub(super) fn endpoints(&self, index: &PodIndex) -> Arc<[Endpoint]> {
        let endpoints = self.endpoints.get_or_init(|| {
            let to_stay = self.local(index).filter(|(NamedPod(pod), _)| !pod.being_deleted);
            let taken: BTreeSet<IpAddr> = to_stay.flat_map(|(_, pod)| pod.addresses()).copied().collect();
            let endpoints = self.local(index).map(|(key, pod)| {
                let mut endpoint = key.endpoint(pod);
                if key.0.being_deleted {
                    endpoint.addresses.retain(|address| !taken.contains(address));
                }
                endpoint
            });
            endpoints.filter(|endpoint| !endpoint.addresses.is_empty()).collect()
        });
        Arc::clone(endpoints)
    }

    fn local<'a>(&'a self, index: &'a PodIndex) -> impl Iterator<Item = (&'a NamedPod, IndexedPod<'a>)> {
        self.local.iter().filter_map(|key| {
            let place = self.pods.get(key)?;
            Some((key, index.get(place.number()?)?))
        })
    }

    /// A workload of any node, with the node that it names.
    pub(super) fn endpoint(&self, id: &EndpointId, index: &PodIndex) -> Option<(Endpoint, Option<String>)> {
        let key: &dyn NamespacedName = &(id.namespace.as_str(), id.name.as_str());
        let (key, place) = self.pods.get_key_value(key)?;
        let pod = index.get(place.number()?)?;
        Some((key.endpoint(pod), key.0.node.as_deref().map(str::to_owned)))
    }

    /// Every address of a local Pod.
    pub(super) fn local_addresses<'a>(&'a self, index: &'a PodIndex) -> impl Iterator<Item = IpAddr> + 'a {
        self.local(index).flat_map(|(_, pod)| pod.addresses()).copied()
    }

    /// Every Pod, as `namespace/name`.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        self.pods
            .keys()
            .map(|NamedPod(pod)| format!("{}/{}", pod.namespace(), pod.name))
    }

    /// Every Pod that is not on the host's network, with addresses or without, in namespaces with
    /// these labels.
    pub(super) fn inventory<'a>(&self, index: &PodIndex, labels_of: impl Fn(&str) -> &'a Labels) -> PodIndex {
        let mut identities = Identities::new(self.identities.cluster());
        let known = self.pods.iter().filter_map(|(NamedPod(pod), place)| match place {
            PodPlace::Host | PodPlace::Withheld => None,
            PodPlace::Index(number) => index.get(*number).map(IndexedPod::to_inventory_pod),
            PodPlace::Nowhere => {
                let identity = identities.of(&pod.template, labels_of(pod.namespace()));
                Some(InventoryPod::at(identity, pod.addresses.clone()))
            }
        });
        known.collect()
    }
}

impl NamedPod {
    fn endpoint(&self, pod: IndexedPod<'_>) -> Endpoint {
        Endpoint {
            id: EndpointId {
                namespace: self.0.namespace().to_string(),
                name: self.0.name.to_string(),
            },
            labels: pod.labels().clone(),
            addresses: pod.addresses().iter().copied().collect(),
            ports: pod.ports().to_vec(),
        }
    }
}

impl PodPlace {
    fn number(self) -> Option<PodNumber> {
        match self {
            PodPlace::Index(number) => Some(number),
            PodPlace::Host | PodPlace::Withheld | PodPlace::Nowhere => None,
        }
    }
}

fn addresses_in(index: &PodIndex, pod: Option<PodNumber>) -> MovedAddresses {
    let pod = pod.and_then(|number| index.get(number));
    pod.map_or_else(MovedAddresses::new, |pod| pod.addresses().iter().copied().collect())
}

/// What Pods are ordered and found by, without an object for the search.
trait NamespacedName {
    fn parts(&self) -> (&str, &str);
}

impl NamespacedName for NamedPod {
    fn parts(&self) -> (&str, &str) {
        (self.0.namespace(), &self.0.name)
    }
}

impl NamespacedName for (&str, &str) {
    fn parts(&self) -> (&str, &str) {
        *self
    }
}

impl<'a> Borrow<dyn NamespacedName + 'a> for NamedPod {
    fn borrow(&self) -> &(dyn NamespacedName + 'a) {
        self
    }
}

impl PartialEq for dyn NamespacedName + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for dyn NamespacedName + '_ {}

impl PartialOrd for dyn NamespacedName + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for dyn NamespacedName + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}

impl PartialEq for NamedPod {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for NamedPod {}

impl PartialOrd for NamedPod {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for NamedPod {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}
