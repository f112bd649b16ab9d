//! What a transaction is made of, as plain data: chains, sets, rules, elements.
//!
//! A rule is as simple as all of ours are: one test at most, and a verdict. That keeps the cost of
//! a packet countable.

use std::sync::Arc;
use std::time::Duration;

use policy::Protocol;

use crate::layout::IpFamily;

use super::batch::Key;
use super::structure::Hook;

/// One step of a transaction. Names are those of our table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Makes the table; one that stands keeps what it holds, and wakes if it was put to sleep.
    AddTable,
    /// Deletes the table with all that it holds.
    DeleteTable,
    /// Makes a chain that rules call; one that stands is left as it is.
    AddChain(Arc<str>),
    /// Makes a chain that a hook calls, with policy accept; one that stands in the same place is
    /// left as it is.
    AddBaseChain(Arc<str>, Hook),
    /// Makes a set that does not stand yet.
    AddSet(Arc<str>, SetForm),
    /// Adds elements.
    AddElements(Arc<str>, Vec<NewElement>),
    /// Deletes elements; one that is not there is an error.
    DeleteElements(Arc<str>, Vec<Key>),
    /// Deletes all elements.
    EmptySet(Arc<str>),
    /// Appends a rule to a chain.
    AddRule(Arc<str>, Rule),
    /// Deletes all rules of a chain.
    EmptyChain(Arc<str>),
    /// Deletes a set.
    DeleteSet(Arc<str>),
    /// Deletes a chain.
    DeleteChain(Arc<str>),
}

/// What the elements of a named set look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SetForm {
    /// The parts of its key.
    pub(crate) key: Vec<Datum>,
    /// What its elements are mapped to.
    pub(crate) maps_to: Option<MapsTo>,
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
pub(crate) enum MapsTo {
    /// A verdict.
    Verdict,
    /// A value.
    Datum(Datum),
}

/// A type of values in sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Datum {
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
    pub(crate) key: Key,
    /// The last key of its range, in a set of several parts; in one of a single part ends are
    /// elements themselves.
    pub(crate) last: Option<Key>,
    /// Whether it is the end of a range, not included, rather than an element.
    pub(crate) ends_range: bool,
    /// Its life; `None` without an end.
    pub(crate) timeout: Option<Duration>,
    /// What it is mapped to.
    pub(crate) value: Option<Value>,
}

/// What an element is mapped to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// A verdict.
    Verdict(Verdict),
    /// A value, as the kernel keeps it.
    Data(Key),
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It passes our table.
    Accept,
    /// It is dropped.
    Drop,
    /// It goes on in a chain, and comes back from its end.
    Jump(Arc<str>),
    /// It goes on in a chain, whose end is the end of this one.
    Goto(Arc<str>),
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Which packets it is about.
    pub(crate) test: Test,
    /// What becomes of them; `None` where the test says it.
    pub(crate) verdict: Option<Verdict>,
}

/// What a rule asks of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Test {
    /// Nothing.
    Always,
    /// That its protocol is this one.
    Is(Protocol),
    /// That it belongs to a flow that both ends have taken part in.
    Established,
    /// That a set holds these of its fields.
    In(Vec<Field>, Lookup),
}

/// Something that a packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
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
pub(crate) enum Lookup {
    /// In a named set.
    Set(Arc<str>),
    /// Among ranges, disjoint and sorted.
    Ranges(Vec<KeyRange>),
    /// Among ranges that have verdicts, disjoint and sorted.
    Verdicts(Vec<(KeyRange, Verdict)>),
}

/// From one key to another, which is included; of several parts, each part by itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyRange {
    /// The first.
    pub(crate) first: Key,
    /// The last.
    pub(crate) last: Key,
}

impl Datum {
    /// Octets, without padding.
    pub(crate) fn length(self) -> usize {
        match self {
            Datum::Address(IpFamily::V4) | Datum::Link => 4,
            Datum::Address(IpFamily::V6) => 16,
            Datum::Port => 2,
            Datum::Protocol | Datum::MessageType(_) => 1,
        }
    }
}

impl Field {
    /// Its type.
    pub(crate) fn datum(self) -> Datum {
        match self {
            Field::Source(family) | Field::Destination(family) | Field::OriginalDestination(family) => {
                Datum::Address(family)
            }
            Field::Link => Datum::Link,
            Field::Protocol => Datum::Protocol,
            Field::Port | Field::OriginalPort => Datum::Port,
            Field::MessageType(family) => Datum::MessageType(family),
        }
    }
}

impl NewElement {
    /// An element without an end or a value.
    pub(crate) fn plain(key: Key) -> Self {
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
pub(crate) fn half_open<'r>(ranges: impl IntoIterator<Item = (&'r KeyRange, Option<&'r Verdict>)>) -> Vec<NewElement> {
    let mut elements: Vec<NewElement> = Vec::new();
    for (range, verdict) in ranges {
        if elements.last().is_some_and(|end| end.key == range.first) {
            elements.pop();
        }
        elements.push(NewElement {
            value: verdict.cloned().map(Value::Verdict),
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

/// The key after this one, as a number in network order.
pub(crate) fn successor(key: &Key) -> Option<Key> {
    let mut next = key.clone();
    for octet in next.iter_mut().rev() {
        let (sum, carries) = octet.overflowing_add(1);
        *octet = sum;
        if !carries {
            return Some(next);
        }
    }
    None
}
