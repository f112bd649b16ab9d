//! The base chains that decide: `forward` (through this node), where the programs of both ends are
//! asked; `input` (to it), where only the sender's is; and `output` (from it), where only the
//! receiver's is.
//!
//! This node's own packets (the kubelet's probes, Pods in the host's network) never pass `forward`,
//! so without `output` no program of a receiver is asked about them. It exists only where the
//! settings say that policies decide about the node too ([`LocalHost::Policy`]).

use std::net::Ipv6Addr;

use ipnet::{IpNet, Ipv6Net};
use nftables::types::{NfChainType, NfHook};
use policy::Protocol;

use crate::desired::{DesiredState, LocalHost};
use crate::layout::IpFamily;

use super::document::{ChainHook, NftDocument};
use super::expression::{
    accept, any_of, conntrack, destination, goto, has_any, header, is, jump, number, prefix, protocol, protocol_value,
    word,
};
use super::{dispatch, handover, interception, refusal, related, set_names, strangers};

const INPUT: &str = "input";
const FORWARD: &str = "forward";
const OUTPUT: &str = "output";

/// The names of the base chains of all settings.
pub(super) fn hooks() -> impl Iterator<Item = String> {
    [INPUT, FORWARD, OUTPUT].into_iter().map(str::to_owned)
}

/// RFC 4291 §2.7.
const MULTICAST: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8);

pub(super) fn chains(document: &mut NftDocument<'_>, desired: &DesiredState) {
    let local_out = match desired.local_host {
        LocalHost::Always => None,
        LocalHost::Policy => Some((OUTPUT, NfHook::Output)),
    };
    let hooks = [(INPUT, NfHook::Input), (FORWARD, NfHook::Forward)];
    for (chain, hook) in hooks.into_iter().chain(local_out) {
        document.base_chain(
            chain,
            ChainHook {
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
            handover::pass_handed_over(document, chain, desired);
        }
        if chain == OUTPUT {
            interception::pass_untracked_answers(document, chain);
            handover::pass_resumed(document, chain, desired);
        } else {
            document.rule(chain, [jump(dispatch::CHAIN)]);
        }
        if chain != INPUT {
            document.rule(chain, [jump(dispatch::RECEIVER_CHAIN)]);
        }
    }
}

/// A flow that was allowed once goes on: the end of a lease stops new connections only.
fn pass_established(document: &mut NftDocument<'_>, chain: &str) {
    for (state, then) in [("established", accept()), ("related", jump(related::CHAIN))] {
        document.rule(chain, [has_any(conntrack("state", None), word(state)), then]);
    }
}

/// Without neighbour discovery there is no IPv6, and no policy speaks of it. `forward` needs it
/// too, where bridges pass their frames through these hooks (`bridge-nf-call-ip6tables`).
///
/// Hop limit 255 proves that a message came from the link (RFC 4861 §3.1), so that no routed packet
/// passes for one. Multicast listener reports go to multicast addresses (RFC 3810 §5.2.14), which
/// are not routed here.
///
/// Router messages from pods are dropped: a pod that sent them would become the router of its
/// neighbours.
fn pass_neighbour_discovery(document: &mut NftDocument<'_>, chain: &str) {
    let discovery = ["nd-router-solicit", "nd-neighbor-solicit", "nd-neighbor-advert"];
    let routers = ["nd-router-advert", "nd-redirect", "mld-listener-query"];
    let listening = ["mld-listener-report", "mld-listener-done", "mld2-listener-report"];
    let icmpv6 = || is(protocol(), protocol_value(Protocol::Icmpv6));
    let on_link = || is(header("ip6", "hoplimit"), number(255));
    let is_one_of = |types: &[&'static str]| {
        let types = types.iter().copied().map(word);
        is(header("icmpv6", "type"), any_of(types))
    };
    document.rule(chain, [icmpv6(), on_link(), is_one_of(&discovery), accept()]);
    document.rule(
        chain,
        [
            icmpv6(),
            is_one_of(&routers),
            strangers::comes_from(set_names::GOVERNED_LINKS),
            goto(refusal::DROP_CHAIN),
        ],
    );
    document.rule(chain, [icmpv6(), on_link(), is_one_of(&routers[..2]), accept()]);
    document.rule(
        chain,
        [
            icmpv6(),
            is(destination(IpFamily::V6), prefix(IpNet::V6(MULTICAST))),
            is_one_of(&[&listening[..], &routers[2..]].concat()),
            accept(),
        ],
    );
}
