//! Protocols, port ranges and sets of them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A protocol whose traffic rules tell apart: by port, or for ICMP by the type of the message.
///
/// Where a port is spoken of, for ICMP the type is meant: 0 to 255. Its code is never looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// ICMP, of IPv4 only.
    Icmp,
    /// ICMPv6, of IPv6 only.
    Icmpv6,
}

impl Protocol {
    /// Those with ports: what `ANY` means.
    pub const ANY: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

    /// All protocols, in the order in which they are always written.
    pub const ALL: [Protocol; 5] = [
        Protocol::Tcp,
        Protocol::Udp,
        Protocol::Sctp,
        Protocol::Icmp,
        Protocol::Icmpv6,
    ];

    /// Whether it has ports, and not message types.
    pub fn has_ports(self) -> bool {
        !matches!(self, Protocol::Icmp | Protocol::Icmpv6)
    }

    /// The highest port, or message type.
    pub fn last(self) -> u16 {
        if self.has_ports() { u16::MAX } else { 255 }
    }

    /// The IANA protocol number, as `meta l4proto` sees it.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
            Protocol::Icmp => 1,
            Protocol::Icmpv6 => 58,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
            Protocol::Icmp => "ICMP",
            Protocol::Icmpv6 => "ICMPv6",
        })
    }
}

/// An inclusive range of ports of one protocol; `first <= last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    /// The protocol that the ports belong to.
    pub protocol: Protocol,
    /// The first port.
    pub first: u16,
    /// The last port, included.
    pub last: u16,
}

impl PortRange {
    /// A single port.
    pub fn single(protocol: Protocol, port: u16) -> Self {
        Self {
            protocol,
            first: port,
            last: port,
        }
    }

    /// Every port, or message type, of a protocol.
    pub fn every(protocol: Protocol) -> Self {
        Self {
            protocol,
            first: 0,
            last: protocol.last(),
        }
    }

    /// Whether it is one port only.
    pub fn is_single(&self) -> bool {
        self.first == self.last
    }
}

/// Which traffic of a peer a rule speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PortSet {
    /// Every port and every protocol, ICMP included: a rule without `toPorts`.
    All,
    /// These ports only: sorted, merged, disjoint. Empty matches nothing.
    Ranges(Vec<PortRange>),
}

impl PortSet {
    /// Sorts and merges (adjacent ranges of one protocol become one). A range that ends before it
    /// begins holds nothing.
    pub fn from_ranges(ranges: impl IntoIterator<Item = PortRange>) -> Self {
        let mut sorted: Vec<PortRange> = ranges.into_iter().filter(|r| r.first <= r.last).collect();
        sorted.sort_unstable();
        sorted.dedup_by(|next, kept| {
            let joins = next.protocol == kept.protocol && next.first <= kept.last.saturating_add(1);
            if joins {
                kept.last = kept.last.max(next.last);
            }
            joins
        });
        PortSet::Ranges(sorted)
    }

    /// What is in `self` or in `other`.
    pub fn union(&self, other: &PortSet) -> PortSet {
        match (self, other) {
            (PortSet::Ranges(a), PortSet::Ranges(b)) => Self::from_ranges(a.iter().chain(b).copied()),
            _ => PortSet::All,
        }
    }

    /// What is in `self` and in `other`.
    pub fn intersection(&self, other: &PortSet) -> PortSet {
        match (self, other) {
            (PortSet::All, set) | (set, PortSet::All) => set.clone(),
            (PortSet::Ranges(ours), PortSet::Ranges(theirs)) => {
                let pairs = ours.iter().flat_map(|a| theirs.iter().map(move |b| (a, b)));
                let common = pairs.filter(|(a, b)| a.protocol == b.protocol);
                Self::from_ranges(common.map(|(a, b)| PortRange {
                    protocol: a.protocol,
                    first: a.first.max(b.first),
                    last: a.last.min(b.last),
                }))
            }
        }
    }

    /// What is in `self` and not in `other`.
    ///
    /// `All` without some ports cannot be written (there is ICMP in it too) and stays `All`: the
    /// result is never too small. It is fit to leave out what another entry covers, and not to take
    /// away what must not pass.
    pub fn subtract(&self, other: &PortSet) -> PortSet {
        match (self, other) {
            (_, PortSet::All) => PortSet::Ranges(Vec::new()),
            (PortSet::All, PortSet::Ranges(_)) => PortSet::All,
            (PortSet::Ranges(ours), PortSet::Ranges(theirs)) => {
                PortSet::Ranges(ours.iter().flat_map(|&range| without(range, theirs)).collect())
            }
        }
    }

    /// Whether the set matches nothing.
    pub fn is_empty(&self) -> bool {
        matches!(self, PortSet::Ranges(ranges) if ranges.is_empty())
    }

    /// Whether a packet to `port` of `protocol` is in the set.
    pub fn contains(&self, protocol: Protocol, port: u16) -> bool {
        match self {
            PortSet::All => true,
            PortSet::Ranges(ranges) => ranges
                .iter()
                .any(|r| r.protocol == protocol && (r.first..=r.last).contains(&port)),
        }
    }
}

/// The pieces of `range` that none of `holes` covers. The holes are sorted and disjoint, and so are
/// the pieces.
fn without(range: PortRange, holes: &[PortRange]) -> Vec<PortRange> {
    let mut pieces = Vec::new();
    // The first port that is not decided yet; `None` after port 65535.
    let mut open = Some(range.first);
    for hole in holes {
        let Some(first) = open.filter(|&first| first <= range.last) else {
            break;
        };
        if hole.protocol != range.protocol || hole.last < first || hole.first > range.last {
            continue;
        }
        if hole.first > first {
            pieces.push(PortRange {
                first,
                last: hole.first - 1,
                ..range
            });
        }
        open = hole.last.checked_add(1);
    }
    if let Some(first) = open.filter(|&first| first <= range.last) {
        pieces.push(PortRange { first, ..range });
    }
    pieces
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn tcp(first: u16, last: u16) -> PortRange {
        PortRange {
            protocol: Protocol::Tcp,
            first,
            last,
        }
    }

    fn udp(first: u16, last: u16) -> PortRange {
        PortRange {
            protocol: Protocol::Udp,
            ..tcp(first, last)
        }
    }

    #[test]
    fn ranges_are_sorted_and_neighbours_become_one() {
        assert_eq!(
            PortSet::from_ranges([
                udp(53, 53),
                tcp(443, 443),
                tcp(80, 90),
                tcp(91, 100),
                tcp(85, 87),
                tcp(443, 443)
            ]),
            PortSet::Ranges(vec![tcp(80, 100), tcp(443, 443), udp(53, 53)])
        );
        assert_eq!(
            PortSet::from_ranges([tcp(65_535, 65_535), tcp(0, 65_534), udp(0, 0)]),
            PortSet::Ranges(vec![tcp(0, 65_535), udp(0, 0)])
        );
    }

    #[test]
    fn a_range_that_ends_before_it_begins_holds_nothing() {
        assert!(PortSet::from_ranges([tcp(90, 80)]).is_empty());
    }

    #[test]
    fn the_union_with_everything_is_everything() {
        let web = PortSet::from_ranges([tcp(443, 443)]);
        assert_eq!(web.union(&PortSet::All), PortSet::All);
        assert_eq!(PortSet::All.union(&web), PortSet::All);
    }

    #[test]
    fn every_port_of_every_protocol_is_not_everything() {
        let every_port = PortSet::from_ranges(Protocol::ALL.map(|protocol| PortRange {
            protocol,
            first: 0,
            last: u16::MAX,
        }));
        assert_ne!(every_port, PortSet::All, "ICMP is not in it");
    }

    #[test]
    fn subtraction_is_never_too_small() {
        let web = PortSet::from_ranges([tcp(443, 443)]);
        assert!(web.subtract(&PortSet::All).is_empty());
        assert!(PortSet::All.subtract(&PortSet::All).is_empty());
        assert_eq!(PortSet::All.subtract(&web), PortSet::All);
        assert_eq!(
            PortSet::from_ranges([tcp(0, 65_535)]).subtract(&PortSet::from_ranges([
                tcp(0, 0),
                tcp(80, 80),
                tcp(65_535, 65_535)
            ])),
            PortSet::Ranges(vec![tcp(1, 79), tcp(81, 65_534)])
        );
    }

    /// Borders only near both ends of the range, so that they often meet, and `probes` see every
    /// difference.
    fn ranges() -> impl Strategy<Value = Vec<PortRange>> {
        let port = prop_oneof![0_u16..12, u16::MAX - 6..=u16::MAX];
        let protocol = prop::sample::select(Protocol::ALL.to_vec());
        let range =
            (protocol, port.clone(), port).prop_map(|(protocol, first, last)| PortRange { protocol, first, last });
        prop::collection::vec(range, 0..8)
    }

    fn probes() -> impl Iterator<Item = (Protocol, u16)> {
        Protocol::ALL.into_iter().flat_map(|protocol| {
            (0..16)
                .chain(u16::MAX - 10..=u16::MAX)
                .map(move |port| (protocol, port))
        })
    }

    fn model(ranges: &[PortRange]) -> BTreeSet<(Protocol, u16)> {
        let holds = |&(protocol, port): &(Protocol, u16)| {
            ranges
                .iter()
                .any(|r| r.protocol == protocol && r.first <= port && port <= r.last)
        };
        probes().filter(holds).collect()
    }

    fn held(set: &PortSet) -> BTreeSet<(Protocol, u16)> {
        let PortSet::Ranges(ranges) = set else {
            panic!("not a set of ranges")
        };
        let normal = ranges.windows(2).all(|pair| {
            pair[0].protocol < pair[1].protocol
                || pair[0].protocol == pair[1].protocol && u32::from(pair[0].last) + 1 < u32::from(pair[1].first)
        });
        assert!(normal, "sorted, disjoint and merged: {ranges:?}");
        probes()
            .filter(|&(protocol, port)| set.contains(protocol, port))
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn sets_behave_as_sets_of_single_ports(a in ranges(), b in ranges()) {
            let (in_a, in_b) = (model(&a), model(&b));
            let (a, b) = (PortSet::from_ranges(a), PortSet::from_ranges(b));
            prop_assert_eq!(&held(&a), &in_a);
            prop_assert_eq!(held(&a.union(&b)), &in_a | &in_b);
            prop_assert_eq!(held(&a.subtract(&b)), &in_a - &in_b);
        }
    }
}
