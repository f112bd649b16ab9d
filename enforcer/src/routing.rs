//! What the interception modes need outside nftables.
//!
//! - dnat: [`LISTEN_V4`] and [`LISTEN_V6`] on `lo`.
//! - connections that are handed over: [`HANDOVER_V4`] and [`HANDOVER_V6`] on `lo`, and for answers
//!   the same as tproxy.
//! - tproxy: a rule that sends marked packets to a routing table of their own, which delivers
//!   everything locally.
//!
//! All functions work in the network namespace of the calling thread, block for a few round trips
//! to the kernel, and are idempotent. On a node without IPv6 only the IPv4 half is made.
//!
//! Rules and routes carry [`PROTOCOL`], so that [`take_down_all`] finds them with any mark and
//! table.

mod network;
mod notifications;
mod rtnetlink;
mod watch;

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
pub use network::{changes, has_changes, network, take_changes};
use rtnetlink::{Rtnetlink, RtnetlinkOutcome};
use tracing::warn;
pub(crate) use watch::RoutingWatch;

use crate::desired::{Handover, Interception};
use crate::layout::IpFamily;

/// The proxy's own addresses in mode dnat, put on `lo`.
pub const LISTEN_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 53, 53);
/// The IPv6 counterpart: a unique local address (RFC 4193) with a random global id.
pub const LISTEN_V6: Ipv6Addr = Ipv6Addr::new(0xfd6e, 0x6de7, 0x53a4, 0, 0, 0, 0, 0x53);

/// The addresses at which connections are handed over, put on `lo`. They are others than those of
/// lookups, whose replies have a conntrack zone of their own.
pub const HANDOVER_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 53, 54);
/// The IPv6 counterpart.
pub const HANDOVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd6e, 0x6de7, 0x53a4, 0, 0, 0, 0, 0x54);

/// The routing protocol of our rules and routes (`rtnetlink(7)`); `ip rule` shows it as `proto 78`.
/// Nobody else is known to use this number.
pub const PROTOCOL: u8 = 78;

/// The priority of the rule that delivers marked packets.
const DELIVER_PRIORITY: u32 = 100;
/// The priority of the rule before it, which keeps reverse-path checks of marked packets
/// (`src_valid_mark=1`) away from that table: there the packets would look as if they came from
/// `lo`.
const GUARD_PRIORITY: u32 = 99;
/// The priority of the rule of the main table, to which the guard rule jumps.
const MAIN_PRIORITY: u32 = 32766;
/// The index of `lo` in every network namespace.
const LOOPBACK: u32 = 1;

/// Makes the addresses, rules and routes that the mode needs.
pub fn set_up(interception: &Interception) -> io::Result<()> {
    let mut kernel = Rtnetlink::open()?;
    if *interception == Interception::Dnat {
        kernel.change(RouteNetlinkMessage::SetLink(loopback_up()))?;
    }
    for object in routing_objects(interception) {
        match kernel.create(object.creation()) {
            Ok(_) => {}
            Err(error) if object.family == IpFamily::V6 && means_no_ipv6(&error) => {
                warn!(%error, "IPv6 is off here; lookups over IPv6 are not intercepted");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Makes the addresses of the listeners, and the rules and routes by which answers come to who
/// looks into connections.
pub fn set_up_handover(handover: &Handover) -> io::Result<()> {
    let mut kernel = Rtnetlink::open()?;
    kernel.change(RouteNetlinkMessage::SetLink(loopback_up()))?;
    let is_listening = |object: &RoutingObject| handover.listener(object.family).is_some();
    let addresses = handover_addresses().into_iter().filter(is_listening);
    let delivery = delivery(handover.reply_mark, handover.routing_table);
    for object in addresses.chain(delivery) {
        match kernel.create(object.creation()) {
            Ok(_) => {}
            Err(error) if object.family == IpFamily::V6 && means_no_ipv6(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Removes what [`set_up`] made for this mode. What is already gone is no error; what cannot be
/// removed is logged.
pub fn take_down(interception: &Interception) {
    let routing_objects = routing_objects(interception);
    report(Rtnetlink::open().and_then(|mut kernel| remove(&mut kernel, routing_objects)));
}

/// Removes what [`set_up_handover`] made. What is already gone is no error; what cannot be removed
/// is logged.
pub fn take_down_handover(reply_mark: NonZeroU32, routing_table: u32) {
    report(Rtnetlink::open().and_then(|mut kernel| {
        remove(&mut kernel, handover_addresses())?;
        remove(&mut kernel, delivery(reply_mark, routing_table))
    }));
}

/// Removes everything that any mode has made, with any mark and table.
pub fn take_down_all() {
    report(Rtnetlink::open().and_then(|mut kernel| {
        let tproxy = leftovers(&mut kernel)?;
        remove(&mut kernel, routing_objects(&Interception::Dnat))?;
        remove(&mut kernel, handover_addresses())?;
        remove(&mut kernel, tproxy)
    }));
}

/// The addresses of this network namespace's interfaces, sorted.
pub fn own_addresses() -> io::Result<Vec<IpAddr>> {
    let addresses = own_addresses_of(&mut Rtnetlink::open()?)?;
    Ok(addresses.into_iter().collect())
}

fn own_addresses_of(kernel: &mut Rtnetlink) -> io::Result<BTreeSet<IpAddr>> {
    let mut addresses = BTreeSet::new();
    for message in kernel.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))? {
        if let RouteNetlinkMessage::NewAddress(message) = message {
            // On a point-to-point link ADDRESS is the peer's, and LOCAL ours.
            let local = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(address) => Some(*address),
                _ => None,
            });
            let address = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            });
            addresses.extend(local.or(address));
        }
    }
    Ok(addresses)
}

/// An address, rule or route that a mode needs.
struct RoutingObject {
    family: IpFamily,
    kind: RoutingObjectKind,
}

enum RoutingObjectKind {
    Address(AddressMessage),
    Rule(RuleMessage),
    Route(RouteMessage),
}

impl RoutingObject {
    fn creation(&self) -> RouteNetlinkMessage {
        match &self.kind {
            RoutingObjectKind::Address(address) => RouteNetlinkMessage::NewAddress(address.clone()),
            RoutingObjectKind::Rule(rule) => RouteNetlinkMessage::NewRule(rule.clone()),
            RoutingObjectKind::Route(route) => RouteNetlinkMessage::NewRoute(route.clone()),
        }
    }

    fn removal(self) -> RouteNetlinkMessage {
        match self.kind {
            RoutingObjectKind::Address(address) => RouteNetlinkMessage::DelAddress(address),
            RoutingObjectKind::Rule(rule) => RouteNetlinkMessage::DelRule(rule),
            RoutingObjectKind::Route(route) => RouteNetlinkMessage::DelRoute(route),
        }
    }
}

fn routing_objects(interception: &Interception) -> Vec<RoutingObject> {
    match *interception {
        Interception::Off => Vec::new(),
        Interception::Dnat => on_loopback_of([LISTEN_V4.into(), LISTEN_V6.into()]),
        Interception::Tproxy {
            mark, routing_table, ..
        } => delivery(mark, routing_table),
    }
}

fn handover_addresses() -> Vec<RoutingObject> {
    on_loopback_of([HANDOVER_V4.into(), HANDOVER_V6.into()])
}

fn on_loopback_of(addresses: [IpAddr; 2]) -> Vec<RoutingObject> {
    let objects = addresses.map(|address| RoutingObject {
        family: IpFamily::of(address),
        kind: RoutingObjectKind::Address(on_loopback(address)),
    });
    objects.into()
}

/// Delivers packets with a mark here, whatever their destination.
fn delivery(mark: NonZeroU32, routing_table: u32) -> Vec<RoutingObject> {
    let of_families = IpFamily::BOTH.into_iter().flat_map(|family| {
        // The guard stands before the rule that it guards against.
        [
            RoutingObjectKind::Rule(guard_rule(family, mark.get())),
            RoutingObjectKind::Route(local_route(family, routing_table)),
            RoutingObjectKind::Rule(delivery_rule(family, mark.get(), routing_table)),
        ]
        .map(|kind| RoutingObject { family, kind })
    });
    of_families.collect()
}

/// Rules that carry our protocol, and the routes of the tables that they name.
fn leftovers(kernel: &mut Rtnetlink) -> io::Result<Vec<RoutingObject>> {
    let mut routing_objects = Vec::new();
    for family in IpFamily::BOTH {
        let mut request = RuleMessage::default();
        request.header.family = address_family(family);
        let rules = match kernel.dump(RouteNetlinkMessage::GetRule(request)) {
            Ok(rules) => rules,
            Err(error) if family == IpFamily::V6 && means_no_ipv6(&error) => continue,
            Err(error) => return Err(error),
        };
        for message in rules {
            let RouteNetlinkMessage::NewRule(mut rule) = message else {
                continue;
            };
            // A kernel without IPv6 answers for every family that it knows.
            if rule.header.family != address_family(family)
                || !rule.attributes.contains(&RuleAttribute::Protocol(PROTOCOL.into()))
            {
                continue;
            }
            let table = rule.attributes.iter().find_map(|attribute| match attribute {
                RuleAttribute::Table(table) => Some(*table),
                _ => None,
            });
            if let Some(table) = table.filter(|table| *table != 0) {
                let kind = RoutingObjectKind::Route(local_route(family, table));
                routing_objects.push(RoutingObject { family, kind });
            }
            // The flags that the kernel lists are no part of what identifies a rule.
            rule.header.flags = RuleFlags::empty();
            routing_objects.push(RoutingObject {
                family,
                kind: RoutingObjectKind::Rule(rule),
            });
        }
    }
    Ok(routing_objects)
}

/// Removes as many objects as possible, and returns the first error.
fn remove(kernel: &mut Rtnetlink, routing_objects: Vec<RoutingObject>) -> io::Result<()> {
    let mut result = Ok(());
    for object in routing_objects {
        let family = object.family;
        match kernel.delete(object.removal()) {
            Ok(RtnetlinkOutcome::Done | RtnetlinkOutcome::AlreadySo) => {}
            Err(error) if family == IpFamily::V6 && means_no_ipv6(&error) => {}
            Err(error) => result = result.and(Err(error)),
        }
    }
    result
}

fn report(result: io::Result<()>) {
    if let Err(error) = result {
        warn!(%error, "addresses or routes of the interception could not be removed; see `ip rule` and `ip addr show lo`");
    }
}

fn loopback_up() -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = LOOPBACK;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message
}

fn on_loopback(address: IpAddr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = address_family(IpFamily::of(address));
    message.header.prefix_len = if address.is_ipv4() { 32 } else { 128 };
    // Without duplicate address detection: the proxy binds at once, and a tentative IPv6 address
    // cannot be bound.
    message.header.flags = AddressHeaderFlags::Nodad;
    // Never chosen as the source of packets that leave the node.
    message.header.scope = AddressScope::Host;
    message.header.index = LOOPBACK;
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    message
}

/// `ip rule add pref 99 iif lo fwmark M/M goto 32766`
fn guard_rule(family: IpFamily, mark: u32) -> RuleMessage {
    let mut message = marked(family, mark);
    message.header.action = RuleAction::Goto;
    message.attributes.extend([
        RuleAttribute::Priority(GUARD_PRIORITY),
        RuleAttribute::Iifname("lo".to_owned()),
        RuleAttribute::Goto(MAIN_PRIORITY),
    ]);
    message
}

/// `ip rule add pref 100 fwmark M/M lookup T`
fn delivery_rule(family: IpFamily, mark: u32, table: u32) -> RuleMessage {
    let mut message = marked(family, mark);
    message.header.action = RuleAction::ToTable;
    message.attributes.extend([
        RuleAttribute::Priority(DELIVER_PRIORITY),
        // The header has one octet for the table; the attribute serves every number.
        RuleAttribute::Table(table),
    ]);
    message
}

fn marked(family: IpFamily, mark: u32) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = address_family(family);
    message.attributes = vec![
        RuleAttribute::FwMark(mark),
        RuleAttribute::FwMask(mark),
        RuleAttribute::Protocol(PROTOCOL.into()),
    ];
    message
}

/// `ip route add local default dev lo table T`
fn local_route(family: IpFamily, table: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = address_family(family);
    message.header.kind = RouteType::Local;
    message.header.scope = RouteScope::Host;
    message.header.protocol = RouteProtocol::from(PROTOCOL);
    message.attributes = vec![RouteAttribute::Table(table), RouteAttribute::Oif(LOOPBACK)];
    message
}

fn address_family(family: IpFamily) -> AddressFamily {
    match family {
        IpFamily::V4 => AddressFamily::Inet,
        IpFamily::V6 => AddressFamily::Inet6,
    }
}

/// The kernel has no IPv6 (`ipv6.disable=1`), or not on `lo` (`disable_ipv6=1`).
fn means_no_ipv6(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP | libc::EACCES | libc::ENODEV)
    )
}
