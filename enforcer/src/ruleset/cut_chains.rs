//! The chains that refuse the packets of flows that are cut, while any are.
//!
//! A flow that policies do not allow any more is known to connection tracking, so its packets never
//! come to a program. To delete its conntrack entry is not enough: a packet of the *other* end
//! makes a new one, the wrong way round, and what the governed pod sends is an answer again. So the
//! ends of such a flow stand in a set, in both orders, and base chains before all others refuse
//! what it holds. An element lives as long as connection tracking would have kept the flow, and
//! longer than an agent.
//!
//! Every packet of the node pays for these chains, so they exist only while a set holds something.
//! The set of the table is never looked up elsewhere, and nobody's rules depend on it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use policy::Protocol;

use crate::layout::IpFamily;
use crate::netlink::objects::{
    HookInfo, NewElement, NftRule, NftVerdict, PacketField, RuleLookup, RuleMatch, SetSpec, TableCommand,
};
use crate::netlink::set_key::{SetKey, address_key};

use super::refusal;

/// The base chains, and the hooks that they are called by (`NF_INET_LOCAL_IN`, `NF_INET_FORWARD`,
/// `NF_INET_LOCAL_OUT`).
const CHAINS: [(&str, u32); 3] = [("cut-input", 1), ("cut-forward", 2), ("cut-output", OUTPUT)];
const OUTPUT: u32 = 3;

/// Before the chains that let established flows pass.
const PRIORITY: i32 = -1;

/// What is cut at a time. Flows beyond it are told as failures; a node tracks a few hundred
/// thousand.
const CAPACITY: u32 = 524_288;

/// For elements that are deleted in the same transaction.
const SOON: Duration = Duration::from_secs(1);

/// What a key has beside the addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CutKey {
    /// Protocol and both ports.
    Ports,
    /// The protocol, where it has no ports.
    Protocol,
}

/// The ends of a flow that is cut, in the order of who opened it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CutEnds {
    /// The IANA protocol number.
    pub(crate) protocol: u8,
    /// The ends, with port 0 where the protocol has none.
    pub(crate) ends: [SocketAddr; 2],
}

/// Whether a protocol has ports where TCP has them: UDP-Lite and DCCP too.
fn has_ports(protocol: u8) -> bool {
    const DCCP: u8 = 33;
    const UDP_LITE: u8 = 136;
    let known = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(Protocol::number);
    known.contains(&protocol) || [DCCP, UDP_LITE].contains(&protocol)
}

/// The name of a set.
fn set_name(key: CutKey, family: IpFamily) -> Arc<str> {
    match key {
        CutKey::Ports => format!("cut{family}"),
        CutKey::Protocol => format!("cut-hosts{family}"),
    }
    .into()
}

fn sets() -> impl Iterator<Item = (CutKey, IpFamily)> {
    let of = |key| IpFamily::BOTH.map(|family| (key, family));
    [CutKey::Ports, CutKey::Protocol].into_iter().flat_map(of)
}

/// The names of the sets.
pub(crate) fn set_names() -> impl Iterator<Item = Arc<str>> {
    sets().map(|(key, family)| set_name(key, family))
}

/// The names of the chains.
pub(crate) fn chains() -> impl Iterator<Item = &'static str> {
    CHAINS.into_iter().map(|(name, _)| name)
}

/// Whether a chain is one of these.
pub(crate) fn is_chain(name: &str) -> bool {
    chains().any(|chain| chain == name)
}

/// The commands that cut flows, each for as long as its time says: at once, in one transaction.
pub(crate) fn commands(cuts: &[(CutEnds, Duration)]) -> Vec<TableCommand> {
    let mut commands = Vec::new();
    for (key, family) in sets() {
        let name = set_name(key, family);
        commands.push(TableCommand::AddSet(Arc::clone(&name), form(key, family)));
        let elements = cuts.iter().flat_map(|(ends, left)| elements(*ends, *left, key, family));
        let elements: Vec<NewElement> = elements.collect();
        if !elements.is_empty() {
            commands.push(TableCommand::AddElements(name, elements));
        }
    }
    for (name, number) in CHAINS {
        let name: Arc<str> = name.into();
        let hook = HookInfo {
            number,
            priority: PRIORITY,
            kind: "filter".to_owned(),
        };
        commands.push(TableCommand::AddBaseChain(Arc::clone(&name), hook));
        // It exists already while other flows are cut.
        commands.push(TableCommand::EmptyChain(Arc::clone(&name)));
        // A reset that tells an end of the cut has the ends of the flow, and is related to the
        // packet that was refused.
        let told = (number == OUTPUT).then_some((RuleMatch::Related, NftVerdict::Accept));
        let refused = sets().map(|(key, family)| {
            let lookup = RuleLookup::Set(set_name(key, family));
            let refuse = NftVerdict::Goto(refusal::CUT_CHAIN.into());
            (RuleMatch::In(fields(key, family), lookup), refuse)
        });
        let rules = told.into_iter().chain(refused).map(|(test, verdict)| NftRule {
            test,
            verdict: Some(verdict),
        });
        commands.extend(rules.map(|rule| TableCommand::AddRule(Arc::clone(&name), rule)));
    }
    commands
}

/// The commands that end the cut of flows, also of those whose time is over.
pub(crate) fn restoration(flows: &[CutEnds]) -> Vec<TableCommand> {
    let mut commands = Vec::new();
    for (key, family) in sets() {
        // Added first, so that they are there to be deleted.
        let elements = flows.iter().flat_map(|ends| elements(*ends, SOON, key, family));
        let elements: Vec<NewElement> = elements.collect();
        if !elements.is_empty() {
            let name = set_name(key, family);
            let keys = elements.iter().map(|element| element.key.clone()).collect();
            commands.push(TableCommand::AddElements(Arc::clone(&name), elements));
            commands.push(TableCommand::DeleteElements(name, keys));
        }
    }
    commands
}

/// The commands that remove everything, once nothing is cut any more.
pub(crate) fn removal() -> Vec<TableCommand> {
    let chains: Vec<Arc<str>> = chains().map(Arc::from).collect();
    let empty = chains.iter().cloned().map(TableCommand::EmptyChain);
    let delete = chains.iter().cloned().map(TableCommand::DeleteChain);
    let sets = set_names().map(TableCommand::DeleteSet);
    empty.chain(sets).chain(delete).collect()
}

fn form(key: CutKey, family: IpFamily) -> SetSpec {
    SetSpec {
        key: fields(key, family).iter().map(|field| field.datatype()).collect(),
        maps_to: None,
        ranges: false,
        timeouts: true,
        swept: None,
        size: Some(CAPACITY),
        meter: None,
    }
}

fn fields(key: CutKey, family: IpFamily) -> Vec<PacketField> {
    let mut fields = vec![
        PacketField::Source(family),
        PacketField::Destination(family),
        PacketField::Protocol,
    ];
    if key == CutKey::Ports {
        fields.extend([PacketField::SourcePort, PacketField::Port]);
    }
    fields
}

/// The elements of a flow in a set, one for each way; none in the sets of others.
fn elements(flow: CutEnds, left: Duration, key: CutKey, family: IpFamily) -> Vec<NewElement> {
    let [opener, other] = flow.ends;
    let is_of_key = has_ports(flow.protocol) == (key == CutKey::Ports);
    let is_of_family = [opener, other].iter().all(|end| IpFamily::of(end.ip()) == family);
    if !(is_of_key && is_of_family) {
        return Vec::new();
    }
    let ways = [[opener, other], [other, opener]];
    let element = |[source, destination]: [SocketAddr; 2]| {
        let mut fields = vec![octets(source.ip()), octets(destination.ip()), vec![flow.protocol]];
        if key == CutKey::Ports {
            fields.extend([source, destination].map(|end| end.port().to_be_bytes().to_vec()));
        }
        NewElement {
            timeout: Some(left),
            ..NewElement::plain(padded(&fields))
        }
    };
    ways.map(element).into()
}

fn octets(address: IpAddr) -> Vec<u8> {
    address_key(address).to_vec()
}

/// A key of several fields, each padded to four octets.
fn padded(fields: &[Vec<u8>]) -> SetKey {
    let mut key = SetKey::new();
    for field in fields {
        key.extend_from_slice(field);
        while !key.len().is_multiple_of(4) {
            key.push(0);
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(protocol: u8, opener: &str, other: &str) -> CutEnds {
        let ends = [opener, other].map(|end| end.parse().unwrap());
        CutEnds { protocol, ends }
    }

    #[test]
    fn a_flow_stands_in_the_set_of_its_family_and_protocol_in_both_orders() {
        let left = Duration::from_secs(90);
        let tcp = ends(6, "10.0.0.1:4000", "10.0.0.2:80");
        let keys = |ends, key, family| -> Vec<Vec<u8>> {
            let elements = elements(ends, left, key, family).into_iter();
            elements.map(|element| element.key.to_vec()).collect()
        };
        let there = [10, 0, 0, 1, 10, 0, 0, 2, 6, 0, 0, 0, 0x0f, 0xa0, 0, 0, 0, 80, 0, 0].to_vec();
        let back = [10, 0, 0, 2, 10, 0, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0, 0x0f, 0xa0, 0, 0].to_vec();
        assert_eq!(keys(tcp, CutKey::Ports, IpFamily::V4), [there, back]);
        for (key, family) in [(CutKey::Ports, IpFamily::V6), (CutKey::Protocol, IpFamily::V4)] {
            assert!(keys(tcp, key, family).is_empty());
        }
        let gre = ends(47, "[fd00::1]:0", "[fd00::2]:0");
        assert_eq!(keys(gre, CutKey::Protocol, IpFamily::V6)[0].len(), 36);
        assert!(keys(gre, CutKey::Ports, IpFamily::V6).is_empty());
    }

    #[test]
    fn what_is_made_is_what_is_removed() {
        let made = commands(&[(ends(6, "10.0.0.1:4000", "10.0.0.2:80"), Duration::from_secs(9))]);
        let removed = removal();
        for command in &made {
            let removes = match command {
                TableCommand::AddSet(name, _) => TableCommand::DeleteSet(Arc::clone(name)),
                TableCommand::AddBaseChain(name, _) => TableCommand::DeleteChain(Arc::clone(name)),
                _ => continue,
            };
            assert!(removed.contains(&removes), "{removes:?}");
        }
    }
}
