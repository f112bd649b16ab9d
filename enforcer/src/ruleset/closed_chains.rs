//! Closes governed pods while the table is made anew.
//!
//! Writing a whole table takes some ten milliseconds, and longer where there is much to write. A
//! table that is gone, or whose rules are somebody else's, is open for as long. So one small
//! transaction comes first. It makes base chains of its own in the hooks that decide about egress,
//! which let pass nothing new of a governed source. The frame deletes them in the transaction that
//! hooks up its own chains, so that there is no moment between the two.
//!
//! Packets are dropped and not rejected: a client whose connection is allowed retransmits its first
//! packet, which then passes.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use policy::Protocol;

use crate::desired::{DesiredState, FailMode, Interception};
use crate::layout::IpFamily;
use crate::netlink::objects::{HookInfo, NftRule, NftVerdict, PacketField, RuleLookup, RuleMatch, TableCommand};
use crate::netlink::set_key::{KeyRange, SetKey, address_key};

use super::{table_sets, zones};

/// The chains, and the hooks that they are called by (`NF_INET_LOCAL_IN`, `NF_INET_FORWARD`).
const CHAINS: [(&str, u32); 2] = [("closed-input", 1), ("closed-forward", 2)];

/// The names of the chains.
pub(crate) fn chains() -> impl Iterator<Item = String> {
    CHAINS.into_iter().map(|(name, _)| name.to_owned())
}

/// The commands that close governed pods, in a table that may be gone.
pub(crate) fn commands(desired: &DesiredState) -> Vec<TableCommand> {
    let rules = rules(desired);
    let mut commands = vec![TableCommand::AddTable];
    for (name, number) in CHAINS {
        let name: Arc<str> = name.into();
        let hook = HookInfo {
            number,
            priority: 0,
            kind: "filter".to_owned(),
        };
        commands.push(TableCommand::AddBaseChain(Arc::clone(&name), hook));
        // The chain exists already when an earlier attempt has failed.
        commands.push(TableCommand::EmptyChain(Arc::clone(&name)));
        let rules = rules.iter().cloned();
        commands.extend(rules.map(|rule| TableCommand::AddRule(Arc::clone(&name), rule)));
    }
    commands
}

fn rules(desired: &DesiredState) -> Vec<NftRule> {
    let mut rules = vec![rule(RuleMatch::Established, NftVerdict::Accept)];
    // As when no agent is alive: lookups go to the resolver unobserved.
    if desired.fail_mode == FailMode::Open && desired.interception != Interception::Off {
        rules.extend(
            IpFamily::BOTH
                .into_iter()
                .filter_map(|family| lookups_pass(desired, family)),
        );
    }
    for family in IpFamily::BOTH {
        let governed = desired.dispatch.egress.keys().copied().map(IpNet::from);
        let sources = zones::ranges(governed.chain(desired.unknown.iter().copied()), family);
        if !sources.is_empty() {
            let test = RuleMatch::In(vec![PacketField::Source(family)], RuleLookup::Ranges(sources));
            rules.push(rule(test, NftVerdict::Drop));
        }
    }
    // A pod's link leads to nobody else, whatever the source. A shared link also leads to pods that
    // no policy governs.
    let links = &desired.pod_links;
    let mut of_pods: Vec<SetKey> = links
        .governed
        .difference(&links.shared)
        .copied()
        .map(table_sets::link_key)
        .collect();
    if !of_pods.is_empty() {
        of_pods.sort_unstable();
        let ranges = of_pods.into_iter().map(|link| KeyRange {
            first: link.clone(),
            last: link,
        });
        // Neighbour discovery from link-local addresses, without which there is no IPv6.
        rules.push(rule(RuleMatch::Is(Protocol::Icmpv6), NftVerdict::Accept));
        let test = RuleMatch::In(vec![PacketField::Link], RuleLookup::Ranges(ranges.collect()));
        rules.push(rule(test, NftVerdict::Drop));
    }
    rules
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
