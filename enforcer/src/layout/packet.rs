//! The elements that decide about a packet, as the rules of a program look them up.

use std::net::IpAddr;

use policy::classifier::{SetClass, SetLayout};
use policy::{ProgramId, Protocol};

use super::{Element, ElementKey, IpFamily, SetId, SetKind, kinds, range_sets};

/// The elements of one class, one of which holds a packet if the class does. `address` is the other
/// end's; `traffic` is the receiver's port or the type of an ICMP message, and `None` for a
/// protocol that is not told apart.
pub fn elements_of_packet(
    tiers: ProgramId,
    layout: &SetLayout,
    class: SetClass,
    address: IpAddr,
    traffic: Option<(Protocol, u16)>,
) -> impl Iterator<Item = Element> {
    let family = IpFamily::of(address);
    let element = move |kind, port| {
        let set = SetId {
            program: tiers,
            class,
            kind,
            family,
        };
        let key = ElementKey { address, port };
        Element { set, key }
    };
    let of_kind = move |kind| match kind {
        SetKind::Exact => traffic
            .filter(|(protocol, _)| protocol.has_ports())
            .map(|port| element(kind, Some(port))),
        SetKind::Range(number) => {
            let (protocol, port) = traffic?;
            let is_in_range = range_sets(layout, family).any(|(other, range)| {
                other == number && range.protocol == protocol && (range.first..=range.last).contains(&port)
            });
            is_in_range.then(|| element(kind, None))
        }
        SetKind::All => Some(element(kind, None)),
    };
    kinds(layout, family).filter_map(of_kind)
}
