//! What a transaction is made of, as plain data: chains, sets, rules, elements.
//!
//! A rule is as simple as all of ours are: one test at most, and a verdict. That keeps the cost of
//! a packet countable.

use std::sync::Arc;
use std::time::Duration;

use policy::Protocol;

use crate::layout::IpFamily;

use super::set_key::{KeyRange, SetKey, successor};

/// One step of a transaction. Names are those of our table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TableCommand {
    /// Makes the table; one that stands keeps what it holds, and wakes if it was put to sleep.
    AddTable,
    /// Deletes the table with all that it holds.
    DeleteTable,
    /// Makes a chain that rules call; one that stands is left as it is.
    AddChain(Arc<str>),
    /// Makes a chain that a hook calls, with policy accept; one that stands in the same place is
    /// left as it is.
    AddBaseChain(Arc<str>, HookInfo),
    /// Makes a set that does not stand yet.
    AddSet(Arc<str>, SetSpec),
    /// Adds elements.
    AddElements(Arc<str>, Vec<NewElement>),
    /// Deletes elements; one that is not there is an error.
    DeleteElements(Arc<str>, Vec<SetKey>),
    /// Deletes all elements.
    EmptySet(Arc<str>),
    /// Appends a rule to a chain.
    AddRule(Arc<str>, NftRule),
    /// Deletes all rules of a chain.
    EmptyChain(Arc<str>),
    /// Deletes a set.
    DeleteSet(Arc<str>),
    /// Deletes a chain.
    DeleteChain(Arc<str>),
}

/// Where a base chain hooks in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HookInfo {
    /// `NF_INET_*`.
    pub(crate) number: u32,
    pub(crate) priority: i32,
    /// `filter`, `nat`, `route`.
    pub(crate) kind: String,
}

/// What the elements of a named set look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SetSpec {
    /// The parts of its key.
    pub(crate) key: Vec<Datatype>,
    /// What its elements are mapped to.
    pub(crate) maps_to: Option<MapValueType>,
    /// Whether it holds ranges; of one part only.
    pub(crate) ranges: bool,
    /// Whether its elements have timeouts.
    pub(crate) timeouts: bool,
    /// How often the kernel frees elements that have timed out; once a second if nothing is said.
    pub(crate) swept: Option<Duration>,
    /// How many it may hold.
    pub(crate) size: Option<u32>,
}

/// What the elements of a map are mapped to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MapValueType {
    /// A verdict.
    Verdict,
    /// A value.
    Value(Datatype),
}

/// A type of values in sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Datatype {
    /// An address.
    Address(IpFamily),
    /// A protocol.
    Protocol,
    /// A port.
    Port,
    /// The index of a link, in the order of octets of this machine.
    Link,
    /// The type of an ICMP message.
    MessageType(IpFamily),
}

/// An element to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewElement {
    /// Its key, or where its range begins.
    pub(crate) key: SetKey,
    /// The last key of its range, in a set of several parts; in one of a single part ends are
    /// elements themselves.
    pub(crate) last: Option<SetKey>,
    /// Whether it is the end of a range, not included, rather than an element.
    pub(crate) ends_range: bool,
    /// Its life; `None` without an end.
    pub(crate) timeout: Option<Duration>,
    /// What it is mapped to.
    pub(crate) value: Option<MapValue>,
}

/// What an element is mapped to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MapValue {
    /// A verdict.
    Verdict(NftVerdict),
    /// A value, as the kernel keeps it.
    Data(SetKey),
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NftVerdict {
    /// It passes the base chain.
    Accept,
    /// It is dropped.
    Drop,
    /// It goes on behind the last `jump`.
    Return,
    /// It goes on in a chain, whose end is the end of this one.
    Goto(Arc<str>),
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NftRule {
    /// Which packets it is about.
    pub(crate) test: RuleMatch,
    /// What becomes of them; `None` where the test says it.
    pub(crate) verdict: Option<NftVerdict>,
}

/// What a rule asks of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RuleMatch {
    /// Nothing.
    Always,
    /// That its protocol is this one.
    Is(Protocol),
    /// That it belongs to a flow that both ends have taken part in.
    Established,
    /// That a set holds these of its fields.
    In(Vec<PacketField>, RuleLookup),
}

/// Something that a packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PacketField {
    /// Its source address.
    Source(IpFamily),
    /// The index of the link that it came in on.
    Link,
    /// The destination address of the first packet of its flow, before any translation.
    OriginalDestination(IpFamily),
    /// The destination port of the first packet of its flow, before any translation.
    OriginalPort,
    /// Its destination address.
    Destination(IpFamily),
    /// Its protocol, behind any IPv6 extension headers.
    Protocol,
    /// Its destination port. Of a protocol without ports these are other octets, so that a key that
    /// holds it must hold the protocol too.
    Port,
    /// The type of an ICMP message; only where it is known to be one.
    MessageType(IpFamily),
}

/// Where something is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RuleLookup {
    /// In a named set.
    Set(Arc<str>),
    /// Among ranges, disjoint and sorted.
    Ranges(Vec<KeyRange>),
    /// Among ranges that have verdicts, disjoint and sorted.
    Verdicts(Vec<(KeyRange, NftVerdict)>),
}

impl Datatype {
    /// Octets, without padding.
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
    /// Its type.
    pub(crate) fn datatype(self) -> Datatype {
        match self {
            PacketField::Source(family)
            | PacketField::Destination(family)
            | PacketField::OriginalDestination(family) => Datatype::Address(family),
            PacketField::Link => Datatype::Link,
            PacketField::Protocol => Datatype::Protocol,
            PacketField::Port | PacketField::OriginalPort => Datatype::Port,
            PacketField::MessageType(family) => Datatype::MessageType(family),
        }
    }
}

impl NewElement {
    /// An element without an end or a value.
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

/// Ranges over keys of a single part, as the kernel keeps them: an element for where each begins,
/// and one for where it has ended, unless the next begins there or there are no more keys.
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
