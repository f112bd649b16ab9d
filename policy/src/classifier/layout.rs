//! Which entries a program may ever have, and so which sets the kernel must hold for it.

use std::collections::BTreeSet;

use super::{RuleIndex, SetClass, every_port};
use crate::policy::Action;
use crate::ports::{PortRange, PortSet, Protocol};
use crate::program::{Peer, Rule, Tiers};

/// Which entries there may be. It may name too many and never too few: a set that stays empty costs
/// a lookup, and a set that is missing costs an address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SetLayout {
    /// The classes, in order.
    pub classes: BTreeSet<SetClass>,
    /// Whether an entry may be for all traffic.
    pub all_traffic: bool,
    /// Whether an entry may be for a single port that is known only when the address is: one that a
    /// container names.
    pub named_ports: bool,
    /// Sorted and disjoint. No rule cuts one of them, so the ports of every other entry are made up
    /// of some of these.
    pub port_ranges: Vec<PortRange>,
}

impl SetLayout {
    /// `has_entries`: whether the rule at this position may need entries. `is_overruled`: whether a
    /// shared rule needs entries of the classes before its own.
    pub(super) fn of(tiers: &Tiers, has_entries: impl Fn(RuleIndex) -> bool, is_overruled: bool) -> Self {
        let rules = tiers.rules().enumerate();
        let placed = rules.filter(|(index, rule)| is_exact(rule) && has_entries(*index));
        let placed: Vec<(RuleIndex, &Rule)> = placed.collect();
        let exact: Vec<&Rule> = placed.iter().map(|(_, rule)| *rule).collect();
        if exact.is_empty() {
            return Self::default();
        }
        let (only_allows, never_denies) = (only_allows(tiers), never_denies(tiers));
        let all_traffic = exact.iter().any(|rule| rule.ports == PortSet::All);
        let mut ports = PortSet::Ranges(Vec::new());
        for rule in exact.iter().filter(|rule| rule.ports != PortSet::All) {
            ports = ports.union(&rule.ports);
        }
        if all_traffic && !never_denies {
            // All traffic with exceptions is written port by port.
            ports = every_port();
        }
        let classes = match only_allows {
            true => BTreeSet::from([SetClass::Allow]),
            // An entry for all traffic hides what comes before it, which then has entries too.
            false if (all_traffic && !never_denies) || is_overruled => classes(tiers),
            false => classes_of(&placed, tiers),
        };
        Self {
            classes,
            all_traffic,
            named_ports: exact.iter().any(|rule| !rule.named.is_empty()),
            port_ranges: uncut_ranges(&ports, tiers),
        }
    }

    /// How many lookups of addresses a packet pays at most in these sets. What is looked into is
    /// looked up elsewhere than where packets are let through.
    pub(super) fn lookups(&self) -> usize {
        let mut ranges = self.port_ranges.iter();
        let has_exact = self.named_ports || ranges.clone().any(|range| range.protocol.has_ports());
        let has_ranges = ranges.any(|range| !range.is_single() || !range.protocol.has_ports());
        let classes = self.classes.iter().filter(|class| **class != SetClass::Inspect);
        classes.count() * (usize::from(has_exact) + usize::from(has_ranges) + usize::from(self.all_traffic))
    }
}

/// Whether every rule allows all connections, and stands in tier Network.
pub(super) fn only_allows(tiers: &Tiers) -> bool {
    never_denies(tiers) && !tiers.inspects()
}

/// Whether every rule allows, all connections or some, and stands in tier Network. An allowance of
/// all traffic has no exceptions then.
fn never_denies(tiers: &Tiers) -> bool {
    tiers.rules().all(|rule| rule.action == Action::Allow) && tiers.admin.is_empty() && tiers.baseline.is_empty()
}

/// Whether a rule speaks of single addresses.
fn is_exact(rule: &Rule) -> bool {
    !matches!(rule.peer, Peer::Prefix(..))
}

/// The classes of what some rules decide by themselves. They hold no rule for all traffic with
/// exceptions.
fn classes_of(placed: &[(RuleIndex, &Rule)], tiers: &Tiers) -> BTreeSet<SetClass> {
    let network = tiers.admin.len()..tiers.admin.len() + tiers.network.len();
    let mut found = BTreeSet::new();
    for (index, rule) in placed {
        let class = match rule.action {
            // Anything may decide what it passes.
            Action::Pass => return classes(tiers),
            Action::Allow if *index < network.start => SetClass::Admin,
            Action::Deny if *index >= network.end => SetClass::Rest,
            Action::Allow if rule.through.is_some() => SetClass::Inspect,
            Action::Allow => SetClass::Allow,
            Action::Deny => SetClass::Deny,
        };
        found.insert(class);
    }
    found
}

/// The classes of all rules.
pub(super) fn classes(tiers: &Tiers) -> BTreeSet<SetClass> {
    let mut classes = BTreeSet::from([SetClass::Allow]);
    let any = |rules: &[Rule], action| rules.iter().any(|rule| rule.action == action);
    if any(&tiers.admin, Action::Allow) {
        classes.insert(SetClass::Admin);
    }
    if any(&tiers.admin, Action::Deny) || any(&tiers.network, Action::Deny) {
        classes.insert(SetClass::Deny);
    }
    if tiers.inspects() {
        classes.insert(SetClass::Inspect);
    }
    // Only where something else would decide before: what is passed, or denied in tier Baseline.
    if any(&tiers.admin, Action::Pass) || any(&tiers.baseline, Action::Deny) || any(&tiers.baseline, Action::Pass) {
        classes.insert(SetClass::Rest);
    }
    classes
}

/// `ports`, cut wherever a range of some rule begins or ends.
fn uncut_ranges(ports: &PortSet, tiers: &Tiers) -> Vec<PortRange> {
    // A cut stands before its port.
    let mut cuts: BTreeSet<(Protocol, u16)> = BTreeSet::new();
    for rule in tiers.rules() {
        if let PortSet::Ranges(ranges) = &rule.ports {
            for range in ranges {
                cuts.insert((range.protocol, range.first));
                cuts.extend(range.last.checked_add(1).map(|after| (range.protocol, after)));
            }
        }
    }
    let PortSet::Ranges(ranges) = ports else {
        return Vec::new();
    };
    let mut uncut = Vec::new();
    for range in ranges {
        let inside = cuts
            .range((range.protocol, range.first)..=(range.protocol, range.last))
            .map(|(_, port)| *port)
            .filter(|port| *port > range.first);
        let mut first = range.first;
        for cut in inside {
            uncut.push(PortRange {
                first,
                last: cut - 1,
                ..*range
            });
            first = cut;
        }
        uncut.push(PortRange { first, ..*range });
    }
    uncut
}
