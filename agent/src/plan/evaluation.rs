//! One set of tiers, with the addresses that its rules about objects mean.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use enforcer::Element;
use enforcer::layout;
use policy::address::Places;
use policy::fold::{At, Fold, RuleIndex};
use policy::membership::{Membership, Members};
use policy::{PortSet, ProgramId, Tiers};

/// Elements that stay until objects change, by their address.
pub type MemberElements = BTreeMap<IpAddr, Vec<Element>>;

/// Tiers, ready to say what an address opens or closes. What a program enforces is one; so is what it audits.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// That of the tiers: its sets are named by it.
    pub id: ProgramId,
    /// The tiers, folded.
    pub fold: Arc<Fold>,
    /// The elements of objects.
    pub elements: Arc<MemberElements>,
    /// The members of each rule about objects.
    objects: Vec<(RuleIndex, Arc<Members>)>,
}

impl Evaluation {
    /// Without any object yet.
    pub(super) fn new(tiers: &Tiers) -> Self {
        Self {
            id: tiers.id(),
            fold: Arc::new(Fold::new(tiers)),
            elements: Arc::default(),
            objects: Vec::new(),
        }
    }

    /// Takes over what `membership` now says. `moved` tells whether an address lies elsewhere than before.
    pub(super) fn update(&mut self, membership: &Membership, places: &Places, moved: impl Fn(IpAddr) -> bool) {
        let is_new = self.objects.is_empty();
        let mut touched: BTreeSet<IpAddr> = self.elements.keys().copied().filter(|address| moved(*address)).collect();
        self.objects.clear();
        for (index, rule) in self.fold.objects() {
            let Some(members) = membership.members(rule) else {
                continue;
            };
            match is_new {
                true => touched.extend(members.keys()),
                false => touched.extend(membership.changed(rule)),
            }
            self.objects.push((index, Arc::clone(members)));
        }
        if touched.is_empty() {
            return;
        }
        let renewed: Vec<_> = touched.into_iter().map(|address| (address, self.member(address, places))).collect();
        let elements = Arc::make_mut(&mut self.elements);
        for (address, renewed) in renewed {
            match renewed.is_empty() {
                true => elements.remove(&address),
                false => elements.insert(address, renewed),
            };
        }
    }

    /// What `address` opens or closes when a name that the rule matches resolves to it.
    pub(super) fn learned(&self, rule: RuleIndex, address: IpAddr, places: &Places, mut element: impl FnMut(Element)) {
        let objects = self.objects_at(address);
        let place = places.of(address);
        let doors = self.fold.learned(rule, At { address, place, objects: &objects });
        for door in &doors {
            layout::elements(self.id, self.fold.possible(), address, door, &mut element);
        }
    }

    fn member(&self, address: IpAddr, places: &Places) -> Vec<Element> {
        let objects = self.objects_at(address);
        if objects.is_empty() {
            return Vec::new();
        }
        let place = places.of(address);
        let mut elements = Vec::new();
        for door in &self.fold.member(At { address, place, objects: &objects }) {
            layout::elements(self.id, self.fold.possible(), address, door, |element| elements.push(element));
        }
        elements
    }

    fn objects_at(&self, address: IpAddr) -> Vec<(RuleIndex, PortSet)> {
        let ports = |(index, members): &(RuleIndex, Arc<Members>)| Some((*index, members.get(&address)?.clone()));
        self.objects.iter().filter_map(ports).collect()
    }
}
