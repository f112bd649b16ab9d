//! The lookups in the sets of classes.

use policy::PortRange;
use policy::classifier::SetClass;

use crate::layout::{self, SetId, SetKind};
use crate::netlink::objects::{NftRule, PacketField, RuleLookup};

use super::{ChainPurpose, ProgramWriter, TrafficKind, found};

impl ProgramWriter<'_> {
    /// The port ranges that have sets of their own, with their numbers.
    pub(super) fn port_ranges(&self, traffic: TrafficKind) -> Vec<(u16, PortRange)> {
        let is_of_traffic =
            |(_, range): &(u16, PortRange)| range.protocol.has_ports() == (traffic == TrafficKind::Ports);
        // What is only looked into is not looked up where packets are let through.
        let is_looked_up = |(_, range): &(u16, PortRange)| {
            self.purpose != ChainPurpose::LetThrough || self.classifier.has_entries_beside_inspected(*range)
        };
        layout::range_sets(self.classifier.layout(), self.family)
            .filter(is_of_traffic)
            .filter(is_looked_up)
            .collect()
    }

    pub(super) fn has_exact_sets(&self, traffic: TrafficKind) -> bool {
        let mut kinds = layout::kinds(self.classifier.layout(), self.family);
        traffic == TrafficKind::Ports && kinds.any(|kind| kind == SetKind::Exact)
    }

    /// The lookups in the sets of each class, in the order of classes: the exact set, the set of
    /// the packet's port range, the set for every port, those of shared rules
    /// and of shared names.
    pub(super) fn look_up_classes(&self, traffic: TrafficKind, range: Option<u16>) -> Vec<NftRule> {
        let each = SetClass::ALL.into_iter();
        each.flat_map(|class| self.look_up_class(traffic, range, class))
            .collect()
    }

    /// As [`look_up_classes`](Self::look_up_classes), of one class.
    pub(super) fn look_up_class(&self, traffic: TrafficKind, range: Option<u16>, class: SetClass) -> Vec<NftRule> {
        let layout = self.classifier.layout();
        let mut kinds = Vec::new();
        if self.classes().any(|own| own == class) {
            if self.has_exact_sets(traffic) {
                let fields = vec![self.peer(), PacketField::Protocol, PacketField::Port];
                kinds.push((SetKind::Exact, fields));
            }
            kinds.extend(range.map(|number| (SetKind::Range(number), vec![self.peer()])));
            // What is looked into is TCP, and never all traffic.
            if layout.all_traffic && class != SetClass::Inspect {
                kinds.push((SetKind::All, vec![self.peer()]));
            }
        }
        let verdict = self.verdict(class.verdict());
        let own = kinds.into_iter().map(|(kind, fields)| {
            let set = SetId {
                program: self.tiers,
                class,
                kind,
                family: self.family,
            };
            found(fields, RuleLookup::Set(set.to_string().into()), &verdict)
        });
        own.chain(self.look_up_shared(traffic, class)).collect()
    }

    pub(super) fn comes_before_own(&self, class: SetClass) -> bool {
        self.classes().next().is_some_and(|own| class < own)
    }

    /// The classes whose sets are looked up, in order.
    pub(super) fn classes(&self) -> impl Iterator<Item = SetClass> {
        let classes = self.classifier.layout().classes.iter().copied();
        let is_looked_up = |class: &SetClass| *class != SetClass::Inspect || self.purpose != ChainPurpose::LetThrough;
        classes.filter(is_looked_up)
    }

    /// The lookups in the sets of shared rules and shared names of a class. ICMP has no ports, so
    /// it is in the sets for every port alone.
    pub(super) fn look_up_shared(&self, traffic: TrafficKind, class: SetClass) -> Vec<NftRule> {
        let shared = self.classifier.shared().iter().filter(|shared| shared.class == class);
        let sets = shared.flat_map(|shared| layout::sets(shared.id, &shared.layout, self.family));
        let rules = sets.filter_map(|set| {
            let fields = match (set.kind, traffic) {
                (SetKind::Exact, TrafficKind::Ports) => vec![self.peer(), PacketField::Protocol, PacketField::Port],
                (SetKind::Exact, TrafficKind::Icmp) => return None,
                (SetKind::Range(_) | SetKind::All, _) => vec![self.peer()],
            };
            let verdict = self.verdict(class.verdict());
            Some(found(fields, RuleLookup::Set(set.to_string().into()), &verdict))
        });
        rules.chain(self.look_up_names(traffic, class)).collect()
    }
}
