//! Chains, sets, rules and elements as plain data, of which transactions are made.
//!
//! A rule has a test and a verdict, and looks up little. That keeps the cost of a packet countable.

use std::sync::Arc;
use std::time::Duration;

use policy::Protocol;

use crate::layout::IpFamily;

use super::set_key::{KeyRange, SetKey, successor};

/// One step of a transaction. All names are those of our table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TableCommand {
    /// Makes the table. One that exists keeps what it holds, and is woken if it was dormant.
    AddTable,
    /// Deletes the table with everything in it.
    DeleteTable,
    /// Makes a chain without a hook. One that exists is left as it is.
    AddChain(Arc<str>),
    /// Makes a base chain with policy accept. One that exists with the same hook is left as it is.
    AddBaseChain(Arc<str>, HookInfo),
    /// Makes a set. One that exists must have been declared equally, except for its limits.
    AddSet(Arc<str>, SetSpec),
    /// Gives a set the limits with which it is declared here, from the next transaction on. A
    /// kernel before 6.5 does nothing.
    LimitSet(Arc<str>, SetSpec),
    AddElements(Arc<str>, Vec<NewElement>),
    /// Deletes elements. It is an error if one is not there.
    DeleteElements(Arc<str>, Vec<SetKey>),
    EmptySet(Arc<str>),
    AddRule(Arc<str>, NftRule),
    EmptyChain(Arc<str>),
    DeleteSet(Arc<str>),
    DeleteChain(Arc<str>),
}

/// The hook that calls a base chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HookInfo {
    /// The number of the hook (`NF_INET_*`).
    pub(crate) number: u32,
    pub(crate) priority: i32,
    /// `filter`, `nat`, `route`.
    pub(crate) kind: String,
}

/// How a named set or map is declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SetSpec {
    /// The datatypes of the fields of its key.
    pub(crate) key: Vec<Datatype>,
    /// What the elements of a map are mapped to; `None` for a set.
    pub(crate) maps_to: Option<MapValueType>,
    /// Whether it holds ranges; only with a key of one field.
    pub(crate) ranges: bool,
    /// Whether its elements may have timeouts.
    pub(crate) timeouts: bool,
    /// How often the kernel frees elements that have timed out (`gc-interval`); `None`: once a
    /// second.
    pub(crate) swept: Option<Duration>,
    /// The most elements that it may hold; `None` without a limit.
    pub(crate) size: Option<u32>,
    /// The limit of each element, in a set that rules write to.
    pub(crate) meter: Option<ElementMeter>,
}

/// What rules write to a set: an element for each key that packets have, with a limit of its own.
/// Such a rule goes on for packets *over* that limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ElementMeter {
    /// Packets a second.
    pub(crate) rate: u32,
    /// Packets at once, after a silence.
    pub(crate) burst: u32,
    /// An element is forgotten when it was not written to for so long.
    pub(crate) forgotten_after: Duration,
}

/// What the elements of a map are mapped to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MapValueType {
    Verdict,
    Value(Datatype),
}

/// A datatype of nftables, for fields of keys and values of maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Datatype {
    Address(IpFamily),
    Protocol,
    Port,
    /// The index of a link, in the byte order of this machine.
    Link,
    /// The type of an ICMP message.
    MessageType(IpFamily),
}

/// An element that is to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewElement {
    /// The key, or the first key of a range.
    pub(crate) key: SetKey,
    /// The last key of the range in a set whose key has several fields. Where it has a single
    /// field, the ends of ranges are elements themselves.
    pub(crate) last: Option<SetKey>,
    /// Whether the element is the end of a range, which is not part of it.
    pub(crate) ends_range: bool,
    /// The timeout; `None` for an element that stays.
    pub(crate) timeout: Option<Duration>,
    /// What the element of a map is mapped to.
    pub(crate) value: Option<MapValue>,
}

/// What an element of a map is mapped to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MapValue {
    Verdict(NftVerdict),
    /// A value, as the kernel keeps it.
    Data(SetKey),
}

/// What happens to a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NftVerdict {
    /// It passes the base chain.
    Accept,
    /// It is dropped.
    Drop,
    /// It leaves its chain, and goes on behind the last `jump`.
    Return,
    /// It goes on in another chain, whose end is the end of this one.
    Goto(Arc<str>),
}

/// A rule of a program's chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NftRule {
    /// Which packets match.
    pub(crate) test: RuleMatch,
    /// What happens to packets that match; `None` where the lookup itself gives the verdict.
    pub(crate) verdict: Option<NftVerdict>,
}

/// How a rule matches packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RuleMatch {
    /// Every packet matches.
    Always,
    /// Packets of this protocol match.
    Is(Protocol),
    /// Packets of established flows match: those that both ends have taken part in.
    Established,
    /// Packets match that are related to a flow and no part of it.
    Related,
    /// Packets with this destination port match, of a protocol that has ports.
    IsTo(u16),
    /// Packets match whose fields are in a set.
    In(Vec<PacketField>, RuleLookup),
    /// Packets match that each of these matches, tried in order.
    Each(Vec<RuleMatch>),
}

/// A field of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PacketField {
    /// The source address.
    Source(IpFamily),
    /// The index of the link that the packet came in on.
    Link,
    /// The destination address of the flow's first packet, before any address translation.
    OriginalDestination(IpFamily),
    /// The destination port of the flow's first packet, before any address translation.
    OriginalPort,
    /// The destination address.
    Destination(IpFamily),
    /// The transport protocol, behind any IPv6 extension headers.
    Protocol,
    /// The destination port. In a protocol without ports these are other octets, so a key with the
    /// port must have the protocol too.
    Port,
    /// The source port, with the same caution.
    SourcePort,
    /// The type of an ICMP message. The packet must be known to be one.
    MessageType(IpFamily),
}

/// The set in which fields are looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RuleLookup {
    /// A named set.
    Set(Arc<str>),
    /// A set of the rule's own, of disjoint and sorted ranges.
    Ranges(Vec<KeyRange>),
    /// A hash set of the rule's own.
    Keys(Vec<SetKey>),
    /// A verdict map of the rule's own, of disjoint and sorted ranges.
    Verdicts(Vec<(KeyRange, NftVerdict)>),
}

impl Datatype {
    /// The length in octets, without padding.
    pub(crate) fn length(self) -> usize {
        match self {
            Datatype::Address(IpFamily::V4) | Datatype::Link => 4,
            Datatype::Address(IpFamily::V6) => 16,
            Datatype::Port => 2,
            Datatype::Protocol | Datatype::MessageType(_) => 1,
        }
    }
}

impl PacketField {
    pub(crate) fn datatype(self) -> Datatype {
        match self {
            PacketField::Source(family)
            | PacketField::Destination(family)
            | PacketField::OriginalDestination(family) => Datatype::Address(family),
            PacketField::Link => Datatype::Link,
            PacketField::Protocol => Datatype::Protocol,
            PacketField::Port | PacketField::SourcePort | PacketField::OriginalPort => Datatype::Port,
            PacketField::MessageType(family) => Datatype::MessageType(family),
        }
    }
}

impl NewElement {
    /// An element without a timeout or a value.
    pub(crate) fn plain(key: SetKey) -> Self {
        Self {
            key,
            last: None,
            ends_range: false,
            timeout: None,
            value: None,
        }
    }
}

/// Ranges over keys of a single field, as the kernel keeps them: an element where each range
/// begins, and one where it has ended, unless the next begins there or there are no more keys.
pub(crate) fn half_open<'r>(
    ranges: impl IntoIterator<Item = (&'r KeyRange, Option<&'r NftVerdict>)>,
) -> Vec<NewElement> {
    let mut elements: Vec<NewElement> = Vec::new();
    for (range, verdict) in ranges {
        if elements.last().is_some_and(|end| end.key == range.first) {
            elements.pop();
        }
        elements.push(NewElement {
            value: verdict.cloned().map(MapValue::Verdict),
            ..NewElement::plain(range.first.clone())
        });
        if let Some(end) = successor(&range.last) {
            elements.push(NewElement {
                ends_range: true,
                ..NewElement::plain(end)
            });
        }
    }
    elements
}
