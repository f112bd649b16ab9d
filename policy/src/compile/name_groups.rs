//! Which names of a spec stand together.

use std::collections::{BTreeMap, BTreeSet};

use names::Pattern;

use crate::extensions::LeaseTerms;
use crate::name_group::NameGroup;
use crate::ports::PortSet;
use crate::program::Rule;

/// The names that the rules of one spec let through without looking into connections.
pub(super) fn of(rules: &[Rule], is_admin: bool) -> Vec<NameGroup> {
    let mut by_ports: BTreeMap<(&PortSet, LeaseTerms), BTreeSet<Pattern>> = BTreeMap::new();
    let plain = rules.iter().filter_map(|rule| Some((rule, rule.plain_name()?)));
    for (rule, pattern) in plain.filter(|(rule, _)| !rule.ports.is_empty()) {
        let alike = by_ports.entry((&rule.ports, rule.lease)).or_default();
        alike.insert(pattern.clone());
    }
    let groups = by_ports.into_iter().map(|((ports, lease), patterns)| NameGroup {
        is_admin,
        patterns,
        lease,
        ports: ports.clone(),
    });
    groups.flat_map(NameGroup::split).collect()
}
