//! Reads the links, addresses and routes that [`PodLinks`](crate::pod_links::PodLinks) are found
//! in, and notices when they change.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::layout::IpFamily;
use crate::pod_links::{HardwareAddress, NodeNetwork, NodeRoute};

use super::notifications::{self, group};
use super::rtnetlink::Rtnetlink;
use super::{address_family, means_no_ipv6, own_addresses_of};

/// RT_TABLE_LOCAL: the node's own addresses and multicast.
const LOCAL_TABLE: u32 = 255;

/// Reads links, addresses and routes of the calling thread's network namespace.
pub fn network() -> io::Result<NodeNetwork> {
    let mut kernel = Rtnetlink::open()?;
    let own = own_addresses_of(&mut kernel)?;
    let links = kernel.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    let dedicated = links.iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewLink(link) => is_dedicated(link).then_some(link.header.index),
        _ => None,
    });
    let bridges = links.iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewLink(link) if is_kind(link, |kind| *kind == InfoKind::Bridge) => {
            Some((link.header.index, hardware_address(link)?))
        }
        _ => None,
    });
    let mut routes = Vec::new();
    for family in IpFamily::BOTH {
        let mut request = RouteMessage::default();
        request.header.address_family = address_family(family);
        match kernel.dump(RouteNetlinkMessage::GetRoute(request)) {
            Ok(found) => routes.extend(found.iter().flat_map(|message| match message {
                RouteNetlinkMessage::NewRoute(route) => routes_of(route),
                _ => Vec::new(),
            })),
            Err(error) if family == IpFamily::V6 && means_no_ipv6(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(NodeNetwork {
        own,
        dedicated: dedicated.collect(),
        bridges: bridges.collect(),
        routes,
    })
}

/// Whether a link has exactly one other end.
fn is_dedicated(link: &LinkMessage) -> bool {
    is_kind(link, |kind| {
        matches!(kind, InfoKind::Veth | InfoKind::Netkit | InfoKind::Tun)
    })
}

fn hardware_address(link: &LinkMessage) -> Option<HardwareAddress> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(address) => address.as_slice().try_into().ok(),
        _ => None,
    })
}

fn is_kind(link: &LinkMessage, wanted: impl Fn(&InfoKind) -> bool) -> bool {
    let infos = link.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    let mut infos = infos.flatten();
    infos.any(|info| matches!(info, LinkInfo::Kind(kind) if wanted(kind)))
}

/// One route for each next hop.
fn routes_of(message: &RouteMessage) -> Vec<NodeRoute> {
    if message.header.kind != RouteType::Unicast {
        return Vec::new();
    }
    let mut table = u32::from(message.header.table);
    let (mut address, mut single, mut hops) = (None, None, Vec::new());
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Destination(RouteAddress::Inet(v4)) => address = Some(IpAddr::V4(*v4)),
            RouteAttribute::Destination(RouteAddress::Inet6(v6)) => address = Some(IpAddr::V6(*v6)),
            RouteAttribute::Oif(link) => single = Some((*link, has_gateway(&message.attributes))),
            RouteAttribute::MultiPath(several) => {
                hops.extend(
                    several
                        .iter()
                        .map(|hop| (hop.interface_index, has_gateway(&hop.attributes))),
                );
            }
            _ => {}
        }
    }
    let everything = match message.header.address_family {
        netlink_packet_route::AddressFamily::Inet6 => IpAddr::from([0u8; 16]),
        _ => IpAddr::from([0u8; 4]),
    };
    let length = message.header.destination_prefix_length;
    let Ok(destination) = IpNet::new(address.unwrap_or(everything), length) else {
        return Vec::new();
    };
    if table == LOCAL_TABLE {
        return Vec::new();
    }
    let route = |(link, through_gateway)| NodeRoute {
        destination: destination.trunc(),
        link,
        through_gateway,
    };
    single.into_iter().chain(hops).map(route).collect()
}

fn has_gateway(attributes: &[RouteAttribute]) -> bool {
    let names_one =
        |attribute: &RouteAttribute| matches!(attribute, RouteAttribute::Gateway(_) | RouteAttribute::Via(_));
    attributes.iter().any(names_one)
}

/// A socket that becomes readable when links, addresses or routes of the calling thread's network
/// namespace change. Then [take](take_changes) its notifications and [read](network) the network
/// again.
pub fn changes() -> io::Result<OwnedFd> {
    notifications::subscribe(&[
        group::LINK,
        group::IPV4_ADDRESS,
        group::IPV4_ROUTE,
        group::IPV6_ADDRESS,
        group::IPV6_ROUTE,
    ])
}

/// Whether a socket of [`changes`] has notifications that were not [taken](take_changes). If it
/// has none, the network is what it was when it was last read after they were taken.
pub fn has_changes(socket: impl AsFd) -> bool {
    let mut descriptors = [PollFd::new(&socket, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    // Where it cannot be told, there may be some.
    poll(&mut descriptors, Some(&at_once)).map_or(true, |ready| ready > 0)
}

/// Discards the notifications of a socket of [`changes`]: that there were some is all that matters.
pub fn take_changes(socket: impl AsFd) {
    // A datagram is cut off where it does not fit.
    notifications::receive(socket, &mut [0; 64], |_| {});
}
