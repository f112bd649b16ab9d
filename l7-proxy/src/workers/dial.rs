//! The connection to the server, from the client's own address and port.
//!
//! The same port is the only one that is safe: with any other, a flow of the client that is not
//! inspected may have this very pair of addresses and ports, and the kernel would give its packets
//! to our socket.

use std::io;
use std::net::SocketAddr;

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

use crate::config::DialOptions;
use crate::event::DialFailure;

/// Who wants to reach whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    pub(super) source: SocketAddr,
    pub(super) asked: SocketAddr,
}

pub(super) async fn dial(route: Route, options: DialOptions) -> io::Result<TcpStream> {
    let domain = Domain::for_address(route.asked);
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if let Some(mark) = options.mark {
        socket.set_mark(mark)?;
    }
    if options.keeps_source {
        match route.source {
            SocketAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
            SocketAddr::V6(_) => socket.set_ip_transparent_v6(true)?,
        }
        // A client may use one port towards several servers.
        socket.set_reuse_address(true)?;
        socket.bind(&route.source.into())?;
    }
    TcpSocket::from_std_stream(socket.into()).connect(route.asked).await
}

pub(super) fn failure(error: &io::Error) -> DialFailure {
    match Errno::from_io_error(error) {
        Some(Errno::CONNREFUSED | Errno::CONNRESET) => DialFailure::Refused,
        Some(Errno::TIMEDOUT) => DialFailure::TimedOut,
        Some(Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::ACCESS | Errno::PERM) => DialFailure::Unreachable,
        Some(Errno::ADDRNOTAVAIL | Errno::ADDRINUSE) => DialFailure::AddressInUse,
        _ => DialFailure::Other,
    }
}
