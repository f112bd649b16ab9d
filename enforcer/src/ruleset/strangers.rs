//! Packets on links that lead to governed pods, from sources that no program governs.
//!
//! They pass when the source belongs on the link ([`PodLinks`](crate::pod_links::PodLinks)), or
//! when a host asks this node for an address, which it does before it has one. All others are
//! refused: a pod that sends with an address which is nobody's would be governed by nobody.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};
use nftables::expr::MetaKey;
use nftables::stmt::Statement;
use policy::Protocol;

use crate::layout::IpFamily;

use super::document::NftDocument;
use super::expression::{
    Expr, address, concat, destination, goto, header, is, is_of, meta, named_set, number, port, port_value, prefix,
    protocol, protocol_value, return_, source,
};
use super::{refusal, set_names};

pub(super) const CHAIN: &str = "strangers";

/// RFC 4291 §2.5.6.
const LINK_LOCAL: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);
/// All_DHCP_Relay_Agents_and_Servers (RFC 9915 §7.1).
const DHCP_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

pub(super) fn chain(document: &mut NftDocument<'_>) {
    document.chain(CHAIN);
    for family in IpFamily::BOTH {
        for known in belongs(family) {
            document.rule(CHAIN, known.into_iter().chain([return_()]));
        }
        document.rule(CHAIN, asks_for_address(family).into_iter().chain([return_()]));
    }
    document.rule(CHAIN, [goto(refusal::CHAIN)]);
}

/// The packet came in on a link of this set.
pub(super) fn comes_from(links: &str) -> Statement<'static> {
    is(link(), named_set(links))
}

/// The conditions under which a source belongs on the link of its packet; one of them is enough.
pub(super) fn belongs(family: IpFamily) -> [Vec<Statement<'static>>; 2] {
    let on_link = concat([link(), source(family)]);
    [
        vec![is_of(family), is(on_link, named_set(&set_names::link_sources(family)))],
        vec![
            is_of(family),
            comes_from(set_names::SHARED_LINKS),
            is(source(family), named_set(&set_names::link_networks(family))),
        ],
    ]
}

/// A host asks this node for an address (RFC 2131 §4.1, RFC 9915 §13). Such a packet does not leave
/// the node: there is no outgoing link.
fn asks_for_address(family: IpFamily) -> Vec<Statement<'static>> {
    let (server, rest) = match family {
        IpFamily::V4 => {
            let nobody = is(source(family), address(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
            (67, [nobody, is(header("th", "sport"), port_value(68))])
        }
        IpFamily::V6 => {
            let from_link = is(source(family), prefix(IpNet::V6(LINK_LOCAL)));
            (
                547,
                [from_link, is(destination(family), address(IpAddr::V6(DHCP_SERVERS)))],
            )
        }
    };
    let mut statements = vec![
        is_of(family),
        is(meta(MetaKey::Oif), number(0)),
        is(protocol(), protocol_value(Protocol::Udp)),
        is(port(), port_value(server)),
    ];
    statements.extend(rest);
    statements
}

/// The link that the packet came in on.
fn link() -> Expr {
    meta(MetaKey::Iif)
}
