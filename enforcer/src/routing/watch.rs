//! Notices when somebody removes the addresses, rules or routes that interception needs, and puts
//! them back.
//!
//! A notification of the kernel (`rtnetlink(7)`) is only a reason to check. It also tells when
//! somebody changes sysctls of links, which others check.

use std::io;
use std::os::fd::OwnedFd;

use netlink_packet_core::{NetlinkBuffer, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol};

use crate::audit::{Damage, DamageKind};
use crate::desired::Interception;
use crate::layout::IpFamily;

use super::notifications::{self, DATAGRAM, group};
use super::rtnetlink::{Rtnetlink, RtnetlinkOutcome};
use super::{LOOPBACK, PROTOCOL, RoutingObject, RoutingObjectKind, loopback_up, means_no_ipv6, routing_objects};

/// Watches the addresses, rules and routes of one mode, in the network namespace of the thread that
/// opened it.
#[derive(Debug)]
pub(crate) struct RoutingWatch {
    socket: OwnedFd,
    buffer: Box<[u8]>,
    interception: Interception,
    /// For each object whether it could be made: without IPv6 its half cannot.
    is_made: Vec<bool>,
    /// What was notified and not checked yet.
    heard: Notified,
}

/// What notifications are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Notified {
    /// An address, rule or route that the mode needs, or `lo`.
    routing: bool,
    /// Another route in our routing table.
    replaced_route: bool,
    /// Forwarding or the reverse-path check of some link, or of all.
    sysctls: bool,
}

impl Notified {
    fn add(&mut self, more: Self) {
        self.routing |= more.routing;
        self.replaced_route |= more.replaced_route;
        self.sysctls |= more.sysctls;
    }
}

impl RoutingWatch {
    /// Watches what the mode needs, which was [set up](super::set_up) before. Objects that are
    /// missing by now are made again, and returned.
    pub(crate) fn open(interception: &Interception) -> io::Result<(Self, Vec<Damage>)> {
        let of_mode: &[u32] = match interception {
            Interception::Dnat => &[group::LINK, group::IPV4_ADDRESS, group::IPV6_ADDRESS],
            Interception::Tproxy { .. } => &[
                group::LINK,
                group::IPV4_ROUTE,
                group::IPV4_RULE,
                group::IPV6_ROUTE,
                group::IPV6_RULE,
            ],
            Interception::Off => &[],
        };
        let socket = notifications::subscribe(&[of_mode, &[group::IPV4_NETCONF, group::IPV6_NETCONF]].concat())?;
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
            buffer: vec![0; DATAGRAM].into_boxed_slice(),
            interception: *interception,
            is_made,
            heard: Notified::default(),
        };
        Ok((watch, restored))
    }

    /// Reads what was notified.
    pub(crate) fn hear(&mut self) {
        let Self {
            socket,
            buffer,
            interception,
            heard,
            ..
        } = self;
        let are_lost = notifications::receive(socket, buffer, |datagram| heard.add(concerns(interception, datagram)));
        if are_lost {
            // A check does no harm.
            heard.routing = true;
            heard.sysctls = true;
        }
    }

    /// Whether what was heard may concern the mode.
    pub(crate) fn is_routing_changed(&self) -> bool {
        self.heard.routing
    }

    /// Whether sysctls of links have changed since this was last asked.
    pub(crate) fn take_sysctls_changed(&mut self) -> bool {
        std::mem::take(&mut self.heard.sysctls)
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
        let was_replaced = std::mem::take(&mut self.heard.replaced_route);
        self.heard.routing = false;
        let loopback = || Damage::new(DamageKind::Address, "lo was set down");
        let mut restored = Vec::new();
        let mut kernel = Rtnetlink::open().map_err(|error| (loopback(), error))?;
        if self.interception != Interception::Off && !is_up(&mut kernel).map_err(|error| (loopback(), error))? {
            let up = RouteNetlinkMessage::SetLink(loopback_up());
            kernel.change(up).map_err(|error| (loopback(), error))?;
            restored.push(loopback());
        }
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
}

/// `RTM_NEWNETCONF` and `RTM_DELNETCONF` of `linux/rtnetlink.h`.
const NETCONF: std::ops::RangeInclusive<u16> = 80..=81;

/// What a datagram notifies of.
fn concerns(interception: &Interception, datagram: &[u8]) -> Notified {
    let mut notified = Notified::default();
    let mut rest = datagram;
    while !rest.is_empty() {
        let Ok(header) = NetlinkBuffer::new_checked(rest) else {
            return Notified {
                routing: true,
                ..notified
            };
        };
        let (kind, length) = (header.message_type(), header.length());
        let message = rest;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        rest = rest.get(length.max(1).saturating_add(3) & !3..).unwrap_or_default();
        if NETCONF.contains(&kind) {
            notified.sysctls = true;
            continue;
        }
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) else {
            // A kind of message that is not known here.
            notified.routing = true;
            continue;
        };
        let NetlinkPayload::InnerMessage(message) = message.payload else {
            continue;
        };
        notified.routing |= match message {
            RouteNetlinkMessage::DelAddress(address) => address.header.index == LOOPBACK,
            RouteNetlinkMessage::NewLink(link) => link.header.index == LOOPBACK,
            RouteNetlinkMessage::DelRule(_) => true,
            RouteNetlinkMessage::DelRoute(route) => is_ours(interception, &route),
            RouteNetlinkMessage::NewRoute(route) => {
                let is_foreign = route.header.protocol != RouteProtocol::from(PROTOCOL);
                let replaces = is_foreign && is_ours(interception, &route);
                notified.replaced_route |= replaces;
                replaces
            }
            _ => false,
        };
    }
    notified
}

/// Whether a route is, or was, in the routing table of mode tproxy.
fn is_ours(interception: &Interception, route: &RouteMessage) -> bool {
    let Interception::Tproxy { routing_table, .. } = interception else {
        return false;
    };
    let table = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    table.unwrap_or(u32::from(route.header.table)) == *routing_table
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
