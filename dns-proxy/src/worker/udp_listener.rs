//! A worker's share of a listener: a UDP socket of its own on an address that all workers listen on
//! (`SO_REUSEPORT`).

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use socket2::Socket;

use super::connection_replies::ConnectionReplyKey;
use super::control::LocalAddress;
use super::mmsg::{ReceivedDatagram, SendBuffers, SendQueue};
use super::socket;
use crate::listener::{Listener, ListenerKind};
use crate::question::QueryTarget;

/// A bound socket, what its datagrams mean, and the replies that wait to leave from it.
pub(crate) struct UdpListener {
    pub(super) listener: Listener,
    socket: Socket,
    queue: SendQueue,
    /// It receives no new lookups.
    pub(super) ends: bool,
    /// How many lookups in flight came here.
    pub(super) pending: usize,
}

/// The way of a reply to its client.
#[derive(Debug, Clone, Copy)]
pub(super) enum ReplyPath {
    /// From the listening socket of this number; under a wildcard, from the address that was asked.
    /// Under dnat, conntrack puts the resolver's address back.
    Listening(u32, Option<LocalAddress>),
    /// As the resolver that was asked (tproxy); the listener's number is for counting.
    As(u32, SocketAddr),
    /// Through the connection that the query came over.
    Connection(ConnectionReplyKey),
}

impl ReplyPath {
    /// The number of the listener that the query came to, if it was a datagram.
    pub(super) fn number(self) -> Option<u32> {
        match self {
            Self::Listening(number, _) | Self::As(number, _) => Some(number),
            Self::Connection(_) => None,
        }
    }
}

impl UdpListener {
    /// A socket of its own for a worker.
    pub(crate) fn open(listener: Listener) -> io::Result<Socket> {
        socket::bind(listener.address, listener.kind == ListenerKind::Tproxy)
    }

    /// A listener on the socket that was opened for it.
    pub(crate) fn new(listener: Listener, socket: Socket) -> Self {
        Self {
            listener,
            socket,
            queue: SendQueue::default(),
            ends: false,
            pending: 0,
        }
    }

    /// Whom a datagram's sender asked, and how the answer gets there. `None` without the original
    /// destination.
    pub(super) fn way(&self, number: u32, datagram: &ReceivedDatagram<'_>) -> Option<(QueryTarget, ReplyPath)> {
        let back = ReplyPath::Listening(number, datagram.received.local);
        Some(match self.listener.kind {
            ListenerKind::Dnat(resolver) => (QueryTarget::Resolver(resolver), back),
            ListenerKind::Plain => (QueryTarget::Proxy, back),
            ListenerKind::Tproxy => {
                let resolver = datagram.received.original_destination?;
                (QueryTarget::Resolver(resolver), ReplyPath::As(number, resolver))
            }
        })
    }

    pub(super) fn answer(&mut self, payload: &[u8], to: SocketAddr, from: Option<LocalAddress>) {
        self.queue.push(payload, Some(to), from);
    }

    pub(super) fn flush(&mut self, space: &mut SendBuffers) {
        self.queue.send_all(self.socket.as_fd(), space);
    }

    /// Another process, or another socket of ours, may listen on the same address: new lookups go
    /// there from here on, and what is queued here already is still ours.
    pub(super) fn stop_receiving(&mut self) {
        self.ends = true;
        if let Err(error) = socket::stop_receiving(&self.socket, self.listener.address) {
            tracing::warn!(listener = %self.listener.address, %error, "ends without emptying its queue");
        }
    }
}

impl AsFd for UdpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl std::fmt::Debug for UdpListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("UdpListener").field(&self.listener).finish()
    }
}
