//! Datagrams with the addresses that they were sent to and are answered from.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdUdpSocket};
use std::os::fd::AsFd;

use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use socket2::{Domain, MsgHdr, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::control::{self, LocalAddress, Received};
use super::sys;

/// A listener's queue in the kernel: a burst of some thousand lookups.
const RECEIVE_BUFFER: usize = 4 << 20;

/// What a datagram came with.
pub(super) struct Datagram {
    pub(super) length: usize,
    pub(super) source: SocketAddr,
    pub(super) received: Received,
}

/// A UDP socket to listen on, with what tells whom each datagram was sent to.
pub(super) fn bind(address: SocketAddr, transparent: bool) -> io::Result<UdpSocket> {
    let socket = new(address, Type::DGRAM, Protocol::UDP)?;
    // Two agents overlap in an upgrade. Not SO_REUSEADDR, which for UDP would let any user's process take our lookups.
    socket.set_reuse_port(true)?;
    // Past net.core.rmem_max (by default 208 KiB, some 200 lookups) with CAP_NET_ADMIN, up to it without. Less than
    // asked is no reason not to start.
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
    from_socket2(socket)
}

/// A socket of the address's family, for that family only, so that `0.0.0.0` and `[::]` can stand side by side.
pub(super) fn new(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind.nonblocking(), Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// Lets the socket have addresses that are not this host's (`IP_TRANSPARENT`; needs `CAP_NET_ADMIN`).
pub(super) fn make_transparent(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => socket.set_ip_transparent_v4(true),
        SocketAddr::V6(_) => socket.set_ip_transparent_v6(true),
    }
}

pub(super) fn from_socket2(socket: Socket) -> io::Result<UdpSocket> {
    UdpSocket::from_std(StdUdpSocket::from(socket))
}

/// Makes the kernel give the socket no more datagrams, while it can go on to send: a connected socket takes only what
/// its peer sends, and this peer (the discard port of the loopback) never sends.
pub(super) fn take_no_more(socket: &impl AsFd, address: SocketAddr) -> io::Result<()> {
    const DISCARD: u16 = 9;
    let nobody: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::LOCALHOST, DISCARD).into(),
        SocketAddr::V6(_) => (Ipv6Addr::LOCALHOST, DISCARD).into(),
    };
    SockRef::from(socket).connect(&nobody.into())
}

/// Takes one datagram, or says [`io::ErrorKind::WouldBlock`].
pub(super) fn try_receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Datagram> {
    let mut room = [0; control::ROOM];
    socket.try_io(Interest::READABLE, || {
        let (length, source, control_length) = sys::receive_message(socket.as_fd(), buffer, &mut room)?;
        Ok(Datagram {
            length,
            source,
            received: control::read(&room[..control_length]),
        })
    })
}

/// Sends one datagram from the given local address, or from the one that the socket is bound to.
pub(super) async fn send(
    socket: &UdpSocket,
    bytes: &[u8],
    to: SocketAddr,
    from: Option<LocalAddress>,
) -> io::Result<usize> {
    let Some(from) = from else {
        return socket.send_to(bytes, to).await;
    };
    let (to, buffers, control) = (to.into(), [IoSlice::new(bytes)], control::leave_from(from));
    let send = || {
        let message = MsgHdr::new()
            .with_addr(&to)
            .with_buffers(&buffers)
            .with_control(&control);
        SockRef::from(socket).sendmsg(&message, 0)
    };
    socket.async_io(Interest::WRITABLE, send).await
}
