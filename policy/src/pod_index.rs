//! The pods of a cluster, found by their identities and by their addresses.
//!
//! An index is persistent: a clone is made at once and shares its parts with the original, and what
//! differs between the two is found without a look at what they share. So a plan keeps the index
//! that it was made of, and the next one is told by the difference what it has to compute again.

use std::net::IpAddr;
use std::sync::Arc;

use imbl::ordmap::DiffItem;
use imbl::{OrdMap, OrdSet};

use crate::labels::{LabelSelector, Labels};
use crate::pod_addresses::PodAddresses;
use crate::ports::Protocol;
use crate::special_keys as keys;

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

/// The number of a pod in an index. An index gives one again when it has given all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodNumber(u32);

/// The number of an identity in an index. An index gives one again when it has given all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdentityNumber(u32);

/// The pods of a cluster. The smallest number is the pod that came first.
///
/// A leaf of these maps is half full where keys come in order, and there are hundreds of thousands
/// of pods: a byte of a key or a value is two in memory.
#[derive(Debug, Clone, Default)]
pub struct PodIndex {
    pods: OrdMap<(PodNumber, IdentityNumber), PodAddresses>,
    /// By a [`digest`] of the address. Pods of other addresses may share it.
    by_address: OrdSet<(u32, PodNumber)>,
    identities: OrdMap<IdentityNumber, Arc<PodIdentity>>,
    numbers: OrdMap<Arc<PodIdentity>, IdentityNumber>,
    by_namespace: OrdSet<(Arc<str>, IdentityNumber)>,
    by_identity: OrdSet<(IdentityNumber, PodNumber)>,
    last: u32,
}

/// A pod of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexedPod<'a> {
    number: IdentityNumber,
    identity: &'a Arc<PodIdentity>,
    addresses: &'a PodAddresses,
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
        Self::at(identity, addresses.into_iter().collect())
    }

    /// A pod of this identity with these addresses.
    pub fn at(identity: Arc<PodIdentity>, addresses: PodAddresses) -> Self {
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
        self.addresses.as_slice()
    }
}

impl<'a> IndexedPod<'a> {
    /// The number of what it shares with others.
    pub(crate) fn identity_number(self) -> IdentityNumber {
        self.number
    }

    /// What it shares with others.
    pub fn identity(self) -> &'a Arc<PodIdentity> {
        self.identity
    }

    /// Its labels and the special keys.
    pub fn labels(self) -> &'a Labels {
        &self.identity.labels
    }

    /// The ports that its containers name.
    pub fn ports(self) -> &'a [ContainerPort] {
        &self.identity.ports
    }

    /// Its addresses, both families, ordered.
    pub fn addresses(self) -> &'a [IpAddr] {
        self.addresses.as_slice()
    }

    /// The pod without its index.
    pub fn to_inventory_pod(self) -> InventoryPod {
        InventoryPod {
            identity: Arc::clone(self.identity),
            addresses: self.addresses.clone(),
        }
    }
}

impl PodIndex {
    /// Adds a pod.
    pub fn insert(&mut self, pod: InventoryPod) -> PodNumber {
        let mut number = PodNumber(self.next_number());
        while self.get(number).is_some() {
            number = PodNumber(self.next_number());
        }
        self.put(number, pod);
        number
    }

    /// Puts another pod in the place of one; does nothing where the two are equal.
    pub fn replace(&mut self, number: PodNumber, pod: InventoryPod) {
        let known = self.get(number);
        if known.is_some_and(|known| known.addresses == &pod.addresses && *known.identity == pod.identity) {
            return;
        }
        let before = known.map(|known| (known.number, known.addresses.clone()));
        // The identity stays known where the pod keeps it.
        let kept: Vec<u32> = pod.addresses().iter().map(digest).collect();
        let now = self.put(number, pod);
        let Some((identity, addresses)) = before else { return };
        for digest in addresses.as_slice().iter().map(digest) {
            if !kept.contains(&digest) {
                self.by_address.remove(&(digest, number));
            }
        }
        if now != identity {
            self.pods.remove(&(number, identity));
            self.leave(identity, number);
        }
    }

    /// Removes a pod.
    pub fn remove(&mut self, number: PodNumber) {
        let Some(identity) = self.get(number).map(IndexedPod::identity_number) else {
            return;
        };
        let addresses = self.pods.remove(&(number, identity)).unwrap_or_default();
        for address in addresses.as_slice() {
            self.by_address.remove(&(digest(address), number));
        }
        self.leave(identity, number);
    }

    fn put(&mut self, number: PodNumber, pod: InventoryPod) -> IdentityNumber {
        let identity = self.intern(pod.identity);
        self.by_address
            .extend(pod.addresses.as_slice().iter().map(|address| (digest(address), number)));
        self.by_identity.insert((identity, number));
        self.pods.insert((number, identity), pod.addresses);
        identity
    }

    fn next_number(&mut self) -> u32 {
        self.last = self.last.wrapping_add(1);
        self.last
    }

    /// The number of an identity.
    fn intern(&mut self, identity: Arc<PodIdentity>) -> IdentityNumber {
        if let Some(number) = self.numbers.get(&identity) {
            return *number;
        }
        let mut number = IdentityNumber(self.next_number());
        while self.identities.contains_key(&number) {
            number = IdentityNumber(self.next_number());
        }
        self.identities.insert(number, Arc::clone(&identity));
        self.by_namespace.insert((identity.namespace().into(), number));
        self.numbers.insert(identity, number);
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
        let all = (identity, PodNumber(0))..=(identity, PodNumber(u32::MAX));
        self.by_identity.range(all).map(|(_, pod)| *pod)
    }

    /// Every pod, the first that came first.
    pub fn iter(&self) -> impl Iterator<Item = IndexedPod<'_>> {
        self.pods
            .iter()
            .filter_map(|((_, identity), addresses)| self.view(*identity, addresses))
    }

    fn view<'a>(&'a self, number: IdentityNumber, addresses: &'a PodAddresses) -> Option<IndexedPod<'a>> {
        Some(IndexedPod {
            number,
            identity: self.identities.get(&number)?,
            addresses,
        })
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
    pub fn get(&self, number: PodNumber) -> Option<IndexedPod<'_>> {
        let all = (number, IdentityNumber(0))..=(number, IdentityNumber(u32::MAX));
        let ((_, identity), addresses) = self.pods.range(all).next()?;
        self.view(*identity, addresses)
    }

    /// The pods that have an address.
    pub fn at(&self, address: IpAddr) -> impl Iterator<Item = IndexedPod<'_>> {
        let digest = digest(&address);
        let all = (digest, PodNumber(0))..=(digest, PodNumber(u32::MAX));
        let numbers = self.by_address.range(all).map(|(_, number)| number);
        let pods = numbers.filter_map(|number| self.get(*number));
        pods.filter(move |pod| pod.addresses().contains(&address))
    }

    /// The pods of an identity.
    pub(crate) fn of_identity(&self, identity: IdentityNumber) -> impl Iterator<Item = IndexedPod<'_>> {
        let known = self.identities.get(&identity);
        let pods = self.numbers_of(identity);
        pods.filter_map(move |pod| {
            Some(IndexedPod {
                number: identity,
                identity: known?,
                addresses: self.pods.get(&(pod, identity))?,
            })
        })
    }

    /// The pods that a selector matches. It takes a look at each identity of the namespace that the
    /// selector names, or of all.
    pub fn selected<'a>(&'a self, selector: &LabelSelector) -> impl Iterator<Item = IndexedPod<'a>> {
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
        let all = (Arc::clone(&namespace), IdentityNumber(0))..=(namespace, IdentityNumber(u32::MAX));
        let numbers = self.by_namespace.range(all).map(|(_, number)| *number);
        numbers.filter_map(|number| Some((number, self.identities.get(&number)?)))
    }

    /// The pods that differ in `now`: one of another identity has gone and come. It takes a look at
    /// what the two do not share.
    pub(crate) fn changes<'a>(&'a self, now: &'a Self) -> impl Iterator<Item = IndexChange<IndexedPod<'a>>> {
        let changes = self.pods.diff(&now.pods).map(IndexChange::of);
        let moved = changes.map(move |((_, identity), change)| IndexChange {
            before: change.before.and_then(|addresses| self.view(*identity, addresses)),
            now: change.now.and_then(|addresses| now.view(*identity, addresses)),
        });
        // Where `now` was not made of `self`, pods and identities may have others' numbers.
        let renumbered = self
            .identity_changes(now)
            .filter(|(_, change)| change.before.is_some() && change.now.is_some());
        let renumbered = renumbered.flat_map(move |(number, _)| {
            let before = self.of_identity(number).map(|pod| (Some(pod), None));
            before.chain(now.of_identity(number).map(|pod| (None, Some(pod))))
        });
        moved.chain(renumbered.map(|(before, now)| IndexChange { before, now }))
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

/// What an address is found by. Of IPv4 no two share one.
fn digest(address: &IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            let words = (0..4).map(|word| (bits >> (32 * word)) as u32);
            words.fold(0, |digest: u32, word| {
                (digest.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b1)
            })
        }
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
