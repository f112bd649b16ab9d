//! Which connections a program hands over to be looked into.

use policy::classifier::SetClass;
use policy::{AddressZone, Direction, Peer, Rule, Verdict};

use crate::netlink::objects::{NftRule, NftVerdict, PacketField, RuleLookup, RuleMatch};
use crate::netlink::set_key::{KeyRange, address_key};
use crate::ruleset::{handover, set_names};

use super::place_ranges::joined;
use super::{ProgramWriter, TrafficKind, always, found, goto, ports_key};

impl ProgramWriter<'_> {
    /// The sets of what is looked into are looked up first, so that other connections cost no more
    /// than these lookups.
    pub(super) fn write_handover(&mut self) {
        let found = format!("{}-found", self.name);
        let hand_over = || goto(handover::CHAIN);
        let before = SetClass::ALL.into_iter().filter(|class| *class < SetClass::Inspect);
        let mut rules: Vec<NftRule> = before
            .flat_map(|class| self.look_up_class(TrafficKind::Ports, None, class))
            .collect();
        let ranges = self.port_ranges(TrafficKind::Ports);
        if !ranges.is_empty() {
            let mut by_range = Vec::new();
            for (number, range) in &ranges {
                let of_range = format!("{found}-c{number}");
                let before = SetClass::ALL.into_iter().filter(|class| *class < SetClass::Inspect);
                let mut rules: Vec<NftRule> = before
                    .flat_map(|class| self.look_up_class(TrafficKind::Ports, Some(*number), class))
                    .collect();
                rules.push(always(hand_over()));
                self.add(&of_range, rules);
                by_range.push((ports_key(TrafficKind::Ports, *range), goto(&of_range)));
            }
            by_range.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
            rules.insert(
                0,
                NftRule {
                    test: RuleMatch::In(self.port_fields(TrafficKind::Ports), RuleLookup::Verdicts(by_range)),
                    verdict: None,
                },
            );
        }
        rules.push(always(hand_over()));
        self.add(&found, rules);

        let name = self.name.clone();
        let mut rules: Vec<NftRule> = self.find_services().into_iter().collect();
        rules.extend(self.find_inspected(&found));
        rules.extend(self.find_inspected_prefixes(&name, &found));
        rules.push(always(NftVerdict::Return));
        self.add(&name, rules);
    }

    /// The lookup among Services behind which something is looked into. No Service stands behind a
    /// name that is looked up.
    fn find_services(&self) -> Option<NftRule> {
        let mut inspecting = self.classifier.rules().iter().filter(|rule| rule.through.is_some());
        let may_be_behind = |rule: &Rule| !matches!(rule.peer, Peer::Name(_));
        if self.direction != Direction::Egress || !inspecting.any(may_be_behind) {
            return None;
        }
        let fields = vec![self.peer(), PacketField::Protocol, PacketField::Port];
        let services = set_names::handover_services(self.direction, self.family);
        Some(found(fields, RuleLookup::Set(services.into()), &goto(handover::CHAIN)))
    }

    /// The lookups in the sets of what is looked into.
    fn find_inspected(&mut self, found: &str) -> Vec<NftRule> {
        if !self.classifier.layout().classes.contains(&SetClass::Inspect) {
            return Vec::new();
        }
        let to_found = |rules: Vec<NftRule>| -> Vec<NftRule> {
            let each = rules.into_iter().map(|rule| NftRule {
                verdict: Some(goto(found)),
                ..rule
            });
            each.collect()
        };
        let mut rules = to_found(self.look_up_class(TrafficKind::Ports, None, SetClass::Inspect));
        let ranges = self.port_ranges(TrafficKind::Ports);
        if ranges.is_empty() {
            return rules;
        }
        // The chain of a range ends in the one that follows, where prefixes are looked up.
        let after = format!("{}-prefixes", self.name);
        let mut prefixes = self.find_inspected_prefixes(&after, found);
        prefixes.push(always(NftVerdict::Return));
        self.add(&after, prefixes);
        let mut by_range = Vec::new();
        let done = rules.len();
        for (number, range) in ranges {
            let of_range = format!("{}-c{number}", self.name);
            let of_class = self.look_up_class(TrafficKind::Ports, Some(number), SetClass::Inspect);
            // What the packet was looked up in before stands first.
            let mut rules = to_found(of_class).split_off(done);
            rules.push(always(goto(&after)));
            self.add(&of_range, rules);
            by_range.push((ports_key(TrafficKind::Ports, range), goto(&of_range)));
        }
        by_range.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        rules.push(NftRule {
            test: RuleMatch::In(self.port_fields(TrafficKind::Ports), RuleLookup::Verdicts(by_range)),
            verdict: None,
        });
        rules
    }

    /// The lookups of ports that prefixes look into: of the node's addresses and the cluster's by
    /// themselves, where these differ.
    fn find_inspected_prefixes(&mut self, name: &str, found: &str) -> Vec<NftRule> {
        let [world, cluster, host] = AddressZone::ALL.map(|place| self.inspected_ranges(place));
        let branches = [
            (host != cluster, set_names::host(self.family), "host", host),
            (cluster != world, set_names::cluster(self.family), "cluster", cluster),
        ];
        let mut rules = Vec::new();
        for (differs, addresses, suffix, ranges) in branches {
            if !differs {
                continue;
            }
            let of_place = format!("{name}-{suffix}");
            let mut there = self.in_ranges(&ranges, found);
            there.push(always(NftVerdict::Return));
            self.add(&of_place, there);
            let test = RuleMatch::In(vec![self.peer()], RuleLookup::Set(addresses.into()));
            rules.push(NftRule {
                test,
                verdict: Some(goto(&of_place)),
            });
        }
        rules.extend(self.in_ranges(&world, found));
        rules
    }

    fn in_ranges(&self, ranges: &[KeyRange], found_in: &str) -> Vec<NftRule> {
        if ranges.is_empty() {
            return Vec::new();
        }
        let mut fields = vec![self.peer()];
        fields.extend(self.port_fields(TrafficKind::Ports));
        vec![found(fields, RuleLookup::Ranges(ranges.to_vec()), &goto(found_in))]
    }

    /// Addresses and ports of a place that prefixes look into. Only ports of TCP are.
    fn inspected_ranges(&self, place: AddressZone) -> Vec<KeyRange> {
        let mut ranges = Vec::new();
        for interval in &self.prefixes.intervals[place as usize] {
            let exceptions = interval.verdicts.exceptions.iter();
            for (range, _) in exceptions.filter(|(_, verdict)| *verdict == Verdict::Inspect) {
                let ports = ports_key(TrafficKind::Ports, *range);
                ranges.push(KeyRange {
                    first: joined(&address_key(interval.first), &ports.first),
                    last: joined(&address_key(interval.last), &ports.last),
                });
            }
        }
        ranges
    }
}
