//! Listeners, and what a connection was asked for.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use rustix::net::sockopt::{ip_original_dst, ipv6_original_dst};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpStream;

/// How many connections may wait to be accepted. Bounded by `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// After so long without a word a peer is asked whether it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Binds a listener, that others of this process may share (`SO_REUSEPORT`).
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of a former agent on this port may be in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The destination that the client asked for, before the kernel redirected it here; the listener's
/// own address if it did not.
pub(super) fn original_destination(stream: &TcpStream) -> io::Result<SocketAddr> {
    Ok(match stream.local_addr()? {
        SocketAddr::V4(_) => ip_original_dst(stream)?.into(),
        SocketAddr::V6(_) => ipv6_original_dst(stream)?.into(),
    })
}

/// Sets what both sides of a passage have.
pub(super) fn prepare(stream: &TcpStream) {
    // Neither can fail on a socket that lives, and one that does not says so when it is read.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE));
}
