//! Reads the first bytes of an IP packet. Pure.
//!
//! Workloads choose these bytes, and they may be cut off anywhere. What cannot be read is left out,
//! and every length is checked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::netlink::message::field;

use super::PacketDetail;

/// A packet's addresses, protocol and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PacketHeaders {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: u8,
    pub(super) detail: PacketDetail,
}

/// Reads a packet of either family; `None` when its addresses cannot be read.
pub(super) fn read(bytes: &[u8]) -> Option<PacketHeaders> {
    match bytes.first()? >> 4 {
        4 => read_v4(bytes),
        6 => read_v6(bytes),
        _ => None,
    }
}

/// RFC 791 §3.1.
fn read_v4(bytes: &[u8]) -> Option<PacketHeaders> {
    const SHORTEST: usize = 20;
    let header = usize::from(bytes.first()? & 0xf) * 4;
    if header < SHORTEST {
        return None;
    }
    let fragment = u16::from_be_bytes(field(bytes, 6)?) & 0x1fff;
    let protocol = *bytes.get(9)?;
    // Only the first fragment has the ports.
    let payload = bytes.get(header..).filter(|_| fragment == 0).unwrap_or_default();
    Some(PacketHeaders {
        source: Ipv4Addr::from(field::<4>(bytes, 12)?).into(),
        destination: Ipv4Addr::from(field::<4>(bytes, 16)?).into(),
        protocol,
        detail: detail(protocol, payload),
    })
}

/// RFC 8200 §3 and §4.
fn read_v6(bytes: &[u8]) -> Option<PacketHeaders> {
    const HEADER: usize = 40;
    let first = *bytes.get(6)?;
    let source = Ipv6Addr::from(field::<16>(bytes, 8)?).into();
    let destination = Ipv6Addr::from(field::<16>(bytes, 24)?).into();
    let (protocol, payload) = past_extensions(first, bytes.get(HEADER..).unwrap_or_default());
    Some(PacketHeaders {
        source,
        destination,
        protocol,
        detail: detail(protocol, payload),
    })
}

/// The protocol after the extension headers, and its bytes; no bytes where they were cut off or are
/// in another fragment.
fn past_extensions(first: u8, bytes: &[u8]) -> (u8, &[u8]) {
    // IANA "IPv6 Extension Header Types"; ESP (50) hides what follows.
    const OPTIONS: [u8; 6] = [0, 43, 60, 135, 139, 140];
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;

    let (mut protocol, mut rest) = (first, bytes);
    // Each turn takes at least 8 bytes away.
    loop {
        let length = |unit: usize, more: usize| rest.get(1).map(|length| (usize::from(*length) + more) * unit);
        let taken = match protocol {
            FRAGMENT => Some(8),
            // RFC 4302 §2.2: in units of 4 bytes, less two.
            AUTHENTICATION => length(4, 2),
            options if OPTIONS.contains(&options) => length(8, 1),
            _ => return (protocol, rest),
        };
        let Some(header) = taken.and_then(|taken| rest.get(..taken)) else {
            return (protocol, &[]);
        };
        let later = protocol == FRAGMENT && field(header, 2).is_none_or(|offset| u16::from_be_bytes(offset) >> 3 != 0);
        let Some(next) = header.first() else {
            return (protocol, &[]);
        };
        rest = if later {
            &[]
        } else {
            rest.get(header.len()..).unwrap_or_default()
        };
        protocol = *next;
    }
}

fn detail(protocol: u8, payload: &[u8]) -> PacketDetail {
    let read = || match protocol {
        // TCP, UDP, DCCP, SCTP, UDP-Lite: source port, destination port.
        6 | 17 | 33 | 132 | 136 => Some(PacketDetail::Port(u16::from_be_bytes(field(payload, 2)?))),
        // ICMP, ICMPv6.
        1 | 58 => field(payload, 0).map(|[kind, code]| PacketDetail::Icmp { kind, code }),
        _ => None,
    };
    read().unwrap_or(PacketDetail::Unknown)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v4(protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x46, 0, 0, 0, 0, 0];
        bytes.extend(fragment.to_be_bytes());
        bytes.extend([64, protocol, 0, 0, 10, 0, 0, 2, 192, 0, 2, 1]);
        // Options, since the header says that it has six words.
        bytes.extend([1, 1, 1, 0]);
        bytes.extend(payload);
        bytes
    }

    fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x60, 0, 0, 0, 0, 0, next, 64];
        bytes.extend("2001:db8::2".parse::<Ipv6Addr>().unwrap().octets());
        bytes.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        bytes.extend(payload);
        bytes
    }

    fn told(bytes: &[u8]) -> (u8, PacketDetail) {
        let packet = read(bytes).unwrap();
        (packet.protocol, packet.detail)
    }

    /// Ports 4660 and 443.
    const PORTS: [u8; 4] = [0x12, 0x34, 0x01, 0xbb];

    #[test]
    fn the_port_stands_after_the_options() {
        let packet = read(&v4(6, 0, &PORTS)).unwrap();
        assert_eq!(
            packet,
            PacketHeaders {
                source: "10.0.0.2".parse().unwrap(),
                destination: "192.0.2.1".parse().unwrap(),
                protocol: 6,
                detail: PacketDetail::Port(443),
            }
        );
        for protocol in [17, 33, 132, 136] {
            assert_eq!(told(&v4(protocol, 0, &PORTS)), (protocol, PacketDetail::Port(443)));
        }
    }

    #[test]
    fn icmp_has_a_type_and_a_code() {
        assert_eq!(told(&v4(1, 0, &[3, 4])), (1, PacketDetail::Icmp { kind: 3, code: 4 }));
        assert_eq!(
            told(&v6(58, &[128, 0])),
            (58, PacketDetail::Icmp { kind: 128, code: 0 })
        );
        assert_eq!(told(&v4(47, 0, &PORTS)), (47, PacketDetail::Unknown));
    }

    #[test]
    fn only_a_first_fragment_has_a_port() {
        const MORE: u16 = 0x2000;
        assert_eq!(told(&v4(17, MORE, &PORTS)), (17, PacketDetail::Port(443)));
        assert_eq!(told(&v4(17, MORE | 185, &PORTS)), (17, PacketDetail::Unknown));
        let fragment = |offset: u16| {
            let mut header = vec![17, 0];
            header.extend((offset << 3 | 1).to_be_bytes());
            header.extend([0, 0, 0, 9]);
            header.extend(PORTS);
            v6(44, &header)
        };
        assert_eq!(told(&fragment(0)), (17, PacketDetail::Port(443)));
        assert_eq!(told(&fragment(1)), (17, PacketDetail::Unknown));
    }

    #[test]
    fn extension_headers_are_passed_over() {
        let mut payload = vec![43, 0, 1, 4, 0, 0, 0, 0]; // hop-by-hop, then routing
        payload.extend([51, 1]); // of two units, then authentication
        payload.extend([0; 14]);
        payload.extend([6, 1, 0, 0]); // of three words, then TCP
        payload.extend([0; 8]);
        payload.extend(PORTS);
        assert_eq!(told(&v6(0, &payload)), (6, PacketDetail::Port(443)));
        for cut in 0..payload.len() {
            let (_, detail) = told(&v6(0, &payload[..cut]));
            assert_eq!(detail, PacketDetail::Unknown, "cut off after {cut} bytes");
        }
    }

    #[test]
    fn addresses_that_are_cut_off_make_no_packet() {
        let (v4, v6) = (v4(6, 0, &PORTS), v6(6, &PORTS));
        for cut in 0..20 {
            assert_eq!(read(&v4[..cut]), None);
        }
        for cut in 0..40 {
            assert_eq!(read(&v6[..cut]), None);
        }
        assert_eq!(told(&v4[..20]), (6, PacketDetail::Unknown));
        // A header that says it is shorter than any is, and another version.
        assert_eq!(read(&[0x44; 64]), None);
        assert_eq!(read(&[0x50; 64]), None);
    }

    proptest! {
        #[test]
        fn hostile_packets_never_panic(
            version in prop_oneof![Just(0x40u8), Just(0x60)],
            mut bytes in proptest::collection::vec(any::<u8>(), 1..160),
        ) {
            bytes[0] = version | bytes[0] & 0xf;
            let _ = read(&bytes);
        }

        #[test]
        fn chains_of_extension_headers_end(headers in proptest::collection::vec(
            (prop_oneof![Just(0u8), Just(43), Just(44), Just(51), Just(60)], 0u8..3, any::<[u8; 6]>()),
            0..16,
        )) {
            let bytes: Vec<u8> = headers
                .into_iter()
                .flat_map(|(next, length, rest)| [vec![next, length], rest.to_vec()].concat())
                .collect();
            let _ = read(&v6(0, &bytes));
        }
    }
}
