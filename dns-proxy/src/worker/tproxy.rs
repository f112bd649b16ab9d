//! Replies from addresses that are not ours.
//!
//! A lookup that tproxy brings here still carries the address of the resolver it was sent to, and
//! its answer must come from there. So for each resolver a socket is bound to that address
//! (`IP_TRANSPARENT`).

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;

use lru::LruCache;
use socket2::{Protocol, Socket, Type};

use super::mmsg::{SendBuffers, SendQueue};
use super::socket;

/// How many sockets are kept. A cluster has a handful of resolvers, and other addresses that a pod
/// asks must not cost descriptors without bound.
const KEPT: NonZeroUsize = NonZeroUsize::new(64).expect("64 is not 0");

/// The sockets from which replies leave, one for each resolver that was asked lately.
pub(super) struct SpoofingSockets {
    by_resolver: LruCache<SocketAddr, (Socket, SendQueue)>,
    /// Those with something to send.
    unsent: Vec<SocketAddr>,
}

impl SpoofingSockets {
    pub(super) fn new() -> Self {
        Self {
            by_resolver: LruCache::new(KEPT),
            unsent: Vec::new(),
        }
    }

    /// Puts an answer into the batch that leaves as `resolver`.
    pub(super) fn answer_as(
        &mut self,
        resolver: SocketAddr,
        payload: &[u8],
        to: SocketAddr,
        space: &mut SendBuffers,
    ) -> io::Result<()> {
        if !self.by_resolver.contains(&resolver) {
            let opened = (bind(resolver)?, SendQueue::default());
            if let Some((_, (socket, mut queue))) = self.by_resolver.push(resolver, opened) {
                queue.send_all(socket.as_fd(), space);
            }
        }
        if let Some((_, queue)) = self.by_resolver.get_mut(&resolver) {
            if queue.is_empty() {
                self.unsent.push(resolver);
            }
            queue.push(payload, Some(to), None);
        }
        Ok(())
    }

    pub(super) fn flush(&mut self, space: &mut SendBuffers) {
        for resolver in self.unsent.drain(..) {
            if let Some((socket, queue)) = self.by_resolver.peek_mut(&resolver) {
                queue.send_all(socket.as_fd(), space);
            }
        }
    }
}

fn bind(resolver: SocketAddr) -> io::Result<Socket> {
    let socket = socket::new(resolver, Type::DGRAM, Protocol::UDP)?;
    // Two agents overlap in an upgrade, each worker has one, and a resolver of this very node may
    // be bound there: SO_REUSEPORT for one that runs as our user, SO_REUSEADDR for any other that
    // has it too.
    socket.set_reuse_port(true)?;
    socket.set_reuse_address(true)?;
    socket::make_transparent(&socket, resolver)?;
    socket.bind(&resolver.into())?;
    // It must take nothing that is meant for such a resolver.
    socket::stop_receiving(&socket, resolver)?;
    Ok(socket)
}
