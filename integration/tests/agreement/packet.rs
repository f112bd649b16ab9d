//! Packets that can be told from each other: what follows the IP header of each holds a number of
//! its own.

use std::net::IpAddr;

use oracle::{Probe, Protocol, Traffic};

/// A packet's number. It is the source port where there are ports.
pub(crate) type Token = u16;

/// For experiments (RFC 3692 §2.1); no policy can name it.
const OTHER: u8 = 253;

/// The protocol number of a probe.
pub(crate) fn protocol(probe: &Probe) -> u8 {
    match probe.traffic {
        Traffic::Port(Protocol::Tcp, _) => 6,
        Traffic::Port(Protocol::Udp, _) => 17,
        Traffic::Port(Protocol::Sctp, _) => 132,
        Traffic::Icmp(_) if probe.to.is_ipv4() => 1,
        Traffic::Icmp(_) => 58,
        Traffic::Other => OTHER,
    }
}

/// Every number that [`protocol`] gives in a family.
pub(crate) fn protocols(v4: bool) -> [u8; 5] {
    [6, 17, 132, if v4 { 1 } else { 58 }, OTHER]
}

/// What follows the IP header. Checksums are left out: nobody on the way looks at them.
pub(crate) fn payload(probe: &Probe, token: Token) -> Vec<u8> {
    let token = token.to_be_bytes();
    let ports = |port: u16| [token, port.to_be_bytes()].concat();
    match probe.traffic {
        // A SYN without options.
        Traffic::Port(Protocol::Tcp, port) => [
            &ports(port)[..],
            &[0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, 2, 255, 255, 0, 0, 0, 0],
        ]
        .concat(),
        Traffic::Port(Protocol::Udp, port) => [&ports(port)[..], &[0, 8, 0, 0]].concat(),
        // An INIT chunk.
        Traffic::Port(Protocol::Sctp, port) => {
            let chunk = [1, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1];
            [&ports(port)[..], &[0; 8], &chunk].concat()
        }
        Traffic::Icmp(kind) => {
            let head = [kind, 0];
            let checksum = if probe.to.is_ipv4() {
                checksum(&[&head[..], &[0, 0], &token, &[0, 1]].concat())
            } else {
                [0, 0]
            };
            [&head[..], &checksum, &token, &[0, 1]].concat()
        }
        Traffic::Other => [&token[..], &[0; 6]].concat(),
    }
}

/// A whole packet from any address. Its header's checksum is left to the kernel.
pub(crate) fn packet(source: IpAddr, probe: &Probe, token: Token) -> Vec<u8> {
    const HOPS: u8 = 64;
    let payload = payload(probe, token);
    let length = |header: usize| u16::try_from(header + payload.len()).unwrap_or_default().to_be_bytes();
    let protocol = protocol(probe);
    let header = match (source, probe.to) {
        (IpAddr::V4(source), IpAddr::V4(to)) => [
            &[0x45, 0][..],
            &length(20),
            &[0, 0, 0, 0, HOPS, protocol, 0, 0],
            &source.octets(),
            &to.octets(),
        ]
        .concat(),
        (IpAddr::V6(source), IpAddr::V6(to)) => [
            &[0x60, 0, 0, 0][..],
            &length(0),
            &[protocol, HOPS],
            &source.octets(),
            &to.octets(),
        ]
        .concat(),
        _ => panic!("{probe}: both ends are of one family"),
    };
    [header, payload].concat()
}

/// The number of a packet, as it is found after an IP header.
pub(crate) fn token(protocol: u8, payload: &[u8]) -> Option<Token> {
    let at = match protocol {
        1 | 58 => 4,
        6 | 17 | 132 | OTHER => 0,
        _ => return None,
    };
    let bytes = payload.get(at..at + 2)?;
    Some(Token::from_be_bytes([bytes[0], bytes[1]]))
}

/// The parts of a whole packet: destination, protocol, and what follows the header.
pub(crate) fn parse(packet: &[u8]) -> Option<(IpAddr, u8, &[u8])> {
    match packet.first()? >> 4 {
        4 => {
            let to: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
            let length = usize::from(packet[0] & 15) * 4;
            Some((to.into(), packet[9], packet.get(length..)?))
        }
        6 => {
            let to: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
            Some((to.into(), packet[6], packet.get(40..)?))
        }
        _ => None,
    }
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    (!(sum as u16)).to_be_bytes()
}
