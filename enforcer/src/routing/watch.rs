//! Notices when somebody removes the addresses, rules or routes that interception needs, and puts
//! them back.
//!
//! A notification of the kernel (`rtnetlink(7)`) is only a reason to check.

use std::io;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use crate::audit::{Damage, DamageKind};
use crate::desired::Interception;
use crate::layout::IpFamily;

use super::rtnetlink::{Rtnetlink, RtnetlinkOutcome};
use super::{LOOPBACK, PROTOCOL, RoutingObject, RoutingObjectKind, loopback_up, means_no_ipv6, routing_objects};

/// `RTNLGRP_*` of `linux/rtnetlink.h`.
const LINK: u32 = 1;
const IPV4_ADDRESSES: u32 = 5;
const IPV4_ROUTES: u32 = 7;
const IPV4_RULES: u32 = 8;
const IPV6_ADDRESSES: u32 = 9;
const IPV6_ROUTES: u32 = 11;
const IPV6_RULES: u32 = 19;

/// The length of the longest datagram of notifications.
const DATAGRAM: usize = 32 * 1024;

/// Watches the addresses, rules and routes of one mode, in the network namespace of the thread that
/// opened it.
#[derive(Debug)]
pub(crate) struct RoutingWatch {
    socket: Socket,
    buffer: Vec<u8>,
    interception: Interception,
    /// For each object whether it could be made: without IPv6 its half cannot.
    is_made: Vec<bool>,
    /// Whether somebody has put another route into our routing table.
    route_was_replaced: bool,
}

impl RoutingWatch {
    /// Watches what the mode needs, which was [set up](super::set_up) before. Objects that are
    /// missing by now are made again, and returned.
    pub(crate) fn open(interception: &Interception) -> io::Result<(Self, Vec<Damage>)> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        let groups: &[u32] = match interception {
            Interception::Dnat => &[LINK, IPV4_ADDRESSES, IPV6_ADDRESSES],
            Interception::Tproxy { .. } => &[LINK, IPV4_ROUTES, IPV4_RULES, IPV6_ROUTES, IPV6_RULES],
            Interception::Off => &[],
        };
        for group in groups {
            socket.add_membership(*group)?;
        }
        let mut kernel = Rtnetlink::open()?;
        let (mut is_made, mut restored) = (Vec::new(), Vec::new());
        for object in routing_objects(interception) {
            is_made.push(match kernel.create(object.creation()) {
                Ok(RtnetlinkOutcome::AlreadySo) => true,
                Ok(RtnetlinkOutcome::Done) => {
                    restored.push(damage(&object, "was removed"));
                    true
                }
                Err(error) if object.family == IpFamily::V6 && means_no_ipv6(&error) => false,
                Err(error) => return Err(error),
            });
        }
        let watch = Self {
            socket,
            buffer: Vec::with_capacity(DATAGRAM),
            interception: *interception,
            is_made,
            route_was_replaced: false,
        };
        Ok((watch, restored))
    }

    /// Whether a notification may concern the mode.
    pub(crate) fn has_news(&mut self) -> bool {
        let mut is_news = false;
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => is_news |= self.read(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return is_news,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Some were lost (ENOBUFS). Whatever else it is, a check does no harm.
                Err(_) => return true,
            }
        }
    }

    /// Whether the IPv6 half of the mode could be made.
    pub(crate) fn has_ipv6(&self) -> bool {
        let mut objects = routing_objects(&self.interception).into_iter().zip(&self.is_made);
        objects.any(|(object, is_made)| object.family == IpFamily::V6 && *is_made)
    }

    /// What is probably missing.
    pub(crate) fn suspected(&self) -> Vec<Damage> {
        let all = routing_objects(&self.interception);
        all.iter().take(1).map(|object| damage(object, "was removed")).collect()
    }

    /// Puts back what is missing, and returns it. The error says what could not be put back.
    pub(crate) fn restore(&mut self) -> Result<Vec<Damage>, (Damage, io::Error)> {
        let loopback = || Damage::new(DamageKind::Address, "lo was set down");
        let mut restored = Vec::new();
        let mut kernel = Rtnetlink::open().map_err(|error| (loopback(), error))?;
        if self.interception != Interception::Off && !is_up(&mut kernel).map_err(|error| (loopback(), error))? {
            let up = RouteNetlinkMessage::SetLink(loopback_up());
            kernel.change(up).map_err(|error| (loopback(), error))?;
            restored.push(loopback());
        }
        let was_replaced = std::mem::take(&mut self.route_was_replaced);
        for (object, is_made) in routing_objects(&self.interception).iter().zip(&self.is_made) {
            if !is_made {
                continue;
            }
            match kernel.create(object.creation()) {
                Ok(RtnetlinkOutcome::Done) => restored.push(damage(object, "was removed")),
                Ok(RtnetlinkOutcome::AlreadySo)
                    if was_replaced && matches!(object.kind, RoutingObjectKind::Route(_)) =>
                {
                    match kernel.replace(object.creation()) {
                        Ok(()) => restored.push(damage(object, "was replaced")),
                        Err(error) => return Err((damage(object, "was replaced"), error)),
                    }
                }
                Ok(RtnetlinkOutcome::AlreadySo) => {}
                Err(error) => return Err((damage(object, "was removed"), error)),
            }
        }
        Ok(restored)
    }

    /// Whether the datagram notifies of something that concerns us.
    fn read(&mut self) -> bool {
        let mut is_news = false;
        let mut rest = self.buffer.as_slice();
        while !rest.is_empty() {
            let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest) else {
                // A kind of message that is not known here.
                return true;
            };
            let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
            rest = rest.get(length.max(1).saturating_add(3) & !3..).unwrap_or_default();
            let NetlinkPayload::InnerMessage(message) = message.payload else {
                continue;
            };
            is_news |= match message {
                RouteNetlinkMessage::DelAddress(address) => address.header.index == LOOPBACK,
                RouteNetlinkMessage::NewLink(link) => link.header.index == LOOPBACK,
                RouteNetlinkMessage::DelRule(_) => true,
                RouteNetlinkMessage::DelRoute(route) => self.is_ours(&route),
                RouteNetlinkMessage::NewRoute(route) => {
                    let is_replaced = self.is_ours(&route) && route.header.protocol != RouteProtocol::from(PROTOCOL);
                    self.route_was_replaced |= is_replaced;
                    is_replaced
                }
                _ => false,
            };
        }
        is_news
    }

    /// Whether a route is, or was, in the routing table of mode tproxy.
    fn is_ours(&self, route: &RouteMessage) -> bool {
        let Interception::Tproxy { routing_table, .. } = self.interception else {
            return false;
        };
        let table = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Table(table) => Some(*table),
            _ => None,
        });
        table.unwrap_or(u32::from(route.header.table)) == routing_table
    }
}

fn is_up(kernel: &mut Rtnetlink) -> io::Result<bool> {
    let mut request = LinkMessage::default();
    request.header.index = LOOPBACK;
    let links = kernel.get(RouteNetlinkMessage::GetLink(request))?;
    Ok(links
        .iter()
        .any(|link| matches!(link, RouteNetlinkMessage::NewLink(link) if link.header.flags.contains(LinkFlags::Up))))
}

fn damage(object: &RoutingObject, how: &str) -> Damage {
    let family = match object.family {
        IpFamily::V4 => "IPv4",
        IpFamily::V6 => "IPv6",
    };
    match &object.kind {
        RoutingObjectKind::Address(_) => Damage::new(
            DamageKind::Address,
            format!("the {family} address of the proxy on lo {how}"),
        ),
        RoutingObjectKind::Rule(_) => Damage::new(
            DamageKind::Route,
            format!("an {family} routing rule of mode tproxy {how}"),
        ),
        RoutingObjectKind::Route(_) => {
            Damage::new(DamageKind::Route, format!("the {family} route of mode tproxy {how}"))
        }
    }
}
