//! Which doors a program may ever have: what sets the kernel must hold for it.

use std::collections::BTreeSet;

use super::{Class, every_port};
use crate::policy::Action;
use crate::ports::{PortRange, PortSet, Protocol};
use crate::program::{Destination, Rule, Tiers};

/// What doors there may be. Rather too many than too few; a set that stays empty costs a lookup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Possible {
    /// The classes, in order.
    pub classes: BTreeSet<Class>,
    /// Whether a door may be for all traffic.
    pub all: bool,
    /// Whether a door may be for a single port that is known only when the address is: one that a
    /// container names.
    pub named: bool,
    /// Sorted and disjoint: the ports of every other door are made up of some of these.
    pub pieces: Vec<PortRange>,
}

impl Possible {
    pub(super) fn of(tiers: &Tiers) -> Self {
        let exact: Vec<&Rule> = tiers.rules().filter(|rule| is_exact(rule)).collect();
        if exact.is_empty() {
            return Self::default();
        }
        let only_allows = tiers.rules().all(|rule| rule.action == Action::Allow)
            && tiers.admin.is_empty()
            && tiers.baseline.is_empty();
        let all = exact.iter().any(|rule| rule.ports == PortSet::All);
        let mut ports = PortSet::Ranges(Vec::new());
        for rule in exact.iter().filter(|rule| rule.ports != PortSet::All) {
            ports = ports.union(&rule.ports);
        }
        if all && !only_allows {
            // All traffic with exceptions is said port by port.
            ports = every_port();
        }
        let classes = match only_allows {
            true => BTreeSet::from([Class::Allow]),
            false => classes(tiers),
        };
        Self {
            classes,
            all,
            named: exact.iter().any(|rule| !rule.named.is_empty()),
            pieces: pieces(&ports, tiers),
        }
    }
}

fn is_exact(rule: &Rule) -> bool {
    !matches!(rule.to, Destination::Prefix(..))
}

fn classes(tiers: &Tiers) -> BTreeSet<Class> {
    let mut classes = BTreeSet::from([Class::Allow]);
    let any = |rules: &[Rule], action| rules.iter().any(|rule| rule.action == action);
    if any(&tiers.admin, Action::Allow) {
        classes.insert(Class::Admin);
    }
    if any(&tiers.admin, Action::Deny) || any(&tiers.network, Action::Deny) {
        classes.insert(Class::Deny);
    }
    // Only where something else would decide before: what is passed, or denied in tier Baseline.
    if any(&tiers.admin, Action::Pass) || any(&tiers.baseline, Action::Deny) || any(&tiers.baseline, Action::Pass) {
        classes.insert(Class::Rest);
    }
    classes
}

/// `ports`, cut wherever a range of some rule begins or ends.
fn pieces(ports: &PortSet, tiers: &Tiers) -> Vec<PortRange> {
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
    let mut pieces = Vec::new();
    for range in ranges {
        let inside = cuts
            .range((range.protocol, range.first)..=(range.protocol, range.last))
            .map(|(_, port)| *port)
            .filter(|port| *port > range.first);
        let mut first = range.first;
        for cut in inside {
            pieces.push(PortRange {
                first,
                last: cut - 1,
                ..*range
            });
            first = cut;
        }
        pieces.push(PortRange { first, ..*range });
    }
    pieces
}
