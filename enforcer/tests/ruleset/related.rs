//! What pods say of flows, and as routers.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use crate::lab::{Namespace, POD_V4, ip};
use crate::strangers::{lab, link_local, patience, send_from, wait_refused};

#[test]
fn an_error_passes_from_an_end_of_its_flow_alone() {
    let Some(lab) = lab() else { return };
    let outside: SocketAddr = "10.77.0.2:6000".parse().unwrap();
    let neighbour: SocketAddr = "10.66.1.2:5000".parse().unwrap();
    let _listener = lab.outside.enter(|| UdpSocket::bind(outside).unwrap());
    send_from(&lab.other, neighbour, outside, b"a flow");
    // The pod speaks of its neighbour's flow.
    lab.pod.enter(|| {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap();
        let error = unreachable(neighbour, outside);
        socket
            .send_to(&error, &SocketAddr::new(neighbour.ip(), 0).into())
            .unwrap();
    });
    wait_refused(&lab, 1, "an error about somebody else's flow");

    // It speaks of its own: somebody asks where nobody listens.
    let asking = lab.outside.enter(|| {
        let socket = UdpSocket::bind("10.77.0.2:0").unwrap();
        socket.set_read_timeout(Some(patience())).unwrap();
        socket.connect((ip(POD_V4), 9)).unwrap();
        socket.send(b"?").unwrap();
        socket
    });
    let told = asking.recv(&mut [0; 8]).unwrap_err();
    assert_eq!(told.kind(), ErrorKind::ConnectionRefused, "{told}");
    assert_eq!(lab.refused(), 1);
}

#[test]
fn a_governed_pod_is_nobodys_router() {
    let Some(lab) = lab() else { return };
    const ADVERTISEMENT: u8 = 134;
    const REDIRECT: u8 = 137;
    const LISTENER_QUERY: u8 = 130;
    for (packets, kind) in (1..).zip([ADVERTISEMENT, REDIRECT, LISTENER_QUERY]) {
        say_to_link(&lab.other, kind);
        say_to_link(&lab.pod, kind);
        wait_refused(&lab, packets, &format!("ICMPv6 {kind}"));
        assert_eq!(lab.refused(), packets, "whoever is not governed may");
    }
}

/// Sends an ICMPv6 message from the link-local address to all nodes, as a router does.
fn say_to_link(from: &Namespace, kind: u8) {
    let link = link_local(from, "eth0");
    from.enter(|| {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).unwrap();
        socket.set_multicast_hops_v6(255).unwrap();
        socket.bind(&link.into()).unwrap();
        let mut message = [0; 40];
        message[0] = kind;
        let all_nodes = SocketAddrV6::new("ff02::1".parse().unwrap(), 0, 0, link.scope_id());
        socket.send_to(&message, &all_nodes.into()).unwrap();
    });
}

/// "Port unreachable", about a UDP packet from `from` to `to` (RFC 792).
fn unreachable(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let octets = |address: SocketAddr| match address.ip() {
        IpAddr::V4(v4) => v4,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    };
    let mut quoted = vec![0x45, 0, 0, 34, 0, 0, 0, 0, 64, 17, 0, 0];
    quoted.extend(octets(from).octets());
    quoted.extend(octets(to).octets());
    let sum = checksum(&quoted).to_be_bytes();
    quoted[10..12].copy_from_slice(&sum);
    quoted.extend(from.port().to_be_bytes());
    quoted.extend(to.port().to_be_bytes());
    quoted.extend([0, 14, 0, 0]);
    let mut message = vec![3, 3, 0, 0, 0, 0, 0, 0];
    message.extend(quoted);
    let sum = checksum(&message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    message
}

/// RFC 1071, of an even number of octets.
fn checksum(octets: &[u8]) -> u16 {
    let words = octets
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum = words.sum::<u32>();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}
