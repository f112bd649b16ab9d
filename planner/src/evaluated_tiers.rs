//! One set of tiers, with the addresses that its rules about objects mean.
//!
//! A rule that selects whole namespaces is *shared* ([`Classifier::shared`]): its members are the
//! elements of tiers that consist of this rule alone, which are evaluated like any others. The
//! tiers that share it have elements of their own only where another rule about objects selects an
//! address too, or a prefix decides before the shared rule.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use enforcer::layout::{ElementKey, IpFamily};
use enforcer::{Element, ElementSet, KernelTiers, SetId, layout};
use policy::address::ZoneMap;
use policy::classifier::{AddressContext, Classifier, ClassifierEntry, RuleIndex};
use policy::membership::{Membership, PeerMembers, TrackedRuleKey};
use policy::{PortSet, ProgramId, Protocol, Tiers};

/// Tiers, ready to say what an address opens or closes. What a program enforces is one; so is what
/// it audits.
#[derive(Debug, Clone)]
pub struct EvaluatedTiers {
    /// That of the tiers: its sets are named by it.
    pub id: ProgramId,
    /// The classifier of the tiers.
    pub classifier: Arc<Classifier>,
    /// The elements of objects.
    pub elements: ElementSet,
    /// The members of each rule about objects.
    objects: Vec<(RuleIndex, PeerMembers)>,
}

impl EvaluatedTiers {
    /// Whether names may open or close anything.
    pub(super) fn has_names(&self) -> bool {
        self.classifier.name_rules().next().is_some()
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

    /// With the elements of all addresses, of which there are none yet.
    fn with_elements(mut self, places: &ZoneMap) -> Self {
        let mut elements = Vec::new();
        for address in self.with_entries() {
            elements.extend(self.member(address, places));
        }
        // Neighbours are inserted quickly.
        elements.sort_unstable();
        self.elements = elements.into_iter().collect();
        self
    }

    /// The addresses that may have elements.
    fn with_entries(&self) -> BTreeSet<IpAddr> {
        let mut addresses = BTreeSet::new();
        for (index, members) in &self.objects {
            if is_shared(&self.classifier, *index) {
                for (first, last) in self.classifier.overruled() {
                    addresses.extend(members.range(first..=last).map(|(address, _)| *address));
                }
            } else {
                addresses.extend(members.keys().copied());
            }
        }
        addresses
    }

    /// Whether this address of a shared rule may have elements.
    fn may_have_entries(&self, address: IpAddr) -> bool {
        let is_member = |(index, members): &(RuleIndex, PeerMembers)| {
            !is_shared(&self.classifier, *index) && members.contains_key(&address)
        };
        let mut overruled = self.classifier.overruled();
        overruled.any(|(first, last)| (first..=last).contains(&address)) || self.objects.iter().any(is_member)
    }

    fn objects_at(&self, address: IpAddr) -> Vec<(RuleIndex, PortSet)> {
        let ports = |(index, members): &(RuleIndex, PeerMembers)| Some((*index, members.get(&address)?.clone()));
        self.objects.iter().filter_map(ports).collect()
    }
}

/// An evaluation that follows the objects.
#[derive(Debug)]
pub(super) struct TrackedTiers {
    pub(super) evaluation: Arc<EvaluatedTiers>,
    /// The tracked rules, in the order of the evaluation's objects.
    tracked: Vec<TrackedRuleKey>,
    /// The sets that its elements may belong to.
    sets: Vec<SetId>,
}

impl TrackedTiers {
    /// Tracks the members of the tiers' rules from now on, until they are
    /// [released](Self::release).
    pub(super) fn new(tiers: &Tiers, membership: &mut Membership, places: &ZoneMap) -> Self {
        let classifier = Arc::new(Classifier::sharing(tiers));
        let (mut objects, mut tracked) = (Vec::new(), Vec::new());
        for (index, rule) in classifier.object_rules() {
            let Some(key) = membership.track(rule) else { continue };
            objects.push((index, membership.members(key).cloned().unwrap_or_default()));
            tracked.push(key);
        }
        let (id, layout) = (tiers.id(), classifier.layout());
        let sets = IpFamily::BOTH
            .into_iter()
            .flat_map(|family| layout::sets(id, layout, family))
            .collect();
        let evaluation = EvaluatedTiers {
            id,
            classifier,
            elements: ElementSet::new(),
            objects,
        };
        Self {
            evaluation: Arc::new(evaluation.with_elements(places)),
            tracked,
            sets,
        }
    }

    /// In the form in which the kernel evaluates them.
    pub(super) fn folded(&self) -> KernelTiers {
        KernelTiers {
            id: self.evaluation.id,
            classifier: Arc::clone(&self.evaluation.classifier),
        }
    }

    /// The same rules may have come to stand in other policies, which people are told.
    pub(super) fn rename(&mut self, tiers: &Tiers) {
        if !self.evaluation.classifier.rules().iter().eq(tiers.rules()) {
            let classifier = Arc::new(Classifier::sharing(tiers));
            Arc::make_mut(&mut self.evaluation).classifier = classifier;
        }
    }

    /// Ends the tracking of its rules.
    pub(super) fn release(self, membership: &mut Membership) {
        self.tracked.into_iter().for_each(|key| membership.release(key));
    }

    /// The rules whose members it follows.
    pub(super) fn tracked(&self) -> &[TrackedRuleKey] {
        &self.tracked
    }

    /// Takes over what `membership` has changed by its last update. It takes a look at each rule,
    /// and evaluates the addresses that differ.
    pub(super) fn update(&mut self, membership: &Membership, places: &ZoneMap) {
        let changed = membership.changed();
        let (mut touched, mut of_shared) = (BTreeSet::new(), BTreeSet::new());
        let evaluation = Arc::make_mut(&mut self.evaluation);
        for (key, (index, members)) in self.tracked.iter().zip(&mut evaluation.objects) {
            let Some(addresses) = changed.get(key) else { continue };
            match is_shared(&evaluation.classifier, *index) {
                true => of_shared.extend(addresses),
                false => touched.extend(addresses),
            }
            *members = membership.members(*key).cloned().unwrap_or_default();
        }
        touched.extend(
            of_shared
                .into_iter()
                .filter(|address| evaluation.may_have_entries(*address)),
        );
        self.evaluate(&touched, places);
    }

    /// Evaluates the addresses anew that lie elsewhere than before.
    pub(super) fn relocate(&mut self, places: &ZoneMap, moved: impl Fn(IpAddr) -> bool) {
        let mut touched = self.evaluation.with_entries();
        touched.retain(|address| moved(*address));
        self.evaluate(&touched, places);
    }

    fn evaluate(&mut self, addresses: &BTreeSet<IpAddr>, places: &ZoneMap) {
        if addresses.is_empty() {
            return;
        }
        let evaluation = Arc::make_mut(&mut self.evaluation);
        for address in addresses {
            let now: BTreeSet<Element> = evaluation.member(*address, places).into_iter().collect();
            let before = self
                .sets
                .iter()
                .flat_map(|set| at(&evaluation.elements, *set, *address));
            let gone: Vec<Element> = before.filter(|element| !now.contains(element)).collect();
            for element in &gone {
                evaluation.elements.remove(element);
            }
            for element in now {
                if !evaluation.elements.contains(&element) {
                    evaluation.elements.insert(element);
                }
            }
        }
    }
}

fn is_shared(classifier: &Classifier, rule: RuleIndex) -> bool {
    classifier.shared().iter().any(|shared| shared.index == rule)
}

/// The elements of an address in a set.
fn at(elements: &ElementSet, set: SetId, address: IpAddr) -> impl Iterator<Item = Element> {
    let element = |port| Element {
        set,
        key: ElementKey { address, port },
    };
    let last = element(Protocol::ALL.into_iter().max().map(|protocol| (protocol, u16::MAX)));
    elements.range(element(None)..=last).copied()
}
