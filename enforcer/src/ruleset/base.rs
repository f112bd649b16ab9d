//! The chains that decide about egress, `input` (to this node) and `forward` (through it).

use std::net::Ipv6Addr;

use ipnet::{IpNet, Ipv6Net};
use nftables::types::{NfChainType, NfHook};
use policy::Protocol;

use super::document::{Document, Hook};
use super::expression::{
    Expr, accept, any_of, conntrack, destination, has_any, header, is, jump, number, prefix, protocol, protocol_value,
    word,
};
use super::{dispatch, interception};
use crate::desired::Desired;
use crate::layout::Family;

const INPUT: &str = "input";
const FORWARD: &str = "forward";

/// RFC 4291 §2.7.
const MULTICAST: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8);

pub(super) fn chains(document: &mut Document<'_>, desired: &Desired) {
    for (chain, hook) in [(INPUT, NfHook::Input), (FORWARD, NfHook::Forward)] {
        document.base_chain(
            chain,
            Hook {
                chain_type: NfChainType::Filter,
                hook,
                priority: 0,
            },
        );
        pass_established(document, chain);
        pass_neighbour_discovery(document, chain);
        if chain == INPUT {
            interception::pass_intercepted(document, chain, desired);
            interception::pass_to_listeners(document, chain, desired);
        }
        interception::judge_unintercepted(document, chain, desired);
        document.rule(chain, [jump(dispatch::CHAIN)]);
    }
}

/// Flows that were allowed once go on: expiry of a lease stops new connections only. Revocation that cuts flows (a generation in
/// the flow's mark) would take the place of this rule.
fn pass_established(document: &mut Document<'_>, chain: &str) {
    let established = [word("established"), word("related")];
    document.rule(
        chain,
        [
            has_any(conntrack("state", None), Expr::List(established.into())),
            accept(),
        ],
    );
}

/// Without neighbour discovery there is no IPv6, and no policy speaks of it. It is needed in `forward` too, where
/// bridges pass their frames through these hooks (`bridge-nf-call-ip6tables`).
///
/// Hop limit 255 proves that a message came from the link (RFC 4861 §3.1), so nothing routed can pass for one. Multicast
/// listener reports go to multicast addresses (RFC 3810 §5.2.14), which are not routed here.
fn pass_neighbour_discovery(document: &mut Document<'_>, chain: &str) {
    let discovery = [
        "nd-router-solicit",
        "nd-router-advert",
        "nd-neighbor-solicit",
        "nd-neighbor-advert",
        "nd-redirect",
    ];
    let listening = [
        "mld-listener-query",
        "mld-listener-report",
        "mld-listener-done",
        "mld2-listener-report",
    ];
    let icmpv6 = || is(protocol(), protocol_value(Protocol::Icmpv6));
    document.rule(
        chain,
        [
            icmpv6(),
            is(header("ip6", "hoplimit"), number(255)),
            is(header("icmpv6", "type"), any_of(discovery.map(word))),
            accept(),
        ],
    );
    document.rule(
        chain,
        [
            icmpv6(),
            is(destination(Family::V6), prefix(IpNet::V6(MULTICAST))),
            is(header("icmpv6", "type"), any_of(listening.map(word))),
            accept(),
        ],
    );
}
