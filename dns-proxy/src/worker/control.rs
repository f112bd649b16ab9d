//! Control messages of datagrams (cmsg(3), ip(7), ipv6(7)): which address a datagram was sent to,
//! and which address a reply leaves from.
//!
//! They are read and written as plain bytes, in the layout of `struct cmsghdr` on Linux: a length
//! (`size_t`), a level and a type (`int`), then the data. Everything is aligned to `size_t`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The size of a buffer for control messages. A datagram carries at most two here, which take less.
pub(super) const BUFFER_SIZE: usize = 128;

const ALIGN: usize = size_of::<usize>();
const HEADER: usize = size_of::<usize>() + 2 * size_of::<i32>();

/// A local address that a datagram was sent to, or is to leave from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LocalAddress {
    pub(super) address: IpAddr,
    /// The index of the interface. It is used for link-local IPv6 addresses only.
    pub(super) interface: u32,
}

/// What the control messages of a received datagram say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PacketInfo {
    /// The address that the datagram was sent to (`IP_PKTINFO`, `IPV6_PKTINFO`).
    pub(super) local: Option<LocalAddress>,
    /// Where a datagram was going before tproxy took it (`IP_ORIGDSTADDR`, `IPV6_ORIGDSTADDR`).
    pub(super) original_destination: Option<SocketAddr>,
}

/// Reads the control messages that the kernel wrote. Unknown and truncated ones are ignored.
pub(super) fn read(mut control: &[u8]) -> PacketInfo {
    let mut received = PacketInfo::default();
    while let Some((length, rest)) = control.split_first_chunk::<ALIGN>() {
        let length = usize::from_ne_bytes(*length);
        let (Some(level), Some(kind), Some(data)) = (int(rest, 0), int(rest, 4), control.get(HEADER..length)) else {
            break;
        };
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => received.local = packet_info_v4(data),
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => received.local = packet_info_v6(data),
            (libc::IPPROTO_IP, libc::IP_ORIGDSTADDR) => received.original_destination = socket_address_v4(data),
            (libc::IPPROTO_IPV6, libc::IPV6_ORIGDSTADDR) => received.original_destination = socket_address_v6(data),
            _ => {}
        }
        control = control.get(length.next_multiple_of(ALIGN)..).unwrap_or_default();
    }
    received
}

/// Adds the control message that makes a datagram leave from `local`.
pub(super) fn leave_from(local: LocalAddress, control: &mut Vec<u8>) {
    match local.address {
        IpAddr::V4(address) => {
            push_header(control, 12, libc::IPPROTO_IP, libc::IP_PKTINFO);
            // struct in_pktinfo: interface 0 leaves the choice to routing, ipi_spec_dst is the
            // source, and ipi_addr is not used.
            control.extend_from_slice(&0u32.to_ne_bytes());
            control.extend_from_slice(&address.octets());
            control.extend_from_slice(&[0; 4]);
        }
        IpAddr::V6(address) => {
            push_header(control, 20, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO);
            // struct in6_pktinfo: a link-local address needs its interface.
            let interface = if address.is_unicast_link_local() {
                local.interface
            } else {
                0
            };
            control.extend_from_slice(&address.octets());
            control.extend_from_slice(&interface.to_ne_bytes());
        }
    }
    control.resize(control.len().next_multiple_of(ALIGN), 0);
}

/// Adds the control message that makes the kernel cut the payload into datagrams of `length` octets
/// (`UDP_SEGMENT`).
pub(super) fn segments_of(length: usize, control: &mut Vec<u8>) {
    push_header(control, size_of::<u16>(), libc::SOL_UDP, libc::UDP_SEGMENT);
    // A datagram has at most 65,535 octets.
    control.extend_from_slice(&(length as u16).to_ne_bytes());
    control.resize(control.len().next_multiple_of(ALIGN), 0);
}

fn push_header(control: &mut Vec<u8>, data: usize, level: i32, kind: i32) {
    control.extend_from_slice(&(HEADER + data).to_ne_bytes());
    control.extend_from_slice(&level.to_ne_bytes());
    control.extend_from_slice(&kind.to_ne_bytes());
}

/// Reads `struct in_pktinfo`, whose `ipi_spec_dst` is the local address that the datagram was sent
/// to.
fn packet_info_v4(data: &[u8]) -> Option<LocalAddress> {
    Some(LocalAddress {
        interface: int(data, 0)?.cast_unsigned(),
        address: octets::<4>(data, 4)?.into(),
    })
}

/// Reads `struct in6_pktinfo`.
fn packet_info_v6(data: &[u8]) -> Option<LocalAddress> {
    Some(LocalAddress {
        address: octets::<16>(data, 0)?.into(),
        interface: int(data, 16)?.cast_unsigned(),
    })
}

/// Reads `struct sockaddr_in`: family, port, address.
fn socket_address_v4(data: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(octets(data, 2)?);
    Some(SocketAddr::from((Ipv4Addr::from(octets::<4>(data, 4)?), port)))
}

/// Reads `struct sockaddr_in6`: family, port, flow, address, scope.
fn socket_address_v6(data: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(octets(data, 2)?);
    Some(SocketAddr::from((Ipv6Addr::from(octets::<16>(data, 8)?), port)))
}

fn int(data: &[u8], at: usize) -> Option<i32> {
    octets(data, at).map(i32::from_ne_bytes)
}

fn octets<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_for_the_kernel_is_what_is_read_from_it() {
        for (address, interface, back) in [("10.1.2.3", 7, 0), ("2001:db8::1", 7, 0), ("fe80::1", 7, 7)] {
            let address = address.parse().unwrap();
            let mut control = Vec::new();
            leave_from(LocalAddress { address, interface }, &mut control);
            let local = Some(LocalAddress {
                address,
                interface: back,
            });
            assert_eq!(read(&control).local, local);
        }
    }

    proptest! {
        #[test]
        fn no_control_message_makes_it_panic(control in proptest::collection::vec(any::<u8>(), 0..BUFFER_SIZE)) {
            read(&control);
        }

        #[test]
        fn no_length_makes_it_panic(length in any::<usize>(), data in any::<[u8; 40]>()) {
            read(&[&length.to_ne_bytes()[..], &data].concat());
        }
    }
}
