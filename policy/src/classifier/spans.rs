//! Prefixes that lie in each other → disjoint spans of addresses.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::RuleIndex;
use super::evaluation::{Precedence, RuleList};
use crate::port_map::PortMap;
use crate::program::Peer;
use crate::zone::AddressZone;

/// Addresses that the same prefix rules match.
#[derive(Debug, Clone)]
pub(super) struct RuleSpan {
    pub(super) first: IpAddr,
    pub(super) last: IpAddr,
    /// In order; not empty.
    pub(super) rules: Vec<RuleIndex>,
    pub(super) ports: PortMap<Precedence>,
}

/// Whether one address comes right after another of the same family.
pub(super) fn follows(before: IpAddr, next: IpAddr) -> bool {
    match (before, next) {
        (IpAddr::V4(before), IpAddr::V4(next)) => before.to_bits().checked_add(1) == Some(next.to_bits()),
        (IpAddr::V6(before), IpAddr::V6(next)) => before.to_bits().checked_add(1) == Some(next.to_bits()),
        _ => false,
    }
}

/// What the prefix rules say in a zone, sorted by address.
pub(super) fn spans(list: &RuleList, zone: AddressZone) -> Vec<RuleSpan> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for (index, rule) in list.rules.iter().enumerate() {
        let Peer::Prefix(spoken_of, prefix) = rule.peer else {
            continue;
        };
        if !zone.is_in(spoken_of) {
            continue;
        }
        match prefix {
            IpNet::V4(net) => v4.push((net.network().to_bits().into(), net.broadcast().to_bits().into(), index)),
            IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits(), index)),
        }
    }
    let v4 = swept(v4)
        .into_iter()
        .map(|(first, last, rules)| (address_v4(first), address_v4(last), rules));
    let v6 = swept(v6)
        .into_iter()
        .map(|(first, last, rules)| (address_v6(first), address_v6(last), rules));
    let spans = v4.chain(v6).map(|(first, last, rules)| {
        let matching = rules.iter().map(|index| (*index, &list.rules[*index].ports));
        let ports = list.evaluate(matching);
        RuleSpan {
            first,
            last,
            rules,
            ports,
        }
    });
    spans.collect()
}

/// First address, last address, and the rule.
type RuleRange = (u128, u128, RuleIndex);

/// Sweeps over ranges from the lowest address to the highest.
fn swept(ranges: Vec<RuleRange>) -> Vec<(u128, u128, Vec<RuleIndex>)> {
    // Where the set of matching rules changes; nothing changes after the last address.
    let mut changes: Vec<(u128, bool, RuleIndex)> = Vec::with_capacity(2 * ranges.len());
    for (first, last, rule) in ranges {
        changes.push((first, true, rule));
        changes.extend(last.checked_add(1).map(|after| (after, false, rule)));
    }
    changes.sort_unstable();
    let mut spans = Vec::new();
    let mut matching: BTreeSet<RuleIndex> = BTreeSet::new();
    let mut changes = changes.into_iter().peekable();
    while let Some((at, begins, rule)) = changes.next() {
        if begins {
            matching.insert(rule);
        } else {
            matching.remove(&rule);
        }
        let next = changes.peek().map(|(next, ..)| *next);
        if next == Some(at) || matching.is_empty() {
            continue;
        }
        let last = next.map_or(u128::MAX, |next| next - 1);
        spans.push((at, last, matching.iter().copied().collect()));
    }
    spans
}

/// `u128::MAX` stands for the last address of the family.
fn address_v4(bits: u128) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or(u32::MAX)))
}

fn address_v6(bits: u128) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from_bits(bits))
}
