//! The connection to the server, from the client's own address and port.
//!
//! The same port is the only one that is safe: with any other, a flow of the client that is not
//! inspected may have this very pair of addresses and ports, and the kernel would give its packets
//! to our socket.

use std::io;
use std::net::SocketAddr;

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::net::{TcpSocket, TcpStream};

use super::side::PassageSide;
use super::{accepting, secure};
use crate::config::DialOptions;
use crate::event::DialFailure;
use crate::termination::Termination;

/// Who wants to reach whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    pub(super) source: SocketAddr,
    pub(super) asked: SocketAddr,
}

/// Why a server cannot be reached.
#[derive(Debug, Error)]
pub(super) enum DialError {
    #[error(transparent)]
    Connect(#[from] io::Error),
    #[error("TLS: {0}")]
    Tls(io::Error),
}

/// Connects, and agrees on TLS where the proxy is the server's client.
pub(super) async fn reach(
    route: Route,
    options: DialOptions,
    termination: Option<Termination>,
) -> Result<PassageSide, DialError> {
    let stream = dial(route, options).await?;
    accepting::prepare(&stream);
    let Some((config, termination)) = termination.as_ref().and_then(|it| Some((it.client.clone()?, it))) else {
        return Ok(PassageSide::Clear(stream));
    };
    let stream = secure::connect(config, termination, stream)
        .await
        .map_err(DialError::Tls)?;
    Ok(PassageSide::Secured(Box::new(stream)))
}

async fn dial(route: Route, options: DialOptions) -> io::Result<TcpStream> {
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

impl DialError {
    pub(super) fn failure(&self) -> DialFailure {
        let Self::Connect(error) = self else {
            return DialFailure::Tls;
        };
        match Errno::from_io_error(error) {
            Some(Errno::CONNREFUSED | Errno::CONNRESET) => DialFailure::Refused,
            Some(Errno::TIMEDOUT) => DialFailure::TimedOut,
            Some(Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::ACCESS | Errno::PERM) => DialFailure::Unreachable,
            Some(Errno::ADDRNOTAVAIL | Errno::ADDRINUSE) => DialFailure::AddressInUse,
            _ => DialFailure::Other,
        }
    }
}
