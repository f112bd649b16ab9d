//! How the set entries of an address become elements of sets in the kernel.
//!
//! The tiers of a program are folded ([`policy::classifier`]). What names and objects add is
//! written for single addresses, into *learned sets*: hash sets with timeouts, some for each
//! [`SetClass`]. The ports of a [`ClassifierEntry`] decide which set:
//!
//! | ports | set | key |
//! |---|---|---|
//! | single ports, and narrow ranges ([`EXPANDED_RANGE`]) | exact | address . protocol . port |
//! | a wider range, or types of ICMP messages | the set of that range | address |
//! | every port and protocol | all | address |
//!
//! The [port ranges](policy::classifier::SetLayout::port_ranges) of a layout are ranges that no
//! rule of the tiers cuts. So the ports of every entry are made up of such ranges (or are single
//! ports that containers name), and a packet's port lies in one range at most. A packet costs one
//! lookup of its port, and one of its address in the set of that range, however many ranges there
//! are. Learned addresses never go into interval sets.
//!
//! The ranges follow from the tiers alone, and a range's set has its position as number. So the
//! numbers mean the same to every process.
//!
//! # In the kernel
//! A learned set is named `allow4-<tiers>`, `allow4-<tiers>-c<number>` or `allow4-<tiers>-all`
//! (likewise with the other classes, and `6`). [`SetId`] parses such names, which is how a new
//! process adopts the sets of the one before it. Exact sets have the type `ipv4_addr . inet_proto .
//! inet_service`, the others `ipv4_addr` (or `ipv6_addr`), all with the flag `timeout`.

mod packet;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::str::FromStr;

use policy::classifier::{AddressContext, Classifier, ClassifierEntry, RuleIndex, SetClass, SetLayout};
use policy::{AddressZone, Peer, PortRange, PortSet, ProgramId, Protocol};
use thiserror::Error;

pub use packet::elements_of_packet;

/// The widest range that is written as single ports: one element for each port still costs less
/// than a lookup for every packet.
pub const EXPANDED_RANGE: u16 = 16;

/// The heartbeat's set: `inet_proto` with timeouts. A living agent keeps [`ALIVE_PROTOCOLS`] in it.
///
/// In fail-mode open lookups are intercepted only while the set holds their protocol. The key is
/// the IP protocol and not, for example, the address family, because the typed documents can
/// express it. Both keys come and go together.
pub const ALIVE_SET: &str = "alive";

/// The keys of the heartbeat's set that rules look up, one octet each: TCP and UDP. Other keys are
/// marks of agents.
pub const ALIVE_PROTOCOLS: [u8; 2] = [6, 17];

/// The address family of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IpFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Which of the learned sets of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SetKind {
    /// Keys are address . protocol . port.
    Exact,
    /// Keys are addresses, for the range of ports at this position of [`SetLayout::port_ranges`].
    Range(u16),
    /// Keys are addresses, for every port and protocol.
    All,
}

/// A learned set. Its name in the kernel is its `Display`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SetId {
    /// The id of the [`Tiers`](policy::Tiers) whose verdicts are looked up, which programs may
    /// share.
    pub program: ProgramId,
    /// The class of verdicts.
    pub class: SetClass,
    /// Which of the sets of the class.
    pub kind: SetKind,
    /// The family of its addresses.
    pub family: IpFamily,
}

/// The name of a set in the kernel that is no learned set.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not the name of a learned set (such as allow4-0123456789abcdef or deny6-0123456789abcdef-c0)")]
pub struct ParseSetIdError(pub String);

/// The key of an element of a learned set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ElementKey {
    /// The peer's address.
    pub address: IpAddr,
    /// Protocol and port; only in exact sets.
    pub port: Option<(Protocol, u16)>,
}

/// One element of one learned set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Element {
    /// The set that it belongs to.
    pub set: SetId,
    /// Its key in the set.
    pub key: ElementKey,
}

/// An element without its address: what every address gets that a name resolves to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ElementTemplate {
    /// The id of the tiers whose verdicts are looked up.
    pub program: ProgramId,
    /// The class of verdicts.
    pub class: SetClass,
    /// Which of the sets of the class.
    pub kind: SetKind,
    /// Protocol and port; only in an exact set.
    pub port: Option<(Protocol, u16)>,
    /// The family whose addresses alone have such an element; `None` for both. Types of ICMP
    /// messages belong to one family.
    pub only: Option<IpFamily>,
}

/// The elements that one entry gives an address. `tiers` is the id of the tiers that `layout`
/// belongs to.
pub fn elements<'a>(
    tiers: ProgramId,
    layout: &'a SetLayout,
    address: IpAddr,
    entry: &'a ClassifierEntry,
) -> impl Iterator<Item = Element> + 'a {
    element_templates(tiers, layout, entry).filter_map(move |target| target.element(address))
}

/// As [`elements`], for any address.
pub fn element_templates<'a>(
    tiers: ProgramId,
    layout: &'a SetLayout,
    entry: &'a ClassifierEntry,
) -> impl Iterator<Item = ElementTemplate> + 'a {
    let class = entry.class;
    let (all, ranges) = match &entry.ports {
        PortSet::All => (Some((SetKind::All, None)), &[][..]),
        PortSet::Ranges(ranges) => (None, ranges.as_slice()),
    };
    let ranges = ranges.iter().flat_map(move |range| {
        let places = places(layout, *range);
        places.map(move |(kind, port)| (range.protocol, kind, port))
    });
    let all = all.map(|(kind, port)| ElementTemplate {
        program: tiers,
        class,
        kind,
        port,
        only: None,
    });
    all.into_iter()
        .chain(ranges.map(move |(protocol, kind, port)| ElementTemplate {
            program: tiers,
            class,
            kind,
            port,
            only: family_of(protocol),
        }))
}

/// The elements of every address that a name resolves to, for one rule about names; `None` where
/// they depend on the address.
///
/// They do not where all rules allow, because then nothing comes before a name, nor where all rules
/// are about names.
pub fn prepared(tiers: ProgramId, classifier: &Classifier, rule: RuleIndex) -> Option<Box<[ElementTemplate]>> {
    let only_names = || classifier.rules().iter().all(|rule| matches!(rule.peer, Peer::Name(_)));
    if !classifier.only_allows() && !only_names() {
        return None;
    }
    let anywhere = AddressContext {
        address: IpAddr::from([0, 0, 0, 0]),
        zone: AddressZone::World,
        objects: &[],
    };
    let entries = classifier.entries_for_name(rule, anywhere);
    Some(
        entries
            .iter()
            .flat_map(|entry| element_templates(tiers, classifier.layout(), entry))
            .collect(),
    )
}

impl ElementTemplate {
    /// The element of this address; `None` for the family that has none.
    pub fn element(&self, address: IpAddr) -> Option<Element> {
        let family = IpFamily::of(address);
        if self.only.is_some_and(|only| only != family) {
            return None;
        }
        Some(Element {
            set: SetId {
                program: self.program,
                class: self.class,
                kind: self.kind,
                family,
            },
            key: ElementKey {
                address,
                port: self.port,
            },
        })
    }
}

/// The learned sets that the tiers with this id need in one family.
pub fn sets<'a>(tiers: ProgramId, layout: &'a SetLayout, family: IpFamily) -> impl Iterator<Item = SetId> + 'a {
    layout.classes.iter().flat_map(move |class| {
        let set = move |kind| SetId {
            program: tiers,
            class: *class,
            kind,
            family,
        };
        kinds(layout, family).map(set)
    })
}

/// The kinds of sets that each class needs, the exact one first.
pub(crate) fn kinds(layout: &SetLayout, family: IpFamily) -> impl Iterator<Item = SetKind> + '_ {
    let narrow = || {
        (0..)
            .zip(&layout.port_ranges)
            .any(|(place, port_range)| range_number(place, port_range).is_none())
    };
    let exact = (layout.named_ports || narrow()).then_some(SetKind::Exact);
    let range_sets = range_sets(layout, family).map(|(number, _)| SetKind::Range(number));
    let all = layout.all_traffic.then_some(SetKind::All);
    exact.into_iter().chain(range_sets).chain(all)
}

/// The port ranges that have sets of their own in this family, with their numbers.
pub(crate) fn range_sets(layout: &SetLayout, family: IpFamily) -> impl Iterator<Item = (u16, PortRange)> + '_ {
    let range_sets = (0..).zip(&layout.port_ranges);
    let of_family = move |port_range: &PortRange| family_of(port_range.protocol).is_none_or(|only| only == family);
    range_sets.filter_map(move |(place, port_range)| match range_number(place, port_range) {
        Some(number) if of_family(port_range) => Some((number, *port_range)),
        _ => None,
    })
}

/// The only family that has this protocol; `None` where both have it.
pub(crate) fn family_of(protocol: Protocol) -> Option<IpFamily> {
    match protocol {
        Protocol::Tcp | Protocol::Udp | Protocol::Sctp => None,
        Protocol::Icmp => Some(IpFamily::V4),
        Protocol::Icmpv6 => Some(IpFamily::V6),
    }
}

/// The number of a range's set; `None` where its ports go into the exact set.
fn range_number(place: usize, port_range: &PortRange) -> Option<u16> {
    let is_wide = port_range.last - port_range.first >= EXPANDED_RANGE;
    // Only a program of more than 65,536 ports has more ranges than numbers; then the other ranges
    // go into the exact set port by port, which is right too.
    (is_wide || !port_range.protocol.has_ports())
        .then(|| u16::try_from(place).ok())
        .flatten()
}

/// The sets that `range` goes to, one port range of the layout after the other; what none covers
/// goes port by port.
fn places(layout: &SetLayout, range: PortRange) -> impl Iterator<Item = (SetKind, Option<(Protocol, u16)>)> + '_ {
    let covered = move |port_range: &PortRange| {
        port_range.protocol == range.protocol && range.first <= port_range.first && port_range.last <= range.last
    };
    let mut range_sets = (0..).zip(&layout.port_ranges).filter_map(move |(place, port_range)| {
        let number = range_number(place, port_range).filter(|_| covered(port_range))?;
        Some((number, *port_range))
    });
    let mut held = range_sets.next();
    // `None` after the last port.
    let mut next = Some(range.first);
    std::iter::from_fn(move || {
        let port = next.filter(|port| *port <= range.last)?;
        match held {
            Some((number, port_range)) if port_range.first == port => {
                held = range_sets.next();
                next = port_range.last.checked_add(1);
                Some((SetKind::Range(number), None))
            }
            _ => {
                next = port.checked_add(1);
                Some((SetKind::Exact, Some((range.protocol, port))))
            }
        }
    })
}

impl IpFamily {
    /// Both families, in the order in which they are always written.
    pub const BOTH: [IpFamily; 2] = [IpFamily::V4, IpFamily::V6];

    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => IpFamily::V4,
            IpAddr::V6(_) => IpFamily::V6,
        }
    }
}

// An element is hashed several times for each address that is learned. Derived implementations
// would feed the hasher a dozen times, these feed it three times.

impl Hash for SetId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (kind, number) = match self.kind {
            SetKind::Exact => (0, 0),
            SetKind::Range(number) => (1, number),
            SetKind::All => (2, 0),
        };
        state.write_u64(self.program.0);
        let [low, high] = number.to_le_bytes();
        state.write_u32(u32::from_le_bytes([self.class as u8, self.family as u8, low, high]) ^ kind << 4);
    }
}

impl Hash for ElementKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (protocol, port) = self.port.map_or((0, 0), |(protocol, port)| (protocol.number(), port));
        let service = u64::from(protocol) << 16 | u64::from(port);
        match self.address {
            IpAddr::V4(v4) => state.write_u64(u64::from(v4.to_bits()) << 32 | service),
            IpAddr::V6(v6) => {
                state.write_u128(v6.to_bits());
                state.write_u64(service);
            }
        }
    }
}

impl fmt::Display for IpFamily {
    /// `4` or `6`, as it stands at the end of set names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IpFamily::V4 => "4",
            IpFamily::V6 => "6",
        })
    }
}

impl fmt::Display for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            program,
            class,
            kind,
            family,
        } = self;
        write!(f, "{}{family}-{program}", class_name(*class))?;
        match kind {
            SetKind::Exact => Ok(()),
            SetKind::Range(number) => write!(f, "-c{number}"),
            SetKind::All => f.write_str("-all"),
        }
    }
}

impl FromStr for SetId {
    type Err = ParseSetIdError;

    /// The inverse of `Display`, and of nothing else: one set has one name.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        read_set_name(name)
            .filter(|set| set.to_string() == name)
            .ok_or_else(|| ParseSetIdError(name.to_owned()))
    }
}

fn read_set_name(name: &str) -> Option<SetId> {
    let mut parts = name.split('-');
    let beginning = parts.next()?;
    let of_name = |class: &SetClass| {
        beginning
            .strip_prefix(class_name(*class))
            .map(|family| (*class, family))
    };
    let (class, family) = SetClass::ALL.iter().find_map(of_name)?;
    let family = match family {
        "4" => IpFamily::V4,
        "6" => IpFamily::V6,
        _ => return None,
    };
    let program = ProgramId(u64::from_str_radix(parts.next()?, 16).ok()?);
    let kind = match parts.next() {
        None => SetKind::Exact,
        Some("all") => SetKind::All,
        Some(range_number) => SetKind::Range(range_number.strip_prefix('c')?.parse().ok()?),
    };
    Some(SetId {
        program,
        class,
        kind,
        family,
    })
}

/// The beginning of the names of a class's sets.
pub(crate) fn class_name(class: SetClass) -> &'static str {
    match class {
        SetClass::Admin => "admin",
        SetClass::Deny => "deny",
        SetClass::Allow => "allow",
        SetClass::Inspect => "inspect",
        SetClass::Rest => "rest",
    }
}

#[cfg(test)]
mod tests;
