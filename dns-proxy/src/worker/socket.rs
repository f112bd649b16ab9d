//! Makes sockets to listen on, and sets their options.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;

use rustix::net::sockopt::{set_socket_recv_buffer_size_force, set_socket_send_buffer_size_force};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::sys;

/// The receive buffer of a listener, in octets. It holds a burst of 20,000 lookups, for each of
/// which the kernel accounts some 800 octets.
const RECEIVE_BUFFER: usize = 16 << 20;

/// The send buffer of a listener, in octets, for answers that wait for a slow link.
const SEND_BUFFER: usize = 4 << 20;

/// Binds a UDP socket that reports for each datagram where it was sent to. A transparent one gets
/// datagrams of tproxy.
pub(super) fn bind(address: SocketAddr, transparent: bool) -> io::Result<Socket> {
    let socket = new(address, Type::DGRAM, Protocol::UDP)?;
    // Two agents overlap in an upgrade. SO_REUSEADDR would not do, because for UDP it lets any
    // user's process take our lookups.
    socket.set_reuse_port(true)?;
    // Less than asked is no reason not to start. The same holds for the receive buffer.
    let _ = set_socket_send_buffer_size_force(&socket, SEND_BUFFER);
    // CAP_NET_ADMIN allows more than net.core.rmem_max (by default 208 KiB, some 200 lookups).
    // Without it, the buffer grows up to that.
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

/// Makes a socket of the address's family, and for that family only, so that both `0.0.0.0` and
/// `[::]` can be bound.
pub(crate) fn new(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind.nonblocking(), Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// Lets the socket have addresses that are not this host's (`IP_TRANSPARENT`). Needs CAP_NET_ADMIN.
pub(crate) fn make_transparent(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => socket.set_ip_transparent_v4(true),
        SocketAddr::V6(_) => socket.set_ip_transparent_v6(true),
    }
}

/// Makes the kernel give the socket no more datagrams, while it can still send. It connects the
/// socket to the discard port of the loopback: a connected socket receives only what its peer
/// sends, and this peer never sends.
pub(super) fn stop_receiving(socket: &impl AsFd, address: SocketAddr) -> io::Result<()> {
    const DISCARD: u16 = 9;
    let nobody: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::LOCALHOST, DISCARD).into(),
        SocketAddr::V6(_) => (Ipv6Addr::LOCALHOST, DISCARD).into(),
    };
    SockRef::from(socket).connect(&nobody.into())
}
