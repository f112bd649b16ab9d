//! The tiers of a program → verdicts, in the form in which the kernel looks them up.
//!
//! Rules come in any order of denials, allowances and passes; the kernel is to decide a packet with
//! a number of lookups that does not depend on how many there are. So the order is folded away
//! here:
//!
//! - What *prefixes* alone decide is known beforehand: for each [`Place`], disjoint [`Interval`]s
//!   of addresses, each with the verdict of every port.
//! - What *names and objects* add is said for single addresses, as [`Door`]s: address and ports go
//!   into the set of a [`Class`]. Classes are looked up in their order, before the intervals. A
//!   door already takes account of every prefix rule that comes before or after it, so between
//!   doors of one address only the order of the classes matters, and each can come and go by
//!   itself.
//!
//! ```text
//! Admin   accepted in tier Admin               let through
//! Deny    denied in tier Admin or Network      refused
//! Allow   allowed in tier Network or later     let through
//! Rest    refused for want of any rule         refused       (only where the intervals would say something else)
//! intervals, and what they leave open: [`Fold::rest`]
//! ```

mod possible;
mod sweep;

use std::net::IpAddr;

use names::Pattern;
use smallvec::SmallVec;

use crate::policy::{Action, Zone};
use crate::port_map::PortMap;
use crate::ports::{PortRange, PortSet, Protocol};
use crate::program::{Destination, Rule, Tiers, Verdict};

pub use possible::Possible;
use sweep::Span;

/// Where an address lies; a finer [`Zone`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// Outside the cluster.
    World,
    /// Inside the cluster, and not this node.
    Cluster,
    /// This node.
    Host,
}

impl Place {
    /// All of them.
    pub const ALL: [Place; 3] = [Place::World, Place::Cluster, Place::Host];

    /// Whether it is part of a zone.
    pub fn is_in(self, zone: Zone) -> bool {
        match zone {
            Zone::Anywhere => true,
            Zone::World => self == Place::World,
            Zone::Cluster => self != Place::World,
            Zone::Host => self == Place::Host,
        }
    }
}

/// Which set a door stands in, in the order in which they are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Accepted in tier Admin.
    Admin,
    /// Denied in tier Admin or Network.
    Deny,
    /// Allowed in tier Network or later.
    Allow,
    /// Refused for want of any rule.
    Rest,
}

impl Class {
    /// All of them, in order.
    pub const ALL: [Class; 4] = [Class::Admin, Class::Deny, Class::Allow, Class::Rest];

    /// What becomes of a packet that is found in such a set.
    pub fn verdict(self) -> Verdict {
        match self {
            Class::Admin | Class::Allow => Verdict::Allow,
            Class::Deny | Class::Rest => Verdict::Deny,
        }
    }
}

/// Ports of an address, in the set of a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// Which set.
    pub class: Class,
    /// Which ports; not empty.
    pub ports: PortSet,
}

/// What one address needs, for one name or for all objects that have it.
pub type Doors = SmallVec<[Door; 1]>;

/// A rule, by its place in [`Tiers::rules`].
pub type RuleIndex = usize;

/// One address, and what is known of it beside names.
#[derive(Debug, Clone, Copy)]
pub struct At<'a> {
    /// The address.
    pub address: IpAddr,
    /// Where it lies.
    pub place: Place,
    /// The rules that mean it because it is an object's, in order, with the ports that they mean
    /// there.
    pub objects: &'a [(RuleIndex, PortSet)],
}

/// Addresses that prefixes decide alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interval {
    /// The first address.
    pub first: IpAddr,
    /// The last, included; of the same family.
    pub last: IpAddr,
    /// The verdict of each port.
    pub verdicts: PortMap<Verdict>,
}

/// Tiers, folded.
#[derive(Debug, Clone)]
pub struct Fold {
    rules: Vec<Rule>,
    /// Where tier Network begins in `rules`, and where it ends.
    network: std::ops::Range<RuleIndex>,
    closed: bool,
    /// For each of [`Place::ALL`] what prefix rules say, sorted by address.
    spans: [Vec<Span>; 3],
    /// What they say of every other address.
    elsewhere: PortMap<Level>,
    possible: Possible,
}

/// Which rule decides: what a name or an object must come before to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Admin(Verdict),
    Denied,
    Allowed,
    Rest(Verdict),
}

impl Level {
    fn class(self) -> Class {
        match self {
            Level::Admin(Verdict::Allow) => Class::Admin,
            Level::Admin(Verdict::Deny) | Level::Denied => Class::Deny,
            Level::Allowed | Level::Rest(Verdict::Allow) => Class::Allow,
            Level::Rest(Verdict::Deny) => Class::Rest,
        }
    }

    fn verdict(self) -> Verdict {
        self.class().verdict()
    }
}

/// A port while the rules are gone through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Open,
    /// Left to the next tier.
    Passed,
    Decided(Level),
}

impl Fold {
    /// Folds tiers. Takes time in proportion to the prefixes, and to how deep they lie in each
    /// other.
    pub fn new(tiers: &Tiers) -> Self {
        let begin = tiers.admin.len();
        let mut fold = Self {
            rules: tiers.rules().cloned().collect(),
            network: begin..begin + tiers.network.len(),
            closed: tiers.closed(),
            spans: Default::default(),
            elsewhere: PortMap::uniform(Level::Rest(Verdict::Allow)),
            possible: Possible::of(tiers),
        };
        fold.elsewhere = fold.levels_by(std::iter::empty());
        fold.spans = Place::ALL.map(|place| sweep::spans(&fold, place));
        fold
    }

    /// The verdict of what nothing speaks of.
    pub fn rest(&self) -> Verdict {
        match self.closed {
            true => Verdict::Deny,
            false => Verdict::Allow,
        }
    }

    /// Every rule.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The rules about names.
    pub fn names(&self) -> impl Iterator<Item = (RuleIndex, &Pattern)> {
        self.rules
            .iter()
            .enumerate()
            .filter_map(|(index, rule)| match &rule.to {
                Destination::Name(pattern) => Some((index, pattern)),
                _ => None,
            })
    }

    /// The rules about objects; [`Inventory::members`](crate::Inventory::members) says which
    /// addresses they mean.
    pub fn objects(&self) -> impl Iterator<Item = (RuleIndex, &Rule)> {
        let objects =
            |(_, rule): &(RuleIndex, &Rule)| matches!(rule.to, Destination::Object(_) | Destination::PodsWithin(..));
        self.rules.iter().enumerate().filter(objects)
    }

    /// What doors there may be.
    pub fn possible(&self) -> &Possible {
        &self.possible
    }

    /// What prefixes decide in a place, where it is not [`rest`](Self::rest) for all traffic:
    /// sorted by address, disjoint.
    pub fn intervals(&self, place: Place) -> Vec<Interval> {
        let rest = PortMap::uniform(self.rest());
        let mut intervals: Vec<Interval> = Vec::new();
        for span in self.spans_of(place) {
            let verdicts = span.levels.map(Level::verdict);
            if verdicts == rest {
                continue;
            }
            match intervals.last_mut() {
                Some(before) if sweep::follows(before.last, span.first) && before.verdicts == verdicts => {
                    before.last = span.last;
                }
                _ => intervals.push(Interval {
                    first: span.first,
                    last: span.last,
                    verdicts,
                }),
            }
        }
        intervals
    }

    /// The doors of an address that a name resolved to, for a rule about names that matches it.
    pub fn learned(&self, index: RuleIndex, at: At<'_>) -> Doors {
        let Some(rule) = self.rules.get(index) else {
            return Doors::new();
        };
        if index < self.network.start {
            let mut free = PortMap::uniform(true);
            let earlier = self.matching(at).filter(|(other, _)| *other < index);
            earlier.for_each(|(_, ports)| free.change(ports, |_| false));
            return doors(Class::Admin, &rule.ports, &free, &PortMap::uniform(None));
        }
        let levels = self.levels(at);
        match rule.action {
            Action::Deny => {
                let counts = levels.map(|level| !matches!(level, Level::Admin(_)));
                let accepted = levels.map(|level| (level.class() == Class::Admin).then_some(Class::Admin));
                doors(Class::Deny, &rule.ports, &counts, &accepted)
            }
            Action::Allow | Action::Pass => {
                let counts = levels.map(|level| matches!(level, Level::Allowed | Level::Rest(_)));
                let denied = levels.map(|level| (level.class() == Class::Deny).then_some(Class::Deny));
                doors(Class::Allow, &rule.ports, &counts, &denied)
            }
        }
    }

    /// The doors of an address for all rules that mean it because it is an object's: what is
    /// decided otherwise than by prefixes alone.
    pub fn member(&self, at: At<'_>) -> Doors {
        let with = self.levels(at);
        let without = self.levels(At { objects: &[], ..at });
        let mut sets = Class::ALL.map(|_| PortSet::Ranges(Vec::new()));
        let mut add = |class: Class, ports: &PortSet| {
            let known = &mut sets[class as usize];
            *known = known.union(ports);
        };
        for (range, (level, before)) in with.zip(&without).exceptions {
            if level != before {
                add(level.class(), &PortSet::Ranges(vec![range]));
            }
        }
        if with.base != without.base {
            let class = with.base.class();
            let is_hidden = with.exceptions.iter().any(|(_, level)| level.class() > class);
            if is_hidden {
                // A door for all traffic would hide these, so it is said port by port; what has no
                // ports is left to the intervals.
                add(class, &with.ports_where(&every_port(), |level| level.class() == class));
                if class.verdict() == Verdict::Deny {
                    // But it is not let through: it is refused after all else, and before the
                    // intervals, so what these let through is said too.
                    add(Class::Rest, &PortSet::All);
                    for allowing in [Class::Admin, Class::Allow] {
                        add(
                            allowing,
                            &with.ports_where(&PortSet::All, |level| level.class() == allowing),
                        );
                    }
                }
            } else {
                add(class, &PortSet::All);
                // It hides the intervals, so what comes before is said, whether it is new or not.
                for first in Class::ALL.into_iter().filter(|first| *first < class) {
                    add(first, &with.ports_where(&PortSet::All, |level| level.class() == first));
                }
            }
        }
        let doors = Class::ALL.into_iter().zip(sets).filter(|(_, ports)| !ports.is_empty());
        doors.map(|(class, ports)| Door { class, ports }).collect()
    }

    /// What becomes of a packet to an address that has these doors. `traffic` is the port, or
    /// `None` for a protocol that is not told apart.
    ///
    /// What the kernel does, done here: for tests, and to explain it.
    pub fn verdict<'d>(
        &self,
        address: IpAddr,
        place: Place,
        doors: impl Iterator<Item = &'d Door> + Clone,
        traffic: Option<(Protocol, u16)>,
    ) -> Verdict {
        let holds = |ports: &PortSet| match traffic {
            Some((protocol, port)) => ports.contains(protocol, port),
            None => *ports == PortSet::All,
        };
        let found = |class: &Class| doors.clone().any(|door| door.class == *class && holds(&door.ports));
        match Class::ALL.into_iter().find(found) {
            Some(class) => class.verdict(),
            None => self.span(address, place).map_or_else(
                || self.elsewhere.at(traffic).verdict(),
                |span| span.levels.at(traffic).verdict(),
            ),
        }
    }

    fn levels(&self, at: At<'_>) -> PortMap<Level> {
        if !at.objects.is_empty() {
            return self.levels_by(self.matching(at));
        }
        let span = self.span(at.address, at.place);
        span.map_or_else(|| self.elsewhere.clone(), |span| span.levels.clone())
    }

    /// The rules that mean an address, but for names, in order.
    fn matching<'a>(&'a self, at: At<'a>) -> impl Iterator<Item = (RuleIndex, &'a PortSet)> {
        let span = self.span(at.address, at.place);
        let by_prefix = span.into_iter().flat_map(|span| &span.rules);
        let by_prefix = by_prefix.map(|index| (*index, &self.rules[*index].ports));
        let by_object = at.objects.iter().map(|(index, ports)| (*index, ports));
        let mut all: SmallVec<[_; 8]> = by_prefix.chain(by_object).collect();
        all.sort_by_key(|(index, _)| *index);
        all.into_iter()
    }

    /// Goes through rules, in order, as a packet would.
    fn levels_by<'a>(&self, rules: impl Iterator<Item = (RuleIndex, &'a PortSet)>) -> PortMap<Level> {
        let mut progress = PortMap::uniform(Progress::Open);
        let mut tier = 0;
        for (index, ports) in rules {
            while tier < self.tier_of(index) {
                self.end_tier(tier, &mut progress);
                tier += 1;
            }
            let verdict = match self.rules[index].action {
                Action::Allow => Some(Verdict::Allow),
                Action::Deny => Some(Verdict::Deny),
                Action::Pass => None,
            };
            let outcome = match (tier, verdict) {
                (_, None) => Progress::Passed,
                (0, Some(verdict)) => Progress::Decided(Level::Admin(verdict)),
                (1, Some(Verdict::Allow)) => Progress::Decided(Level::Allowed),
                (1, Some(Verdict::Deny)) => Progress::Decided(Level::Denied),
                (_, Some(verdict)) => Progress::Decided(Level::Rest(verdict)),
            };
            progress.change(ports, |now| if now == Progress::Open { outcome } else { now });
        }
        while tier < 3 {
            self.end_tier(tier, &mut progress);
            tier += 1;
        }
        progress.map(|progress| match progress {
            Progress::Decided(level) => level,
            Progress::Open | Progress::Passed => Level::Rest(Verdict::Allow),
        })
    }

    fn tier_of(&self, index: RuleIndex) -> u8 {
        u8::from(index >= self.network.start) + u8::from(index >= self.network.end)
    }

    fn end_tier(&self, tier: u8, progress: &mut PortMap<Progress>) {
        let refuses_the_rest = tier == 1 && self.closed;
        *progress = progress.map(|now| match now {
            Progress::Open | Progress::Passed if refuses_the_rest => Progress::Decided(Level::Rest(Verdict::Deny)),
            Progress::Passed => Progress::Open,
            now => now,
        });
    }

    fn span(&self, address: IpAddr, place: Place) -> Option<&Span> {
        let spans = self.spans_of(place);
        let after = spans.partition_point(|span| span.first <= address);
        let span = spans.get(after.checked_sub(1)?)?;
        (address <= span.last).then_some(span)
    }

    fn spans_of(&self, place: Place) -> &[Span] {
        &self.spans[place as usize]
    }
}

/// The doors of `class` at those of `ports` that count. Where that is all traffic with exceptions,
/// the exceptions that another class says are doors of their own.
fn doors(class: Class, ports: &PortSet, counts: &PortMap<bool>, stronger: &PortMap<Option<Class>>) -> Doors {
    let all_but_exceptions = *ports == PortSet::All && counts.base;
    let ports = match all_but_exceptions {
        false => counts.ports_where(ports, |counts| counts),
        true if counts.exceptions.is_empty() => PortSet::All,
        // Nothing is looked up before this class, so nothing can be excepted from all traffic; what
        // has no ports is not opened.
        true if class == Class::Admin => counts.ports_where(&every_port(), |counts| counts),
        true => PortSet::All,
    };
    let mut doors = Doors::new();
    if all_but_exceptions && class != Class::Admin {
        for first in Class::ALL {
            let ports = stronger.ports_where(&PortSet::All, |said| said == Some(first));
            if !ports.is_empty() {
                doors.push(Door { class: first, ports });
            }
        }
    }
    if !ports.is_empty() {
        doors.push(Door { class, ports });
    }
    doors
}

/// All that can be told apart. Unlike [`PortSet::All`] without the protocols that cannot.
fn every_port() -> PortSet {
    PortSet::Ranges(Protocol::ALL.map(PortRange::every).to_vec())
}

#[cfg(test)]
mod tests;
