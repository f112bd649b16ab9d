//! The pods of a cluster, found by their identities and by their addresses.
//!
//! An index is persistent: a clone is made at once and shares its parts with the original, and what
//! differs between the two is found without a look at what they share. So a plan keeps the index
//! that it was made of, and the next one is told by the difference what it has to compute again.

use std::net::IpAddr;
use std::sync::Arc;

use imbl::ordmap::DiffItem;
use imbl::{OrdMap, OrdSet};
use smallvec::SmallVec;

use crate::labels::{LabelSelector, Labels};
use crate::ports::Protocol;
use crate::special_keys as keys;

/// A pod's addresses, ordered: one of each family, most often.
pub type PodAddresses = SmallVec<[IpAddr; 2]>;

/// What rules can tell pods apart by. Those that agree in it share one.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodIdentity {
    /// The labels and the special keys, as [`endpoint::labels`](crate::endpoint::labels) makes
    /// them.
    pub labels: Labels,
    /// The ports that the containers name.
    pub ports: Vec<ContainerPort>,
}

/// A port that a container names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerPort {
    /// Its name.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number.
    pub port: u16,
}

/// A pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InventoryPod {
    identity: Arc<PodIdentity>,
    addresses: PodAddresses,
}

/// The number of a pod in an index. An index gives none twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodNumber(u64);

/// The number of an identity in an index. An index gives none twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdentityNumber(u64);

/// The pods of a cluster. The smallest number is the pod that came first.
#[derive(Debug, Clone, Default)]
pub struct PodIndex {
    pods: OrdMap<PodNumber, IndexedPod>,
    by_address: OrdSet<(IpAddr, PodNumber)>,
    identities: OrdMap<IdentityNumber, Arc<PodIdentity>>,
    numbers: OrdMap<Arc<PodIdentity>, IdentityNumber>,
    by_namespace: OrdSet<(Arc<str>, IdentityNumber)>,
    by_identity: OrdSet<(IdentityNumber, PodNumber)>,
    last: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct IndexedPod {
    identity: IdentityNumber,
    pod: Arc<InventoryPod>,
}

/// What becomes of a pod, or of an identity, from one index to another.
#[derive(Debug)]
pub(crate) struct IndexChange<T> {
    /// As it was; `None` where it has come.
    pub(crate) before: Option<T>,
    /// As it is; `None` where it has gone.
    pub(crate) now: Option<T>,
}

impl PodIdentity {
    /// The namespace of these pods.
    pub fn namespace(&self) -> &str {
        self.labels.get(keys::NAMESPACE).map_or("", String::as_str)
    }
}

impl InventoryPod {
    /// A pod of an identity that no other pod shares yet.
    pub fn new(labels: Labels, addresses: impl IntoIterator<Item = IpAddr>, ports: Vec<ContainerPort>) -> Self {
        Self::of(Arc::new(PodIdentity { labels, ports }), addresses)
    }

    /// A pod of this identity.
    pub fn of(identity: Arc<PodIdentity>, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut addresses: PodAddresses = addresses.into_iter().collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses.shrink_to_fit();
        Self { identity, addresses }
    }

    /// What it shares with others.
    pub fn identity(&self) -> &Arc<PodIdentity> {
        &self.identity
    }

    /// Its labels and the special keys.
    pub fn labels(&self) -> &Labels {
        &self.identity.labels
    }

    /// The ports that its containers name.
    pub fn ports(&self) -> &[ContainerPort] {
        &self.identity.ports
    }

    /// Its addresses, both families, ordered.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }
}

impl PodIndex {
    /// Adds a pod.
    pub fn insert(&mut self, pod: InventoryPod) -> PodNumber {
        self.last += 1;
        let number = PodNumber(self.last);
        self.put(number, pod);
        number
    }

    /// Puts another pod in the place of one; does nothing where the two are equal.
    pub fn replace(&mut self, number: PodNumber, pod: InventoryPod) {
        if self.pods.get(&number).is_some_and(|known| *known.pod == pod) {
            return;
        }
        // The identity stays known where the pod keeps it.
        let before = self.pods.get(&number).cloned();
        self.put(number, pod);
        let Some(before) = before else { return };
        let Some(now) = self.pods.get(&number) else { return };
        let (identity, pod) = (now.identity, Arc::clone(&now.pod));
        for address in before.pod.addresses() {
            if !pod.addresses.contains(address) {
                self.by_address.remove(&(*address, number));
            }
        }
        if identity != before.identity {
            self.leave(before.identity, number);
        }
    }

    /// Removes a pod.
    pub fn remove(&mut self, number: PodNumber) {
        let Some(IndexedPod { identity, pod }) = self.pods.remove(&number) else {
            return;
        };
        for address in pod.addresses() {
            self.by_address.remove(&(*address, number));
        }
        self.leave(identity, number);
    }

    fn put(&mut self, number: PodNumber, mut pod: InventoryPod) {
        let identity = self.intern(&mut pod.identity);
        self.by_address
            .extend(pod.addresses.iter().map(|address| (*address, number)));
        self.by_identity.insert((identity, number));
        let pod = Arc::new(pod);
        self.pods.insert(number, IndexedPod { identity, pod });
    }

    /// The number of an identity, which becomes the one that is known already.
    fn intern(&mut self, identity: &mut Arc<PodIdentity>) -> IdentityNumber {
        if let Some((known, number)) = self.numbers.get_key_value(&*identity) {
            *identity = Arc::clone(known);
            return *number;
        }
        self.last += 1;
        let number = IdentityNumber(self.last);
        self.identities.insert(number, Arc::clone(identity));
        self.by_namespace.insert((identity.namespace().into(), number));
        self.numbers.insert(Arc::clone(identity), number);
        number
    }

    /// Forgets an identity that no pod has any more.
    fn leave(&mut self, identity: IdentityNumber, pod: PodNumber) {
        self.by_identity.remove(&(identity, pod));
        if self.numbers_of(identity).next().is_none()
            && let Some(gone) = self.identities.remove(&identity)
        {
            self.by_namespace.remove(&(gone.namespace().into(), identity));
            self.numbers.remove(&gone);
        }
    }

    fn numbers_of(&self, identity: IdentityNumber) -> impl Iterator<Item = PodNumber> {
        let all = (identity, PodNumber(0))..=(identity, PodNumber(u64::MAX));
        self.by_identity.range(all).map(|(_, pod)| *pod)
    }

    /// Every pod, the first that came first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<InventoryPod>> {
        self.pods.values().map(|known| &known.pod)
    }

    /// How many pods there are.
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// A pod.
    pub fn get(&self, number: PodNumber) -> Option<&Arc<InventoryPod>> {
        self.pods.get(&number).map(|known| &known.pod)
    }

    /// The pods that have an address.
    pub fn at(&self, address: IpAddr) -> impl Iterator<Item = &Arc<InventoryPod>> {
        self.indexed_at(address).map(|known| &known.pod)
    }

    /// The pods that have an address, with the numbers of their identities.
    pub(crate) fn identified_at(&self, address: IpAddr) -> impl Iterator<Item = (IdentityNumber, &Arc<InventoryPod>)> {
        self.indexed_at(address).map(|known| (known.identity, &known.pod))
    }

    fn indexed_at(&self, address: IpAddr) -> impl Iterator<Item = &IndexedPod> {
        let all = (address, PodNumber(0))..=(address, PodNumber(u64::MAX));
        let numbers = self.by_address.range(all).map(|(_, number)| number);
        numbers.filter_map(|number| self.pods.get(number))
    }

    /// The pods of an identity.
    pub(crate) fn of_identity(&self, identity: IdentityNumber) -> impl Iterator<Item = &Arc<InventoryPod>> {
        self.numbers_of(identity).filter_map(|number| self.get(number))
    }

    /// The pods that a selector matches. It takes a look at each identity of the namespace that the
    /// selector names, or of all.
    pub fn selected<'a>(&'a self, selector: &LabelSelector) -> impl Iterator<Item = &'a Arc<InventoryPod>> {
        self.selected_identities(selector)
            .flat_map(|number| self.of_identity(number))
    }

    /// The identities that a selector matches; takes as many looks as [`selected`](Self::selected).
    pub(crate) fn selected_identities(&self, selector: &LabelSelector) -> impl Iterator<Item = IdentityNumber> {
        let everywhere = selector.namespace().is_none();
        let all = everywhere.then(|| self.identities.iter().map(|(number, identity)| (*number, identity)));
        let of_one = selector.namespace().map(|namespace| self.identities_of(namespace));
        let candidates = all.into_iter().flatten().chain(of_one.into_iter().flatten());
        candidates
            .filter(|(_, identity)| selector.matches(&identity.labels))
            .map(|(number, _)| number)
    }

    /// The identities of a namespace.
    pub(crate) fn identities_of(&self, namespace: &str) -> impl Iterator<Item = (IdentityNumber, &Arc<PodIdentity>)> {
        let namespace: Arc<str> = namespace.into();
        let all = (Arc::clone(&namespace), IdentityNumber(0))..=(namespace, IdentityNumber(u64::MAX));
        let numbers = self.by_namespace.range(all).map(|(_, number)| *number);
        numbers.filter_map(|number| Some((number, self.identities.get(&number)?)))
    }

    /// The pods that differ in `now`. It takes a look at what the two do not share.
    pub(crate) fn changes<'a>(&'a self, now: &'a Self) -> impl Iterator<Item = IndexChange<ChangedPod<'a>>> {
        let of = |known: &'a IndexedPod| ChangedPod {
            identity: known.identity,
            pod: &known.pod,
        };
        let changes = self.pods.diff(&now.pods).map(IndexChange::of);
        changes.map(move |(_, IndexChange { before, now })| IndexChange {
            before: before.map(of),
            now: now.map(of),
        })
    }

    /// The identities that differ in `now`. One may have another's number, where `now` was not made
    /// of `self`.
    pub(crate) fn identity_changes<'a>(
        &'a self,
        now: &'a Self,
    ) -> impl Iterator<Item = (IdentityNumber, IndexChange<&'a Arc<PodIdentity>>)> {
        self.identities.diff(&now.identities).map(|item| {
            let (number, change) = IndexChange::of(item);
            (*number, change)
        })
    }
}

impl FromIterator<InventoryPod> for PodIndex {
    fn from_iter<I: IntoIterator<Item = InventoryPod>>(pods: I) -> Self {
        let mut index = Self::default();
        for pod in pods {
            index.insert(pod);
        }
        index
    }
}

/// A pod of one index that another does not have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChangedPod<'a> {
    pub(crate) identity: IdentityNumber,
    pub(crate) pod: &'a Arc<InventoryPod>,
}

impl<'a, V> IndexChange<&'a V> {
    fn of<K>(item: DiffItem<'a, 'a, K, V>) -> (&'a K, Self) {
        match item {
            DiffItem::Add(key, now) => (
                key,
                Self {
                    before: None,
                    now: Some(now),
                },
            ),
            DiffItem::Remove(key, before) => (
                key,
                Self {
                    before: Some(before),
                    now: None,
                },
            ),
            DiffItem::Update { old, new } => (
                new.0,
                Self {
                    before: Some(old.1),
                    now: Some(new.1),
                },
            ),
        }
    }
}
