//! One set of tiers, with the addresses that its rules about objects mean.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use enforcer::{Element, layout};
use policy::address::ZoneMap;
use policy::classifier::{AddressContext, Classifier, ClassifierEntry, RuleIndex};
use policy::membership::{Membership, PeerMembers};
use policy::{PortSet, ProgramId, Tiers};

/// Tiers, ready to say what an address opens or closes. What a program enforces is one; so is what
/// it audits.
#[derive(Debug, Clone)]
pub struct EvaluatedTiers {
    /// That of the tiers: its sets are named by it.
    pub id: ProgramId,
    /// The classifier of the tiers.
    pub classifier: Arc<Classifier>,
    /// The elements of objects.
    pub elements: Arc<BTreeSet<Element>>,
    /// The members of each rule about objects.
    objects: Vec<(RuleIndex, Arc<PeerMembers>)>,
}

impl EvaluatedTiers {
    /// Without any object yet.
    fn new(tiers: &Tiers) -> Self {
        Self {
            id: tiers.id(),
            classifier: Arc::new(Classifier::new(tiers)),
            elements: Arc::default(),
            objects: Vec::new(),
        }
    }

    /// The elements of `address` when a name that the rule matches resolves to it.
    pub(super) fn learned(&self, rule: RuleIndex, address: IpAddr, places: &ZoneMap, element: impl FnMut(Element)) {
        let objects = self.objects_at(address);
        let place = places.of(address);
        let entries = self.classifier.entries_for_name(
            rule,
            AddressContext {
                address,
                zone: place,
                objects: &objects,
            },
        );
        self.elements_of(&entries, address).for_each(element);
    }

    /// The elements of an address for all objects that have it.
    fn member(&self, address: IpAddr, places: &ZoneMap) -> Vec<Element> {
        let objects = self.objects_at(address);
        if objects.is_empty() {
            return Vec::new();
        }
        let place = places.of(address);
        let entries = self.classifier.entries_for_objects(AddressContext {
            address,
            zone: place,
            objects: &objects,
        });
        self.elements_of(&entries, address).collect()
    }

    fn elements_of<'a>(
        &'a self,
        entries: &'a [ClassifierEntry],
        address: IpAddr,
    ) -> impl Iterator<Item = Element> + 'a {
        let layout = self.classifier.layout();
        entries
            .iter()
            .flat_map(move |entry| layout::elements(self.id, layout, address, entry))
    }

    /// Whether it knows of objects.
    fn has_objects(&self) -> bool {
        !self.objects.is_empty()
    }

    fn objects_at(&self, address: IpAddr) -> Vec<(RuleIndex, PortSet)> {
        let ports = |(index, members): &(RuleIndex, Arc<PeerMembers>)| Some((*index, members.get(&address)?.clone()));
        self.objects.iter().filter_map(ports).collect()
    }
}

/// An evaluation that follows the objects.
#[derive(Debug)]
pub(super) struct TrackedTiers {
    pub(super) evaluation: Arc<EvaluatedTiers>,
    /// Its elements once more, to find those of an address.
    by_address: BTreeMap<IpAddr, Vec<Element>>,
}

impl TrackedTiers {
    pub(super) fn new(tiers: &Tiers) -> Self {
        Self {
            evaluation: Arc::new(EvaluatedTiers::new(tiers)),
            by_address: BTreeMap::new(),
        }
    }

    /// The same rules may have come to stand in other policies, which people are told.
    pub(super) fn renamed(mut self, tiers: &Tiers) -> Self {
        if !self.evaluation.classifier.rules().iter().eq(tiers.rules()) {
            let classifier = Arc::new(Classifier::new(tiers));
            Arc::make_mut(&mut self.evaluation).classifier = classifier;
        }
        self
    }

    /// Takes over what `membership` now says. `moved` tells whether an address lies elsewhere than
    /// before.
    pub(super) fn update(&mut self, membership: &Membership, places: &ZoneMap, moved: impl Fn(IpAddr) -> bool) {
        let classifier = Arc::clone(&self.evaluation.classifier);
        let is_new = !self.evaluation.has_objects();
        let mut touched: BTreeSet<IpAddr> = self.by_address.keys().copied().filter(|it| moved(*it)).collect();
        let mut objects = Vec::new();
        for (index, rule) in classifier.object_rules() {
            let Some(members) = membership.members(rule) else {
                continue;
            };
            match is_new {
                true => touched.extend(members.keys()),
                false => touched.extend(membership.changed(rule)),
            }
            objects.push((index, Arc::clone(members)));
        }
        // Without rules about objects there is nothing to follow, and without a change nothing to
        // do.
        if objects.is_empty() || (touched.is_empty() && !is_new) {
            return;
        }
        let evaluation = Arc::make_mut(&mut self.evaluation);
        evaluation.objects = objects;
        let now: Vec<_> = touched
            .into_iter()
            .map(|address| (address, evaluation.member(address, places)))
            .collect();
        let elements = Arc::make_mut(&mut evaluation.elements);
        for (address, now) in now {
            let before = match now.is_empty() {
                true => self.by_address.remove(&address),
                false => self.by_address.insert(address, now.clone()),
            };
            for element in before.iter().flatten() {
                elements.remove(element);
            }
            elements.extend(now);
        }
    }
}
