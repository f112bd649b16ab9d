//! Packets from links that lead to pods whose source claims to be a resolver.
//!
//! A pod that could send with a resolver's address would race the resolver's answers to the proxy
//! and to its neighbours. Such packets are dropped before connection tracking, to which they would
//! be replies of an established flow. Behind a Service's address the pod that answers is one of the
//! cluster, so no address of the cluster may come from a link but its own.
//!
//! Every packet passes here, so the first test is a comparison of its source port.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use nftables::types::{NfChainType, NfHook};

use crate::desired::DesiredState;
use crate::layout::IpFamily;

use super::document::{ChainHook, NftDocument};
use super::expression::{
    any_of, concat, goto, header, is, is_of, is_tcp_or_udp, jump, named_set, port_value, return_, source,
};
use super::{refusal, set_names, strangers};

/// The base chain for incoming packets before connection tracking.
pub(super) const BEFORE_TRACKING: &str = "before-tracking";
const CHAIN: &str = "answers";

/// `raw - 1`: just before those who switch connection tracking off.
pub(super) const BEFORE_RAW: i32 = -301;

pub(super) fn chains(document: &mut NftDocument<'_>, desired: &DesiredState) {
    document.base_chain(
        BEFORE_TRACKING,
        ChainHook {
            chain_type: NfChainType::Filter,
            hook: NfHook::Prerouting,
            priority: BEFORE_RAW,
        },
    );
    document.chain(CHAIN);
    let from_server = match &Vec::from_iter(ports(desired))[..] {
        [only] => port_value(*only),
        several => any_of(several.iter().copied().map(port_value)),
    };
    document.rule(
        BEFORE_TRACKING,
        [
            is(header("th", "sport"), from_server),
            is_tcp_or_udp(),
            strangers::comes_from(set_names::POD_LINKS),
            jump(CHAIN),
        ],
    );
    for family in IpFamily::BOTH {
        for known in strangers::belongs(family) {
            document.rule(CHAIN, known.into_iter().chain([return_()]));
        }
        let answering = concat([source(family), header("th", "sport")]);
        for forged in [
            is(answering, named_set(&set_names::servers(family))),
            is(source(family), named_set(&set_names::cluster(family))),
        ] {
            document.rule(
                CHAIN,
                [is_of(family), is_tcp_or_udp(), forged, goto(refusal::DROP_CHAIN)],
            );
        }
    }
    let governed = strangers::comes_from(set_names::GOVERNED_LINKS);
    document.rule(CHAIN, [governed, goto(refusal::DROP_CHAIN)]);
}

/// The ports that resolvers answer from. They are written into the frame's rules, so that no packet
/// costs a lookup for them.
pub(super) fn ports(desired: &DesiredState) -> BTreeSet<u16> {
    let known = desired.servers.iter().map(SocketAddr::port);
    known.chain([53]).collect()
}
