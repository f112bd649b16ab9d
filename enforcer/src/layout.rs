//! How a program becomes chains and sets.
//!
//! Each program has a chain per family and, where it has name rules, *learned sets*: hash sets with
//! timeouts. A name rule's ports decide which learned set its addresses go to:
//!
//! | ports of the rule | set | key |
//! |---|---|---|
//! | single ports, and ranges of at most [`EXPANDED_RANGE`] ports, [`EXPANDED_PORTS`] in all at most | exact | address . protocol . port |
//! | a wider range among them, more ports, or every port | one *group* per distinct port set | address |
//!
//! so that a packet costs one lookup for all exact entries, and one more for each group, however many
//! names and addresses there are. Learned addresses never go into interval sets. A rule goes to one set as a whole: where a wide
//! range stands beside single ports, the single ports are part of the group too.
//!
//! Groups are numbered for each half by itself, in the order in which their port sets first occur among the half's name
//! rules. That order is part of a program's identity, so the numbers mean the same to every process.
//!
//! # In the kernel
//! A learned set is named `allow4-<program>` or, for a group, `allow4-<program>-g<number>` (likewise `allow6`, `deny4`, `deny6`);
//! [`SetId`] reads such names back, which is how a new process adopts the sets of the one before it. Types:
//! `ipv4_addr . inet_proto . inet_service` for exact sets, `ipv4_addr` for groups (or `ipv6_addr`), both with the flag `timeout`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use policy::program::{NameRule, Rules};
use policy::{Pattern, PortRange, PortSet, Program, ProgramId, Protocol};
use smallvec::SmallVec;
use thiserror::Error;

/// The widest range that is written as single ports: an element a port is still cheaper than a lookup for every packet.
pub const EXPANDED_RANGE: u16 = 16;

/// The most elements that one address may need in an exact set; a rule with more ports becomes a group.
pub const EXPANDED_PORTS: usize = 64;

/// The heartbeat: a set of `inet_proto` with timeouts that a living agent keeps filled with [`ALIVE_PROTOCOLS`].
///
/// In fail-mode open lookups are intercepted only while it holds their protocol. Its key is the IP protocol and not, say,
/// the address family, because that is what the typed documents can express; both keys come and go together.
pub const ALIVE_SET: &str = "alive";

/// The keys of the heartbeat set, one octet each: TCP and UDP.
pub const ALIVE_PROTOCOLS: [u8; 2] = [6, 17];

/// The address family of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Which half of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// Looked up first.
    Deny,
    /// Looked up second.
    Allow,
}

/// Which learned set of a half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SetKind {
    /// Keys are address . protocol . port.
    Exact,
    /// Keys are addresses; the number tells the port group, counted in the program's order.
    Group(u16),
}

/// A learned set. Its name in the kernel is its `Display`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetId {
    /// Whose.
    pub program: ProgramId,
    /// Which half.
    pub side: Side,
    /// Which set.
    pub kind: SetKind,
    /// Which family.
    pub family: Family,
}

/// A name in the kernel that is not a learned set's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not the name of a learned set (such as allow4-0123456789abcdef or deny6-0123456789abcdef-g0)")]
pub struct NotALearnedSet(pub String);

/// The key of an element of a learned set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ElementKey {
    /// The learned address.
    pub address: IpAddr,
    /// Protocol and port, in exact sets.
    pub port: Option<(Protocol, u16)>,
}

/// One element of one learned set: one door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Element {
    /// The set.
    pub set: SetId,
    /// The key.
    pub key: ElementKey,
}

/// What an address learned for a pattern opens (or closes) in one program, before its family is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The program.
    pub program: ProgramId,
    /// Which half.
    pub side: Side,
    /// Which set.
    pub kind: SetKind,
    /// The ports, in an exact set; empty in a group.
    pub ports: SmallVec<[(Protocol, u16); 2]>,
}

/// For each name rule of a program, what its addresses open or close: the denying half first, each half in the program's order.
///
/// A rule whose port set is empty matches nothing and has no target.
pub fn targets(id: ProgramId, program: &Program) -> Vec<(&Pattern, Target)> {
    let mut targets = Vec::with_capacity(program.deny.names.len() + program.allow.names.len());
    for (side, rules) in [(Side::Deny, &program.deny), (Side::Allow, &program.allow)] {
        let mut groups = Groups::default();
        for NameRule { pattern, ports, .. } in &rules.names {
            if let Some((kind, ports)) = groups.place(ports) {
                let target = Target {
                    program: id,
                    side,
                    kind,
                    ports,
                };
                targets.push((pattern, target));
            }
        }
    }
    targets
}

/// The learned sets that one half of a program uses.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct LearnedSets {
    /// Whether some name rule has its addresses in the exact set.
    pub(crate) exact: bool,
    /// The port set of each group; its place is its number.
    pub(crate) groups: Vec<PortSet>,
}

impl LearnedSets {
    /// Those of `rules`.
    pub(crate) fn of(rules: &Rules) -> Self {
        let mut exact = false;
        let mut groups = Groups::default();
        for rule in &rules.names {
            if let Some((SetKind::Exact, _)) = groups.place(&rule.ports) {
                exact = true;
            }
        }
        Self {
            exact,
            groups: groups.0.into_iter().cloned().collect(),
        }
    }

    /// Their kinds, the exact one first.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = SetKind> {
        self.kinds_with_ports().map(|(kind, _)| kind)
    }

    /// Their kinds; with a group goes its port set.
    pub(crate) fn kinds_with_ports(&self) -> impl Iterator<Item = (SetKind, Option<&PortSet>)> {
        let exact = self.exact.then_some((SetKind::Exact, None));
        // `Groups::place` makes no more groups than a number can name.
        let groups = (0..=u16::MAX).zip(&self.groups);
        exact
            .into_iter()
            .chain(groups.map(|(number, ports)| (SetKind::Group(number), Some(ports))))
    }
}

/// The distinct port sets met so far in one half; the place of each is its group's number.
#[derive(Default)]
struct Groups<'a>(Vec<&'a PortSet>);

type Ports = SmallVec<[(Protocol, u16); 2]>;

impl<'a> Groups<'a> {
    /// Where addresses with these ports go; nowhere if there are no ports.
    fn place(&mut self, ports: &'a PortSet) -> Option<(SetKind, Ports)> {
        if ports.is_empty() {
            return None;
        }
        if let Some(single) = as_single_ports(ports) {
            return Some((SetKind::Exact, single));
        }
        let place = self.0.iter().position(|known| *known == ports).unwrap_or_else(|| {
            self.0.push(ports);
            self.0.len() - 1
        });
        match u16::try_from(place) {
            Ok(number) => Some((SetKind::Group(number), Ports::new())),
            Err(_) => {
                // More distinct port sets than numbers. Such a chain would be unbearably slow anyway; it is
                // still right with every port as an element.
                self.0.pop();
                Some((SetKind::Exact, every_port(ports).collect()))
            }
        }
    }
}

/// The ports one by one, if they are few enough for the exact set.
fn as_single_ports(ports: &PortSet) -> Option<Ports> {
    let PortSet::Ranges(ranges) = ports else { return None };
    if ranges.iter().any(|range| range.last - range.first >= EXPANDED_RANGE) {
        return None;
    }
    let single: Ports = every_port(ports).take(EXPANDED_PORTS + 1).collect();
    (single.len() <= EXPANDED_PORTS).then_some(single)
}

fn every_port(ports: &PortSet) -> impl Iterator<Item = (Protocol, u16)> {
    let ranges = match ports {
        PortSet::Ranges(ranges) => ranges.clone(),
        PortSet::All => Protocol::ALL
            .map(|protocol| PortRange {
                protocol,
                first: 0,
                last: u16::MAX,
            })
            .to_vec(),
    };
    ranges
        .into_iter()
        .flat_map(|range| (range.first..=range.last).map(move |port| (range.protocol, port)))
}

impl Target {
    /// The elements that `address` needs.
    pub fn elements(&self, address: IpAddr) -> impl Iterator<Item = Element> + '_ {
        let set = SetId {
            program: self.program,
            side: self.side,
            kind: self.kind,
            family: Family::of(address),
        };
        let without_port = match self.kind {
            SetKind::Exact => None,
            SetKind::Group(_) => Some(None),
        };
        let with_ports = self.ports.iter().copied().map(Some);
        without_port.into_iter().chain(with_ports).map(move |port| Element {
            set,
            key: ElementKey { address, port },
        })
    }
}

impl Family {
    /// Both, in the order in which they are always written.
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }
}

impl fmt::Display for Family {
    /// `4` or `6`, as it stands at the end of set names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "4",
            Family::V6 => "6",
        })
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Deny => "deny",
            Side::Allow => "allow",
        })
    }
}

impl fmt::Display for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            program,
            side,
            kind,
            family,
        } = self;
        write!(f, "{side}{family}-{program}")?;
        match kind {
            SetKind::Exact => Ok(()),
            SetKind::Group(number) => write!(f, "-g{number}"),
        }
    }
}

impl FromStr for SetId {
    type Err = NotALearnedSet;

    /// The inverse of `Display`, and of nothing else: one set has one name.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        read_set_name(name)
            .filter(|set| set.to_string() == name)
            .ok_or_else(|| NotALearnedSet(name.to_owned()))
    }
}

fn read_set_name(name: &str) -> Option<SetId> {
    let mut parts = name.split('-');
    let (side, family) = match parts.next()? {
        "deny4" => (Side::Deny, Family::V4),
        "deny6" => (Side::Deny, Family::V6),
        "allow4" => (Side::Allow, Family::V4),
        "allow6" => (Side::Allow, Family::V6),
        _ => return None,
    };
    let program = ProgramId(u64::from_str_radix(parts.next()?, 16).ok()?);
    let kind = match parts.next() {
        None => SetKind::Exact,
        Some(group) => SetKind::Group(group.strip_prefix('g')?.parse().ok()?),
    };
    Some(SetId {
        program,
        side,
        kind,
        family,
    })
}

#[cfg(test)]
mod tests;
