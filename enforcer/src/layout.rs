//! How the doors of an address become elements of sets.
//!
//! The tiers of a program are folded ([`policy::classifier`]); what names and objects add is said
//! for single addresses, in *learned sets*: hash sets with timeouts, some for each [`SetClass`].
//! The ports of a door decide which:
//!
//! | ports | set | key |
//! |---|---|---|
//! | single ports, and pieces of at most [`EXPANDED_RANGE`] ports | exact | address . protocol . port |
//! | a wider piece, or types of ICMP messages | the *cell* of that piece | address |
//! | every port and protocol | all | address |
//!
//! A [piece](policy::classifier::SetLayout::port_ranges) is a range of ports that no rule of the
//! tiers cuts, so that the ports of every door are made up of pieces (or are single ports that
//! containers name). A packet's port lies in one piece at most: it costs one lookup of the port,
//! and one of the address in that piece's cell, however many pieces there are. Learned addresses
//! never go into interval sets.
//!
//! Pieces follow from the tiers alone, and their places are the numbers of their cells: these mean
//! the same to every process.
//!
//! # In the kernel
//! A learned set is named `allow4-<tiers>`, `allow4-<tiers>-c<number>` or `allow4-<tiers>-all`
//! (likewise with the other classes, and `6`); [`SetId`] reads such names back, which is how a new
//! process adopts the sets of the one before it. Types: `ipv4_addr . inet_proto . inet_service` for
//! exact sets, `ipv4_addr` for the others (or `ipv6_addr`), all with the flag `timeout`.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::str::FromStr;

use policy::classifier::{AddressContext, Classifier, RuleIndex, SetClass, SetEntry, SetLayout};
use policy::{AddressZone, Peer, PortRange, PortSet, ProgramId, Protocol};
use thiserror::Error;

/// The widest piece that is written as single ports: an element a port is still cheaper than a
/// lookup for every packet.
pub const EXPANDED_RANGE: u16 = 16;

/// The heartbeat: a set of `inet_proto` with timeouts that a living agent keeps filled with
/// [`ALIVE_PROTOCOLS`].
///
/// In fail-mode open lookups are intercepted only while it holds their protocol. Its key is the IP
/// protocol and not, say, the address family, because that is what the typed documents can express;
/// both keys come and go together.
pub const ALIVE_SET: &str = "alive";

/// The keys of the heartbeat set that are looked up, one octet each: TCP and UDP. Others in it
/// stand for the agents that beat.
pub const ALIVE_PROTOCOLS: [u8; 2] = [6, 17];

/// The address family of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IpFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Which learned set of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SetKind {
    /// Keys are address . protocol . port.
    Exact,
    /// Keys are addresses; the number is the piece's place in [`SetLayout::port_ranges`].
    Cell(u16),
    /// Keys are addresses, for every port and protocol.
    All,
}

/// A learned set. Its name in the kernel is its `Display`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SetId {
    /// Whose: the identity of the [`Tiers`](policy::Tiers) that are evaluated, which programs may
    /// share.
    pub program: ProgramId,
    /// Which class.
    pub class: SetClass,
    /// Which set.
    pub kind: SetKind,
    /// Which family.
    pub family: IpFamily,
}

/// A name in the kernel that is not a learned set's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not the name of a learned set (such as allow4-0123456789abcdef or deny6-0123456789abcdef-c0)")]
pub struct ParseSetIdError(pub String);

/// The key of an element of a learned set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ElementKey {
    /// The address.
    pub address: IpAddr,
    /// Protocol and port, in exact sets.
    pub port: Option<(Protocol, u16)>,
}

/// One element of one learned set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Element {
    /// The set.
    pub set: SetId,
    /// The key.
    pub key: ElementKey,
}

/// An element, but for its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ElementTemplate {
    /// The tiers.
    pub program: ProgramId,
    /// Which class.
    pub class: SetClass,
    /// Which set.
    pub kind: SetKind,
    /// Protocol and port, in an exact set.
    pub port: Option<(Protocol, u16)>,
    /// Where only addresses of one family have such an element: types of ICMP messages.
    pub only: Option<IpFamily>,
}

/// The elements of one door of `address`, for tiers of this identity.
pub fn elements<'a>(
    tiers: ProgramId,
    possible: &'a SetLayout,
    address: IpAddr,
    door: &'a SetEntry,
) -> impl Iterator<Item = Element> + 'a {
    targets(tiers, possible, door).filter_map(move |target| target.element(address))
}

/// The elements of one door, whatever its address is.
pub fn targets<'a>(
    tiers: ProgramId,
    possible: &'a SetLayout,
    door: &'a SetEntry,
) -> impl Iterator<Item = ElementTemplate> + 'a {
    let class = door.class;
    let (all, ranges) = match &door.ports {
        PortSet::All => (Some((SetKind::All, None)), &[][..]),
        PortSet::Ranges(ranges) => (None, ranges.as_slice()),
    };
    let ranges = ranges.iter().flat_map(move |range| {
        let places = places(possible, *range);
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

/// What every address opens or closes that a name resolves to, for a rule about names; `None` where
/// that depends on the address.
///
/// It does not where all rules allow, since then nothing comes before a name, and where there are
/// no rules but those about names.
pub fn prepared(tiers: ProgramId, fold: &Classifier, rule: RuleIndex) -> Option<Box<[ElementTemplate]>> {
    let only_allows = fold.layout().classes.iter().all(|class| *class == SetClass::Allow);
    let only_names = || fold.rules().iter().all(|rule| matches!(rule.peer, Peer::Name(_)));
    if !only_allows && !only_names() {
        return None;
    }
    let anywhere = AddressContext {
        address: IpAddr::from([0, 0, 0, 0]),
        zone: AddressZone::World,
        objects: &[],
    };
    let doors = fold.entries_for_name(rule, anywhere);
    Some(
        doors
            .iter()
            .flat_map(|door| targets(tiers, fold.layout(), door))
            .collect(),
    )
}

impl ElementTemplate {
    /// The element of this address; `None` where addresses of its family have none.
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

/// The learned sets that tiers of this identity need in one family.
pub fn sets<'a>(tiers: ProgramId, possible: &'a SetLayout, family: IpFamily) -> impl Iterator<Item = SetId> + 'a {
    possible.classes.iter().flat_map(move |class| {
        let set = move |kind| SetId {
            program: tiers,
            class: *class,
            kind,
            family,
        };
        kinds(possible, family).map(set)
    })
}

/// The kinds of sets that each class needs, the exact one first.
pub(crate) fn kinds(possible: &SetLayout, family: IpFamily) -> impl Iterator<Item = SetKind> + '_ {
    let narrow = || {
        (0..)
            .zip(&possible.port_ranges)
            .any(|(place, piece)| cell(place, piece).is_none())
    };
    let exact = (possible.named_ports || narrow()).then_some(SetKind::Exact);
    let cells = cells(possible, family).map(|(number, _)| SetKind::Cell(number));
    let all = possible.all_traffic.then_some(SetKind::All);
    exact.into_iter().chain(cells).chain(all)
}

/// The pieces that have cells in this family, with their numbers.
pub(crate) fn cells(possible: &SetLayout, family: IpFamily) -> impl Iterator<Item = (u16, PortRange)> + '_ {
    let cells = (0..).zip(&possible.port_ranges);
    let of_family = move |piece: &PortRange| family_of(piece.protocol).is_none_or(|only| only == family);
    cells.filter_map(move |(place, piece)| match cell(place, piece) {
        Some(number) if of_family(piece) => Some((number, *piece)),
        _ => None,
    })
}

/// Which family's addresses messages of this protocol go to, where that is only one.
pub(crate) fn family_of(protocol: Protocol) -> Option<IpFamily> {
    match protocol {
        Protocol::Tcp | Protocol::Udp | Protocol::Sctp => None,
        Protocol::Icmp => Some(IpFamily::V4),
        Protocol::Icmpv6 => Some(IpFamily::V6),
    }
}

/// The number of a piece's cell; `None` where its ports go into the exact set.
fn cell(place: usize, piece: &PortRange) -> Option<u16> {
    let is_wide = piece.last - piece.first >= EXPANDED_RANGE;
    // More pieces than numbers would take a program of more than 65,536 ports; it is still right
    // with each as an element.
    (is_wide || !piece.protocol.has_ports())
        .then(|| u16::try_from(place).ok())
        .flatten()
}

/// The sets that `range` goes to, piece by piece; what no piece covers goes port by port.
fn places(possible: &SetLayout, range: PortRange) -> impl Iterator<Item = (SetKind, Option<(Protocol, u16)>)> + '_ {
    let covered = move |piece: &PortRange| {
        piece.protocol == range.protocol && range.first <= piece.first && piece.last <= range.last
    };
    let mut cells = (0..).zip(&possible.port_ranges).filter_map(move |(place, piece)| {
        let number = cell(place, piece).filter(|_| covered(piece))?;
        Some((number, *piece))
    });
    let mut held = cells.next();
    // `None` after the last port.
    let mut next = Some(range.first);
    std::iter::from_fn(move || {
        let port = next.filter(|port| *port <= range.last)?;
        match held {
            Some((number, piece)) if piece.first == port => {
                held = cells.next();
                next = piece.last.checked_add(1);
                Some((SetKind::Cell(number), None))
            }
            _ => {
                next = port.checked_add(1);
                Some((SetKind::Exact, Some((range.protocol, port))))
            }
        }
    })
}

impl IpFamily {
    /// Both, in the order in which they are always written.
    pub const BOTH: [IpFamily; 2] = [IpFamily::V4, IpFamily::V6];

    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => IpFamily::V4,
            IpAddr::V6(_) => IpFamily::V6,
        }
    }
}

// An element is hashed several times for each address that is learned. What is derived feeds a
// hasher a dozen times, this three times.

impl Hash for SetId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (kind, number) = match self.kind {
            SetKind::Exact => (0, 0),
            SetKind::Cell(number) => (1, number),
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
        let door = u64::from(protocol) << 16 | u64::from(port);
        match self.address {
            IpAddr::V4(v4) => state.write_u64(u64::from(v4.to_bits()) << 32 | door),
            IpAddr::V6(v6) => {
                state.write_u128(v6.to_bits());
                state.write_u64(door);
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
            SetKind::Cell(number) => write!(f, "-c{number}"),
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
        Some(cell) => SetKind::Cell(cell.strip_prefix('c')?.parse().ok()?),
    };
    Some(SetId {
        program,
        class,
        kind,
        family,
    })
}

/// As it stands at the beginning of set names.
pub(crate) fn class_name(class: SetClass) -> &'static str {
    match class {
        SetClass::Admin => "admin",
        SetClass::Deny => "deny",
        SetClass::Allow => "allow",
        SetClass::Rest => "rest",
    }
}

#[cfg(test)]
mod tests;
