//! Closes governed pods while the table is made anew.
//!
//! Writing a whole table takes some ten milliseconds, and longer where there is much to write. A
//! table that is gone, or whose rules are somebody else's, is open for as long. So one small
//! transaction comes first. It makes base chains of its own in the hooks that decide, which let
//! pass nothing new of a governed source, nor to a governed destination. The frame deletes them in
//! the transaction that hooks up its own chains, so that there is no moment between the two.
//!
//! Packets are dropped and not rejected: a client whose connection is allowed retransmits its first
//! packet, which then passes.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use policy::{Direction, Protocol};

use crate::desired::{DesiredState, FailMode, Interception, LocalHost};
use crate::layout::IpFamily;
use crate::netlink::objects::{HookInfo, NftRule, NftVerdict, PacketField, RuleLookup, RuleMatch, TableCommand};
use crate::netlink::set_key::{KeyRange, SetKey, address_key};

use super::{table_sets, zones};

/// A base chain, by its hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClosedHook {
    Input,
    Forward,
    Output,
}

impl ClosedHook {
    const ALL: [Self; 3] = [ClosedHook::Input, ClosedHook::Forward, ClosedHook::Output];

    fn chain(self) -> &'static str {
        match self {
            ClosedHook::Input => "closed-input",
            ClosedHook::Forward => "closed-forward",
            ClosedHook::Output => "closed-output",
        }
    }

    /// `NF_INET_LOCAL_IN`, `NF_INET_FORWARD`, `NF_INET_LOCAL_OUT`.
    fn number(self) -> u32 {
        match self {
            ClosedHook::Input => 1,
            ClosedHook::Forward => 2,
            ClosedHook::Output => 3,
        }
    }

    /// Whether programs of this direction are asked in the hook.
    fn decides(self, direction: Direction, desired: &DesiredState) -> bool {
        match (self, direction) {
            (ClosedHook::Input, direction) => direction == Direction::Egress,
            (ClosedHook::Forward, _) => true,
            // What is sent in a client's place bears its address.
            (ClosedHook::Output, Direction::Egress) => desired.handover.is_some(),
            (ClosedHook::Output, Direction::Ingress) => desired.local_host == LocalHost::Policy,
        }
    }
}

/// The names of the chains, whatever the settings.
pub(crate) fn hooks() -> impl Iterator<Item = String> {
    ClosedHook::ALL.into_iter().map(|hook| hook.chain().to_owned())
}

/// The names of the chains that [`commands`] makes.
pub(crate) fn chains(desired: &DesiredState) -> impl Iterator<Item = String> {
    closed(desired).map(|hook| hook.chain().to_owned())
}

fn closed(desired: &DesiredState) -> impl Iterator<Item = ClosedHook> {
    let decides = |hook: &ClosedHook| Direction::BOTH.into_iter().any(|it| hook.decides(it, desired));
    ClosedHook::ALL.into_iter().filter(decides)
}

/// The commands that close governed pods, in a table that may be gone.
pub(crate) fn commands(desired: &DesiredState) -> Vec<TableCommand> {
    let mut commands = vec![TableCommand::AddTable];
    for hook in closed(desired) {
        let name: Arc<str> = hook.chain().into();
        let at = HookInfo {
            number: hook.number(),
            priority: 0,
            kind: "filter".to_owned(),
        };
        commands.push(TableCommand::AddBaseChain(Arc::clone(&name), at));
        // The chain exists already when an earlier attempt has failed.
        commands.push(TableCommand::EmptyChain(Arc::clone(&name)));
        let rules = rules(desired, hook).into_iter();
        commands.extend(rules.map(|rule| TableCommand::AddRule(Arc::clone(&name), rule)));
    }
    commands
}

fn rules(desired: &DesiredState, hook: ClosedHook) -> Vec<NftRule> {
    let mut rules = vec![rule(RuleMatch::Established, NftVerdict::Accept)];
    // As when no agent is alive: lookups go to the resolver unobserved.
    if desired.fail_mode == FailMode::Open && desired.interception != Interception::Off {
        rules.extend(
            IpFamily::BOTH
                .into_iter()
                .filter_map(|family| lookups_pass(desired, family)),
        );
    }
    for direction in Direction::BOTH {
        if hook.decides(direction, desired) {
            rules.extend(
                IpFamily::BOTH
                    .into_iter()
                    .filter_map(|family| shut(desired, direction, family)),
            );
        }
    }
    if hook.decides(Direction::Egress, desired) {
        rules.extend(shut_links(desired));
    }
    rules
}

/// Drops what comes from governed sources and from those that may become so, or goes to such
/// destinations.
fn shut(desired: &DesiredState, direction: Direction, family: IpFamily) -> Option<NftRule> {
    let governed = desired.dispatch[direction].keys().copied().map(IpNet::from);
    let ends = zones::ranges(governed.chain(desired.unknown.iter().copied()), family);
    let end = match direction {
        Direction::Egress => PacketField::Source(family),
        Direction::Ingress => PacketField::Destination(family),
    };
    let test = RuleMatch::In(vec![end], RuleLookup::Ranges(ends.clone()));
    (!ends.is_empty()).then(|| rule(test, NftVerdict::Drop))
}

/// Drops what comes from a governed pod's link, which leads to nobody else, whatever the source. A
/// shared link also leads to pods that no policy governs.
fn shut_links(desired: &DesiredState) -> Vec<NftRule> {
    let links = &desired.pod_links;
    let mut of_pods: Vec<SetKey> = links
        .governed
        .difference(&links.shared)
        .copied()
        .map(table_sets::link_key)
        .collect();
    if of_pods.is_empty() {
        return Vec::new();
    }
    of_pods.sort_unstable();
    let ranges = of_pods.into_iter().map(|link| KeyRange {
        first: link.clone(),
        last: link,
    });
    let test = RuleMatch::In(vec![PacketField::Link], RuleLookup::Ranges(ranges.collect()));
    vec![
        // Neighbour discovery from link-local addresses, without which there is no IPv6.
        rule(RuleMatch::Is(Protocol::Icmpv6), NftVerdict::Accept),
        rule(test, NftVerdict::Drop),
    ]
}

/// Lookups to known resolvers, by the address that the pod asked.
fn lookups_pass(desired: &DesiredState, family: IpFamily) -> Option<NftRule> {
    let asked = desired.resolvers.iter().map(|binding| binding.asked);
    let mut keys: Vec<SetKey> = asked
        .filter(|asked| IpFamily::of(asked.ip()) == family)
        .flat_map(|asked| [Protocol::Udp, Protocol::Tcp].map(|protocol| lookup_key(asked.ip(), protocol, asked.port())))
        .collect();
    keys.sort_unstable();
    keys.dedup();
    let ranges = keys.into_iter().map(|key| KeyRange {
        first: key.clone(),
        last: key,
    });
    let ranges: Vec<KeyRange> = ranges.collect();
    let fields = vec![
        PacketField::OriginalDestination(family),
        PacketField::Protocol,
        PacketField::OriginalPort,
    ];
    (!ranges.is_empty()).then(|| rule(RuleMatch::In(fields, RuleLookup::Ranges(ranges)), NftVerdict::Accept))
}

/// A key of address, protocol and port, each padded to four octets.
fn lookup_key(address: IpAddr, protocol: Protocol, port: u16) -> SetKey {
    let mut key = address_key(address);
    let [high, low] = port.to_be_bytes();
    key.extend_from_slice(&[protocol.number(), 0, 0, 0, high, low, 0, 0]);
    key
}

fn rule(test: RuleMatch, verdict: NftVerdict) -> NftRule {
    NftRule {
        test,
        verdict: Some(verdict),
    }
}
