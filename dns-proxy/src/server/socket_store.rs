//! Listening sockets that outlive the process that reads from them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};

use socket2::Socket;

use crate::listener::{Listener, ListenerKind};

/// Where duplicates of listening sockets are kept while they listen, so that what waits in their
/// queues survives a crash.
pub trait SocketStore: Send + Sync {
    /// Gives what an earlier process has kept under this name, once.
    fn take(&self, name: &str) -> Option<OwnedFd>;
    /// Keeps a duplicate of a socket under this name.
    fn keep(&self, name: &str, socket: BorrowedFd<'_>);
    /// Closes the duplicate of this name, if there is one.
    fn forget(&self, name: &str);
}

/// A half of a listener that has a socket.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SocketRole {
    /// The UDP socket of this worker.
    Udp(usize),
    Tcp,
}

/// The name under which a listener's socket is kept. Two that differ in anything that matters have
/// different names.
pub(crate) fn name(listener: Listener, half: SocketRole) -> String {
    let half = match half {
        SocketRole::Udp(worker) => format!("udp{worker}"),
        SocketRole::Tcp => "tcp".into(),
    };
    let means = match listener.kind {
        ListenerKind::Dnat(resolver) => format!("dnat {resolver}"),
        ListenerKind::Tproxy => "tproxy".into(),
        ListenerKind::Plain => "plain".into(),
    };
    format!("dns {half} {} {means}", listener.address)
}

/// A kept socket, if it is still what its name says: one that was about to end when its process
/// died takes nothing any more.
pub(crate) fn checked(kept: OwnedFd, address: SocketAddr) -> io::Result<Option<Socket>> {
    let socket = Socket::from(kept);
    let bound = socket.local_addr()?.as_socket();
    let is_connected = socket.peer_addr().is_ok();
    Ok((bound == Some(address) && !is_connected).then_some(socket))
}
