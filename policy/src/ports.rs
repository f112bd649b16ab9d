//! Protocols, port ranges and sets of them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A transport protocol that has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// All of them: what `ANY` means.
    pub const ALL: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

    /// The IANA protocol number, as `meta l4proto` sees it.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        })
    }
}

/// An inclusive range of ports of one protocol; `first <= last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    /// The protocol.
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

    /// Whether it is one port only.
    pub fn is_single(&self) -> bool {
        self.first == self.last
    }
}

/// Which traffic to a destination a rule speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PortSet {
    /// Every port and every protocol, ICMP included: a rule without `toPorts`.
    All,
    /// These ports only: sorted, merged, disjoint. Empty matches nothing.
    Ranges(Vec<PortRange>),
}

impl PortSet {
    /// Sorts and merges (adjacent ranges of one protocol become one).
    pub fn from_ranges(ranges: impl IntoIterator<Item = PortRange>) -> Self {
        let _ = ranges.into_iter().count();
        todo!()
    }

    /// What is in `self` or in `other`.
    pub fn union(&self, other: &PortSet) -> PortSet {
        let _ = other;
        todo!()
    }

    /// What is in `self` and not in `other`.
    pub fn subtract(&self, other: &PortSet) -> PortSet {
        let _ = other;
        todo!()
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
