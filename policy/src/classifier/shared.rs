//! Rules about objects that tiers look up in the sets of others.
//!
//! A rule may select whole namespaces, and a hundred programs may hold it. If each of them had an
//! element for each of its members, these would be millions. But where such a rule decides alike at
//! all its members, a lookup in a set of its members says what it decides. So the members stand
//! once in the kernel, however many programs hold the rule: in the sets of tiers that consist of
//! this rule alone.
//!
//! A shared rule is looked up at the place of a [`SetClass`]. It decides alike where nothing that
//! comes later in the order of classes can have decided before it. What comes *earlier* in that
//! order may have: an object's denial has an entry of its own, which is found first, and for
//! prefixes such an entry is added ([`overrule`]).
//!
//! Which rules are shared follows from the tiers alone, and not from how many members there are: a
//! program's chain is never written twice.

use super::evaluation::{Precedence, RuleList};
use super::layout::{self, SetLayout};
use super::{MOST_LOOKUPS, RuleIndex, SetClass, every_port};
use crate::extensions::LeaseTerms;
use crate::labels::{LabelSelector, Operator};
use crate::peer_selector::ObjectSelector;
use crate::policy::Action;
use crate::port_map::PortMap;
use crate::ports::PortSet;
use crate::program::{Peer, ProgramId, Rule, Tiers};
use crate::special_keys as keys;

/// A packet pays a lookup for each shared rule of its program.
const MOST: usize = 4;

/// A rule about objects whose members stand in the sets of other tiers.
#[derive(Debug, Clone)]
pub struct SharedRule {
    /// Which rule.
    pub index: RuleIndex,
    /// Where it is looked up: behind the tiers' own sets of this class. Such is its verdict.
    pub class: SetClass,
    /// The tiers that consist of this rule alone, and let its members through: whoever shares the
    /// rule looks its members up in their sets.
    pub tiers: Tiers,
    /// The id of `tiers`.
    pub id: ProgramId,
    /// The sets of `tiers`: for every port, or exact.
    pub layout: SetLayout,
    /// Whether prefixes may decide before it at some address.
    pub(super) may_be_overruled: bool,
}

/// The rules of these tiers that are shared, in order.
pub(super) fn shared_rules(tiers: &Tiers, list: &RuleList) -> Vec<SharedRule> {
    if is_alone(tiers) {
        return Vec::new();
    }
    // What is looked into is looked up elsewhere than where packets are let through.
    let classes = layout::classes(tiers).into_iter();
    let own = 3 * classes.filter(|class| *class != SetClass::Inspect).count();
    let most = MOST.min(MOST_LOOKUPS.saturating_sub(own));
    let rules = list.rules.iter().enumerate();
    let mut chosen: Vec<(usize, RuleIndex, SetClass)> = rules
        .filter(|(_, rule)| has_one_kind_of_set(rule) && rule.through.is_none())
        .filter_map(|(index, rule)| Some((asks_for(&rule.peer)?, index, uniform_class(list, index)?)))
        .filter(|(_, index, class)| !would_hide_portless(list, *index, *class))
        .collect();
    // Those that ask for least select most.
    chosen.sort_unstable();
    chosen.truncate(most);
    chosen.sort_unstable_by_key(|(_, index, _)| *index);
    let shared = chosen.into_iter().map(|(_, index, class)| {
        let alone = alone(&list.rules[index]);
        SharedRule {
            index,
            class,
            id: alone.id(),
            layout: SetLayout::of(&alone, |_| true, false),
            tiers: alone,
            may_be_overruled: may_be_overruled(list, class),
        }
    });
    shared.collect()
}

/// Whether prefixes may decide before a shared rule of this class at some address.
fn may_be_overruled(list: &RuleList, class: SetClass) -> bool {
    let mut rules = list.rules.iter().enumerate();
    rules.any(|(by, rule)| matches!(rule.peer, Peer::Prefix(..)) && may_overrule(list, by, class))
}

/// Whether a rule for all traffic would refuse what has no ports, since what overrules it is
/// written port by port ([`overrule`]): where some rule is for single ports.
fn would_hide_portless(list: &RuleList, index: RuleIndex, class: SetClass) -> bool {
    let is_of_ports = |rule: &Rule| rule.ports != PortSet::All;
    list.rules[index].ports == PortSet::All && list.rules.iter().any(is_of_ports) && may_be_overruled(list, class)
}

/// Whether a rule that matches the same address may decide before a shared rule of this class, and
/// otherwise.
pub(super) fn may_overrule(list: &RuleList, by: RuleIndex, class: SetClass) -> bool {
    let (is_admin, is_network) = (by < list.network.start, list.network.contains(&by));
    match list.rules[by].action {
        Action::Allow => class == SetClass::Deny && is_admin,
        Action::Deny => class == SetClass::Allow && (is_admin || is_network),
        Action::Pass => false,
    }
}

/// What must stand in sets of earlier classes, since a shared rule of `class` is found at an
/// address for these ports, and `decided` says otherwise.
pub(super) fn overrule(
    class: SetClass,
    ports: &PortSet,
    decided: &PortMap<Precedence>,
    add: &mut impl FnMut(SetClass, &PortSet),
) {
    let earlier = SetClass::ALL.into_iter().filter(|earlier| *earlier < class);
    for earlier in earlier.filter(|earlier| earlier.verdict() != class.verdict()) {
        let by_it = |by: Precedence| by.class() == earlier;
        if *ports != PortSet::All || !by_it(decided.base) {
            add(earlier, &decided.ports_where(ports, by_it));
        } else if decided.exceptions.iter().any(|(_, by)| by.class() > earlier) {
            // An entry for all traffic would hide these. Traffic without ports is refused.
            add(earlier, &decided.ports_where(&every_port(), by_it));
        } else {
            add(earlier, &PortSet::All);
            // It hides what prefixes decide before it.
            for first in SetClass::ALL.into_iter().filter(|first| *first < earlier) {
                add(first, &decided.ports_where(&PortSet::All, |by| by.class() == first));
            }
        }
    }
}

/// The class of all members of a rule, unless something of an earlier class decides before it;
/// `None` where something of a later class may.
fn uniform_class(list: &RuleList, index: RuleIndex) -> Option<SetClass> {
    let rule = &list.rules[index];
    let admin = &list.rules[..list.network.start];
    let passes = |rules: &[Rule]| rules.iter().any(|rule| rule.action == Action::Pass);
    // Traffic without ports cannot be told apart where some ports are passed and others are not.
    if rule.ports == PortSet::All && passes(admin) {
        return None;
    }
    match rule.action {
        Action::Allow if index < list.network.start => {
            let only_allows = admin[..index].iter().all(|rule| rule.action == Action::Allow);
            only_allows.then_some(SetClass::Admin)
        }
        Action::Deny if index < list.network.start => (!passes(&admin[..index])).then_some(SetClass::Deny),
        Action::Allow if list.network.contains(&index) => Some(SetClass::Allow),
        Action::Deny if list.network.contains(&index) => Some(SetClass::Deny),
        _ => None,
    }
}

/// How much a rule that may have many members asks for; `None` for the others.
fn asks_for(peer: &Peer) -> Option<usize> {
    match peer {
        Peer::Object(ObjectSelector::Pods(selector)) => is_wide(selector).then_some(selector.requirements.len()),
        Peer::Object(ObjectSelector::Nodes(selector)) => Some(selector.requirements.len()),
        Peer::Object(ObjectSelector::RemoteNodes) | Peer::PodsWithin(..) => Some(0),
        Peer::Object(_) | Peer::Prefix(..) | Peer::Name(_) => None,
    }
}

/// Whether a selector does not ask for some label of pods in some namespaces.
fn is_wide(selector: &LabelSelector) -> bool {
    let asks = |is_asked: fn(&str) -> bool| {
        let mut requirements = selector.requirements.iter();
        requirements.any(|it| matches!(it.operator, Operator::In(_)) && is_asked(&it.key))
    };
    let names_namespaces = asks(|key| match key.strip_prefix(keys::NAMESPACE_LABELS) {
        Some(label) => label == keys::NAMESPACE_NAME,
        None => key == keys::NAMESPACE,
    });
    let names_pods =
        asks(|key| !key.starts_with(keys::NAMESPACE_LABELS) && key != keys::NAMESPACE && key != keys::CLUSTER);
    !(names_namespaces && names_pods)
}

/// Whether one lookup finds all its members: all ports, or single ones.
fn has_one_kind_of_set(rule: &Rule) -> bool {
    match &rule.ports {
        PortSet::All => rule.named.is_empty(),
        PortSet::Ranges(ranges) => ranges
            .iter()
            .all(|range| range.protocol.has_ports() && range.first == range.last),
    }
}

/// Whether tiers are those that others look a shared rule up in.
fn is_alone(tiers: &Tiers) -> bool {
    let is_allowed = |rule: &Rule| rule.action == Action::Allow;
    tiers.admin.is_empty()
        && tiers.baseline.is_empty()
        && !tiers.closed()
        && matches!(tiers.network.as_slice(), [rule] if is_allowed(rule))
}

/// Tiers that let the members of a rule through, and do nothing else.
fn alone(rule: &Rule) -> Tiers {
    Tiers {
        network: vec![Rule {
            action: Action::Allow,
            lease: LeaseTerms::default(),
            origins: Vec::new(),
            ..rule.clone()
        }],
        ..Tiers::default()
    }
}
