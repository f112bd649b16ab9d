//! The tiers of a program → verdicts, in the form in which the kernel looks them up.
//!
//! Rules deny, allow and pass in any order. The kernel must decide a packet with a number of
//! lookups that does not grow with the rules, so a [`Classifier`] resolves the order beforehand:
//!
//! - What *prefixes* decide is known beforehand. For each [`AddressZone`] there are disjoint
//!   [`AddressInterval`]s, each with the verdict of every port.
//! - What *names and objects* add is known address by address. It becomes [`ClassifierEntry`]s:
//!   ports of an address, in the set of a [`SetClass`]. Classes are looked up in their order,
//!   before the intervals. An entry already accounts for every prefix rule before and after it. So
//!   between the entries of one address only the order of the classes matters, and each entry can
//!   be added and removed by itself.
//!
//! ```text
//! Admin   accepted in tier Admin               let through
//! Deny    denied in tier Admin or Network      refused
//! Allow   allowed in tier Network or later     let through
//! Inspect the same, for some connections       looked into
//! Rest    refused because no rule allows it    refused       (only where intervals say otherwise)
//! intervals, and what they leave open: [`Classifier::default_verdict`]
//! ```

mod connection;
mod entry;
mod evaluation;
mod layout;
mod shared;
mod shared_names;
mod spans;

use std::net::IpAddr;

use names::Pattern;
use smallvec::SmallVec;

use crate::policy::Action;
use crate::port_map::PortMap;
use crate::ports::{PortRange, PortSet, Protocol};
use crate::program::{Peer, Rule, Tiers, Verdict};
use crate::zone::AddressZone;

pub use connection::{ConnectionClass, ConnectionPeer};
pub use entry::{ClassifierEntries, ClassifierEntry, SetClass};
use evaluation::{Precedence, RuleList};
pub use layout::SetLayout;
pub use shared::SharedRule;
pub use shared_names::SharedNames;
use spans::RuleSpan;

/// The most lookups that the sets of classes, those of shared rules and those of shared names may
/// take together. A class takes three at most: the exact set, the set of the port's range, the set
/// for every port.
const MOST_LOOKUPS: usize = 12;

/// A rule, by its position in [`Tiers::rules`].
pub type RuleIndex = usize;

/// One address, and what is known of it besides names.
#[derive(Debug, Clone, Copy)]
pub struct AddressContext<'a> {
    /// The address that the entries are for.
    pub address: IpAddr,
    /// Where it lies.
    pub zone: AddressZone,
    /// The rules that mean it because an object has it, in order, with the ports that they mean
    /// there.
    pub objects: &'a [(RuleIndex, PortSet)],
}

/// Addresses that prefixes decide alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressInterval {
    /// The first address.
    pub first: IpAddr,
    /// The last, included; of the same family.
    pub last: IpAddr,
    /// The verdict of each port.
    pub verdicts: PortMap<Verdict>,
}

/// The compiled form of [`Tiers`].
#[derive(Debug, Clone)]
pub struct Classifier {
    list: RuleList,
    /// For each of [`AddressZone::ALL`] what prefix rules say, sorted by address.
    spans: [Vec<RuleSpan>; 3],
    /// What they say of every other address.
    elsewhere: PortMap<Precedence>,
    layout: SetLayout,
    shared: Vec<SharedRule>,
    shared_names: Vec<SharedNames>,
    /// The rules about names that need no entries, in order.
    covered: Vec<RuleIndex>,
    only_allows: bool,
}

impl Classifier {
    /// Compiles tiers. Takes time in proportion to the number of prefixes, and to how deep they lie
    /// in each other.
    pub fn new(tiers: &Tiers) -> Self {
        Self::with_shared(RuleList::of(tiers), tiers, Vec::new(), Vec::new())
    }

    /// As [`new`](Self::new), but rules that select whole namespaces are [shared](Self::shared):
    /// their members need no entries here, except where a prefix decides before such a rule. So are
    /// [names](Self::shared_names), whose addresses need none.
    pub fn sharing(tiers: &Tiers) -> Self {
        let list = RuleList::of(tiers);
        let shared = shared::shared_rules(tiers, &list);
        let names = shared_names::candidates(tiers, &list);
        Self::with_shared(list, tiers, shared, names)
    }

    /// `names` may be too many; the last ones are left out then.
    fn with_shared(list: RuleList, tiers: &Tiers, shared: Vec<SharedRule>, mut names: Vec<SharedNames>) -> Self {
        let is_overruled = shared.iter().any(|shared| shared.may_be_overruled);
        let (covered, layout) = loop {
            let covered = shared_names::covered(&list, &names);
            let has_entries = |index| {
                let shared = shared.iter().find(|shared| shared.index == index);
                shared.is_none_or(|shared| shared.may_be_overruled) && covered.binary_search(&index).is_err()
            };
            let layout = SetLayout::of(tiers, has_entries, is_overruled);
            let lookups = layout.lookups() + shared.len() + shared_names::lookups(&names);
            if lookups <= MOST_LOOKUPS || names.pop().is_none() {
                break (covered, layout);
            }
        };
        Self {
            spans: AddressZone::ALL.map(|zone| spans::spans(&list, zone)),
            elsewhere: list.evaluate(std::iter::empty()),
            layout,
            only_allows: layout::only_allows(tiers),
            list,
            shared,
            shared_names: names,
            covered,
        }
    }

    /// The verdict on a packet that no rule speaks of.
    pub fn default_verdict(&self) -> Verdict {
        match self.list.closed {
            true => Verdict::Deny,
            false => Verdict::Allow,
        }
    }

    /// Whether every rule allows all connections, and stands in tier Network: then nothing decides
    /// before another.
    pub fn only_allows(&self) -> bool {
        self.only_allows
    }

    /// All rules of the tiers, in the order of evaluation.
    pub fn rules(&self) -> &[Rule] {
        &self.list.rules
    }

    /// Whether some connections are looked into.
    pub fn inspects(&self) -> bool {
        self.list.rules.iter().any(|rule| rule.through.is_some())
    }

    /// Whether some other entry than those of [`SetClass::Inspect`] may be for a
    /// [port range](SetLayout::port_ranges).
    pub fn has_entries_beside_inspected(&self, range: PortRange) -> bool {
        let is_plain = |index: RuleIndex, rule: &Rule| {
            !matches!(rule.peer, Peer::Prefix(..)) && rule.through.is_none() && !self.is_covered(index)
        };
        let mut rules = self.list.rules.iter().enumerate();
        rules.any(|(index, rule)| is_plain(index, rule) && rule.ports.contains(range.protocol, range.first))
    }

    /// The rules about names.
    pub fn name_rules(&self) -> impl Iterator<Item = (RuleIndex, &Pattern)> {
        self.list
            .rules
            .iter()
            .enumerate()
            .filter_map(|(index, rule)| match &rule.peer {
                Peer::Name(pattern) => Some((index, pattern)),
                _ => None,
            })
    }

    /// The rules about objects; [`Inventory::members`](crate::Inventory::members) says which
    /// addresses they mean.
    pub fn object_rules(&self) -> impl Iterator<Item = (RuleIndex, &Rule)> {
        let objects = |(_, rule): &(RuleIndex, &Rule)| matches!(rule.peer, Peer::Object(_) | Peer::PodsWithin(..));
        self.list.rules.iter().enumerate().filter(objects)
    }

    /// The rules about objects whose members are looked up in the sets of other tiers, in order.
    pub fn shared(&self) -> &[SharedRule] {
        &self.shared
    }

    /// The names whose addresses are looked up in the sets of other tiers.
    pub fn shared_names(&self) -> &[SharedNames] {
        &self.shared_names
    }

    /// Whether a rule about names needs no entries, because [shared names](Self::shared_names) say
    /// all that it says.
    pub fn is_covered(&self, index: RuleIndex) -> bool {
        self.covered.binary_search(&index).is_ok()
    }

    /// The class that decides a packet to an address of [shared names](Self::shared_names), unless
    /// an earlier one holds it; `None` where they do not speak of this traffic.
    pub fn class_of_names(
        &self,
        names: &SharedNames,
        address: IpAddr,
        zone: AddressZone,
        traffic: Option<(Protocol, u16)>,
    ) -> Option<SetClass> {
        let speaks = match traffic {
            Some((protocol, port)) => names.group.ports.contains(protocol, port),
            None => names.group.ports == PortSet::All,
        };
        let denies = |span: &RuleSpan| span.ports.at(traffic).class() == SetClass::Deny;
        let is_denied = || names.is_overruled && self.span(address, zone).is_some_and(denies);
        speaks.then(|| if is_denied() { SetClass::Deny } else { names.class })
    }

    /// Where prefixes may decide before a shared rule, in one zone at least: the first and the last
    /// address of each range.
    pub fn overruled(&self) -> impl Iterator<Item = (IpAddr, IpAddr)> {
        let spans = self.spans.iter().flatten();
        let overruled = spans.filter(|span| self.may_overrule_shared(span));
        overruled.map(|span| (span.first, span.last))
    }

    fn may_overrule_shared(&self, span: &RuleSpan) -> bool {
        let may_overrule = |by: &RuleIndex| {
            let mut shared = self.shared.iter();
            shared.any(|shared| shared::may_overrule(&self.list, *by, shared.class))
        };
        span.rules.iter().any(may_overrule)
    }

    /// The sets that entries may stand in.
    pub fn layout(&self) -> &SetLayout {
        &self.layout
    }

    /// What prefixes decide in a zone, sorted by address and disjoint. Addresses that have the
    /// [default verdict](Self::default_verdict) for all traffic are left out.
    pub fn intervals(&self, zone: AddressZone) -> Vec<AddressInterval> {
        self.intervals_where(zone, self.default_verdict(), Precedence::verdict)
    }

    /// What prefixes deny in a zone before [names](Self::shared_names) that are allowed, in the
    /// form of [`intervals`](Self::intervals). Everything else is let through.
    pub fn denials(&self, zone: AddressZone) -> Vec<AddressInterval> {
        self.intervals_where(zone, Verdict::Allow, |by| match by.class() {
            SetClass::Deny => Verdict::Deny,
            SetClass::Admin | SetClass::Allow | SetClass::Inspect | SetClass::Rest => Verdict::Allow,
        })
    }

    /// Addresses that have the default for all traffic are left out.
    fn intervals_where(
        &self,
        zone: AddressZone,
        default: Verdict,
        verdict: impl Fn(Precedence) -> Verdict,
    ) -> Vec<AddressInterval> {
        let default = PortMap::uniform(default);
        let mut intervals: Vec<AddressInterval> = Vec::new();
        for span in self.spans_of(zone) {
            let verdicts = span.ports.map(&verdict);
            if verdicts == default {
                continue;
            }
            match intervals.last_mut() {
                Some(before) if spans::follows(before.last, span.first) && before.verdicts == verdicts => {
                    before.last = span.last;
                }
                _ => intervals.push(AddressInterval {
                    first: span.first,
                    last: span.last,
                    verdicts,
                }),
            }
        }
        intervals
    }

    /// The entries of an address that a name resolved to, for a name rule that matches the name.
    pub fn entries_for_name(&self, index: RuleIndex, at: AddressContext<'_>) -> ClassifierEntries {
        let Some(rule) = self.list.rules.get(index) else {
            return ClassifierEntries::new();
        };
        if index < self.list.network.start {
            let mut free = PortMap::uniform(true);
            let earlier = self.matching(at).filter(|(other, _)| *other < index);
            earlier.for_each(|(_, ports)| free.change(ports, |_| false));
            return entries(SetClass::Admin, &rule.ports, &free, &PortMap::uniform(None));
        }
        let decided = self.evaluate(at);
        match rule.action {
            Action::Deny => {
                let counts = decided.map(|by| !matches!(by, Precedence::Admin(_)));
                let accepted = decided.map(|by| (by.class() == SetClass::Admin).then_some(SetClass::Admin));
                entries(SetClass::Deny, &rule.ports, &counts, &accepted)
            }
            Action::Allow | Action::Pass => {
                let class = match rule.through {
                    None => SetClass::Allow,
                    Some(_) => SetClass::Inspect,
                };
                // What lets every connection through decides before what looks into them.
                let counts = decided.map(|by| match by {
                    Precedence::Allowed => class == SetClass::Allow,
                    Precedence::Inspected | Precedence::Rest(_) => true,
                    Precedence::Admin(_) | Precedence::Denied => false,
                });
                let denied = decided.map(|by| (by.class() == SetClass::Deny).then_some(SetClass::Deny));
                entries(class, &rule.ports, &counts, &denied)
            }
        }
    }

    /// The entries of an address for all rules that mean it because an object has it: the ports
    /// that these rules decide otherwise than prefixes and the [shared](Self::shared) ones among
    /// them.
    pub fn entries_for_objects(&self, at: AddressContext<'_>) -> ClassifierEntries {
        let class_of = |index: RuleIndex| {
            let shared = self.shared.iter().find(|shared| shared.index == index);
            shared.map(|shared| shared.class)
        };
        let shared: SmallVec<[(RuleIndex, PortSet); 2]> = at
            .objects
            .iter()
            .filter(|(index, _)| class_of(*index).is_some())
            .cloned()
            .collect();
        let span = self.span(at.address, at.zone);
        let is_overruled = !shared.is_empty() && span.is_some_and(|span| self.may_overrule_shared(span));
        if shared.len() == at.objects.len() && !is_overruled {
            return ClassifierEntries::new();
        }
        if self.only_allows && span.is_none() {
            // Nothing else decides. Thousands of members come here.
            let own = at.objects.iter().filter(|(index, _)| class_of(*index).is_none());
            let ports = own
                .map(|(_, ports)| ports.clone())
                .reduce(|all, ports| all.union(&ports));
            let ports = ports.filter(|ports| !ports.is_empty());
            let class = SetClass::Allow;
            return ports
                .map(|ports| ClassifierEntry { class, ports })
                .into_iter()
                .collect();
        }
        let with = self.evaluate(at);
        let without = self.evaluate(AddressContext { objects: &shared, ..at });
        let mut sets = SetClass::ALL.map(|_| PortSet::Ranges(Vec::new()));
        let mut add = |class: SetClass, ports: &PortSet| {
            let known = &mut sets[class as usize];
            *known = known.union(ports);
        };
        for (range, (by, before)) in with.zip(&without).exceptions {
            if by != before {
                add(by.class(), &PortSet::Ranges(vec![range]));
            }
        }
        if with.base != without.base {
            let class = with.base.class();
            let is_hidden = with.exceptions.iter().any(|(_, by)| by.class() > class);
            if is_hidden {
                // An entry for all traffic would hide these, so there is one for each port. Traffic
                // without ports is left to the intervals.
                add(class, &with.ports_where(&every_port(), |by| by.class() == class));
                if class.verdict() == Verdict::Deny {
                    // The intervals must not let that traffic through: an entry of the last class
                    // refuses it. That entry hides the intervals, so what these allow is added too.
                    add(SetClass::Rest, &PortSet::All);
                    for allowing in [SetClass::Admin, SetClass::Allow, SetClass::Inspect] {
                        add(allowing, &with.ports_where(&PortSet::All, |by| by.class() == allowing));
                    }
                }
            } else {
                add(class, &PortSet::All);
                // It hides the intervals, so what comes before it is added, whether new or not.
                for first in SetClass::ALL.into_iter().filter(|first| *first < class) {
                    add(first, &with.ports_where(&PortSet::All, |by| by.class() == first));
                }
            }
        }
        if is_overruled {
            for (index, ports) in &shared {
                if let Some(class) = class_of(*index) {
                    shared::overrule(class, ports, &with, &mut add);
                }
            }
        }
        let entries = SetClass::ALL
            .into_iter()
            .zip(sets)
            .filter(|(_, ports)| !ports.is_empty());
        entries.map(|(class, ports)| ClassifierEntry { class, ports }).collect()
    }

    /// The verdict on a packet whose other end is an address with these entries. `traffic` is the
    /// port, or `None` for a protocol that is not told apart.
    ///
    /// The kernel's algorithm in Rust, for tests and explanations.
    pub fn verdict<'e>(
        &self,
        address: IpAddr,
        zone: AddressZone,
        entries: impl Iterator<Item = &'e ClassifierEntry> + Clone,
        traffic: Option<(Protocol, u16)>,
    ) -> Verdict {
        let holds = |ports: &PortSet| match traffic {
            Some((protocol, port)) => ports.contains(protocol, port),
            None => *ports == PortSet::All,
        };
        let found = |class: &SetClass| {
            entries
                .clone()
                .any(|entry| entry.class == *class && holds(&entry.ports))
        };
        match SetClass::ALL.into_iter().find(found) {
            Some(class) => class.verdict(),
            None => self.span(address, zone).map_or_else(
                || self.elsewhere.at(traffic).verdict(),
                |span| span.ports.at(traffic).verdict(),
            ),
        }
    }

    /// What decides each port of an address, names left aside.
    fn evaluate(&self, at: AddressContext<'_>) -> PortMap<Precedence> {
        if !at.objects.is_empty() {
            return self.list.evaluate(self.matching(at));
        }
        let span = self.span(at.address, at.zone);
        span.map_or_else(|| self.elsewhere.clone(), |span| span.ports.clone())
    }

    /// The prefix and object rules that mean an address, in order.
    fn matching<'a>(&'a self, at: AddressContext<'a>) -> impl Iterator<Item = (RuleIndex, &'a PortSet)> {
        let span = self.span(at.address, at.zone);
        let by_prefix = span.into_iter().flat_map(|span| &span.rules);
        let by_prefix = by_prefix.map(|index| (*index, &self.list.rules[*index].ports));
        let by_object = at.objects.iter().map(|(index, ports)| (*index, ports));
        let mut all: SmallVec<[_; 8]> = by_prefix.chain(by_object).collect();
        all.sort_by_key(|(index, _)| *index);
        all.into_iter()
    }

    fn span(&self, address: IpAddr, zone: AddressZone) -> Option<&RuleSpan> {
        let spans = self.spans_of(zone);
        let after = spans.partition_point(|span| span.first <= address);
        let span = spans.get(after.checked_sub(1)?)?;
        (address <= span.last).then_some(span)
    }

    fn spans_of(&self, zone: AddressZone) -> &[RuleSpan] {
        &self.spans[zone as usize]
    }
}

/// The entries of `class` for those of `ports` that count. Where that is all traffic with
/// exceptions, the exceptions that another class decides become entries of that class.
fn entries(
    class: SetClass,
    ports: &PortSet,
    counts: &PortMap<bool>,
    stronger: &PortMap<Option<SetClass>>,
) -> ClassifierEntries {
    let all_but_exceptions = *ports == PortSet::All && counts.base;
    let ports = match all_but_exceptions {
        false => counts.ports_where(ports, |counts| counts),
        true if counts.exceptions.is_empty() => PortSet::All,
        // Nothing is looked up before this class, so nothing can be excepted from all traffic.
        // Traffic without ports is not opened.
        true if class == SetClass::Admin => counts.ports_where(&every_port(), |counts| counts),
        true => PortSet::All,
    };
    let mut entries = ClassifierEntries::new();
    if all_but_exceptions && class != SetClass::Admin {
        for first in SetClass::ALL {
            let ports = stronger.ports_where(&PortSet::All, |by| by == Some(first));
            if !ports.is_empty() {
                entries.push(ClassifierEntry { class: first, ports });
            }
        }
    }
    if !ports.is_empty() {
        entries.push(ClassifierEntry { class, ports });
    }
    entries
}

/// Every port that can be told apart. [`PortSet::All`] also holds the protocols that cannot.
fn every_port() -> PortSet {
    PortSet::Ranges(Protocol::ALL.map(PortRange::every).to_vec())
}

#[cfg(test)]
mod tests;
