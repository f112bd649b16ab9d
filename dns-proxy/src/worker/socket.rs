//! Sockets to listen on, and their options.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;

use rustix::net::sockopt::{set_socket_recv_buffer_size_force, set_socket_send_buffer_size_force};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::sys;

/// A listener's queue in the kernel: a burst of 20,000 lookups, which the kernel counts with some
/// 800 octets each.
const RECEIVE_BUFFER: usize = 16 << 20;

/// What may wait to leave on a slow link.
const SEND_BUFFER: usize = 4 << 20;

/// A UDP socket to listen on, with what tells whom each datagram was sent to.
pub(super) fn bind(address: SocketAddr, transparent: bool) -> io::Result<Socket> {
    let socket = new(address, Type::DGRAM, Protocol::UDP)?;
    // Two agents overlap in an upgrade. Not SO_REUSEADDR, which for UDP would let any user's
    // process take our lookups.
    socket.set_reuse_port(true)?;
    // A burst of answers must not wait for the one before to leave.
    let _ = set_socket_send_buffer_size_force(&socket, SEND_BUFFER);
    // Past net.core.rmem_max (by default 208 KiB, some 200 lookups) with CAP_NET_ADMIN, up to it
    // without. Less than asked is no reason not to start.
    let _ = set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)
        .map_err(io::Error::from)
        .or_else(|_| socket.set_recv_buffer_size(RECEIVE_BUFFER));
    if transparent {
        make_transparent(&socket, address)?;
        sys::report_original_destination(socket.as_fd(), address)?;
    } else if address.ip().is_unspecified() {
        sys::report_local_address(socket.as_fd(), address)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// A socket of the address's family, for that family only, so that `0.0.0.0` and `[::]` can stand
/// side by side.
pub(crate) fn new(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind.nonblocking(), Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// Lets the socket have addresses that are not this host's (`IP_TRANSPARENT`; needs
/// `CAP_NET_ADMIN`).
pub(crate) fn make_transparent(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => socket.set_ip_transparent_v4(true),
        SocketAddr::V6(_) => socket.set_ip_transparent_v6(true),
    }
}

/// Makes the kernel give the socket no more datagrams, while it can go on to send: a connected
/// socket takes only what its peer sends, and this peer (the discard port of the loopback) never
/// sends.
pub(super) fn take_no_more(socket: &impl AsFd, address: SocketAddr) -> io::Result<()> {
    const DISCARD: u16 = 9;
    let nobody: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::LOCALHOST, DISCARD).into(),
        SocketAddr::V6(_) => (Ipv6Addr::LOCALHOST, DISCARD).into(),
    };
    SockRef::from(socket).connect(&nobody.into())
}
