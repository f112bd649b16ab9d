//! Names that tiers look up in the sets of others.
//!
//! A hundred programs may have a wildcard in common. If each had elements of its own for each
//! address that the wildcard's names resolve to, and for each port, a new answer would cost a
//! hundred times as much. So the addresses of a [`NameGroup`] stand once in the kernel: in the set
//! of tiers that let these names through on every port, and do nothing else. Programs test the
//! ports, which are their own and constant, before they look an address up there.
//!
//! As [shared rules](super::SharedRule) these are looked up at the place of a [`SetClass`]. What
//! names and objects decide before them has entries of earlier classes, and is found first. Where
//! prefixes may deny before them ([`SharedNames::is_overruled`]) a found address is looked up among
//! the [denials](super::Classifier::denials). It has no entries for that: these would have to stay
//! for as long as the element in a set of others, which has another holder and another size.
//!
//! Which groups are shared follows from the tiers alone. What does not fit into the bound on
//! lookups has entries in the tiers' own sets.

use std::cmp::Reverse;

use super::evaluation::RuleList;
use super::layout::SetLayout;
use super::{RuleIndex, SetClass};
use crate::name_group::NameGroup;
use crate::policy::Action;
use crate::ports::PortSet;
use crate::program::{Peer, ProgramId, Rule, Tiers};

/// The most groups: a packet pays a lookup for each, and mostly another one for its ports.
const MOST: usize = 4;

/// A group of names whose addresses stand in the set of other tiers.
#[derive(Debug, Clone)]
pub struct SharedNames {
    /// The names, and the ports that are tested before the lookup.
    pub group: NameGroup,
    /// Where it is looked up: behind the tiers' own sets of this class, which is its verdict's.
    pub class: SetClass,
    /// The tiers that let these names through on every port: their set has the addresses.
    pub tiers: Tiers,
    /// The id of `tiers`.
    pub id: ProgramId,
    /// The set of `tiers`, for every port.
    pub layout: SetLayout,
    /// Whether prefixes may deny before it at some address.
    pub is_overruled: bool,
}

impl SharedNames {
    /// How many lookups a packet pays for it. A single port is compared.
    fn lookups(&self) -> usize {
        match &self.group.ports {
            PortSet::All => 1,
            PortSet::Ranges(ranges) if matches!(ranges.as_slice(), [only] if only.is_single()) => 1,
            PortSet::Ranges(_) => 2,
        }
    }
}

/// The groups of these tiers that may be shared, the widest first.
pub(super) fn candidates(tiers: &Tiers, list: &RuleList) -> Vec<SharedNames> {
    let mut groups: Vec<(&NameGroup, SetClass)> = tiers
        .name_groups
        .iter()
        .filter_map(|group| Some((group, uniform_class(group, list)?)))
        .collect();
    // Wildcards have the most addresses.
    groups.sort_by_cached_key(|(group, _)| (Reverse(group.has_stars()), Reverse(group.patterns.len())));
    groups.truncate(MOST);
    let shared = groups.into_iter().map(|(group, class)| {
        let alone = alone(group, tiers);
        SharedNames {
            class,
            id: alone.id(),
            layout: SetLayout::of(&alone, |_| true, false),
            tiers: alone,
            is_overruled: class == SetClass::Allow && list.rules[..list.network.end].iter().any(denies_prefix),
            group: group.clone(),
        }
    });
    shared.collect()
}

/// How many lookups a packet pays at most for all of these.
pub(super) fn lookups(shared: &[SharedNames]) -> usize {
    shared.iter().map(SharedNames::lookups).sum()
}

/// The rules that need no entries, because all they say is said by these groups.
pub(super) fn covered(list: &RuleList, shared: &[SharedNames]) -> Vec<RuleIndex> {
    let is_covered = |index: RuleIndex, rule: &Rule| {
        let Some(pattern) = rule.plain_name() else {
            return false;
        };
        let is_admin = index < list.network.start;
        let saying = shared.iter().map(|shared| &shared.group).filter(|group| {
            (group.is_admin, group.lease) == (is_admin, rule.lease) && group.patterns.contains(pattern)
        });
        let ports = saying
            .map(|group| group.ports.clone())
            .reduce(|all, ports| all.union(&ports));
        let is_said = ports.is_some_and(|ports| rule.ports.subtract(&ports).is_empty());
        index < list.network.end && is_said
    };
    let rules = list.rules.iter().enumerate();
    let covered = rules.filter(|(index, rule)| is_covered(*index, rule));
    covered.map(|(index, _)| index).collect()
}

/// The class of all addresses of a group, unless something of an earlier class or a prefix decides
/// before it; `None` where something of a later class may.
fn uniform_class(group: &NameGroup, list: &RuleList) -> Option<SetClass> {
    let admin = &list.rules[..list.network.start];
    let only_allows = admin.iter().all(|rule| rule.action == Action::Allow);
    if group.is_admin {
        return only_allows.then_some(SetClass::Admin);
    }
    let passes = || admin.iter().filter(|rule| rule.action == Action::Pass);
    // Traffic without ports cannot be told apart where some ports are passed and others are not.
    let tells_apart = group.ports != PortSet::All || passes().next().is_none();
    // What an object passes is not denied by a prefix any more.
    let only_prefixes = passes().all(|rule| matches!(rule.peer, Peer::Prefix(..))) || !admin.iter().any(denies_prefix);
    (tells_apart && only_prefixes).then_some(SetClass::Allow)
}

fn denies_prefix(rule: &Rule) -> bool {
    rule.action == Action::Deny && matches!(rule.peer, Peer::Prefix(..))
}

/// Tiers that let the names of a group through on every port, and do nothing else. Who may teach
/// them is part of what they are.
fn alone(group: &NameGroup, tiers: &Tiers) -> Tiers {
    let rules = group.patterns.iter().map(|pattern| Rule {
        action: Action::Allow,
        peer: Peer::Name(pattern.clone()),
        ports: PortSet::All,
        named: Vec::new(),
        through: None,
        lease: group.lease,
        origins: Vec::new(),
    });
    Tiers {
        network: rules.collect(),
        teachers: tiers.teachers.clone(),
        ..Tiers::default()
    }
}
