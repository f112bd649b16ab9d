//! Answers from addresses that are not ours.
//!
//! A lookup that tproxy brings here still carries the address of the resolver it was sent to, and its answer must come
//! from there. So for each resolver a socket is bound to that address (`IP_TRANSPARENT`).

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;
use socket2::{Protocol, Type};
use tokio::net::UdpSocket;

use super::socket;

/// Sockets kept. A cluster has a handful of resolvers; what a pod makes up beyond them must not cost us descriptors.
const KEPT: NonZeroUsize = NonZeroUsize::new(64).expect("64 is not 0");

/// The sockets that answers leave from, one for each resolver that was asked lately.
#[derive(Debug)]
pub(super) struct AnswerSockets {
    by_resolver: Mutex<LruCache<SocketAddr, Arc<UdpSocket>>>,
}

impl AnswerSockets {
    pub(super) fn new() -> Self {
        Self {
            by_resolver: Mutex::new(LruCache::new(KEPT)),
        }
    }

    /// The socket to answer from as `resolver`.
    pub(super) fn answering_as(&self, resolver: SocketAddr) -> io::Result<Arc<UdpSocket>> {
        let kept = || self.by_resolver.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(socket) = kept().get(&resolver) {
            return Ok(socket.clone());
        }
        // Bound without the lock held. Two at once do no harm: one of them is dropped.
        let socket = Arc::new(bind(resolver)?);
        kept().put(resolver, socket.clone());
        Ok(socket)
    }
}

fn bind(resolver: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket::new(resolver, Type::DGRAM, Protocol::UDP)?;
    // Two agents overlap in an upgrade, and a resolver of this very node may be bound there: SO_REUSEPORT for one that
    // runs as our user, SO_REUSEADDR for any other that has it too.
    socket.set_reuse_port(true)?;
    socket.set_reuse_address(true)?;
    socket::make_transparent(&socket, resolver)?;
    socket.bind(&resolver.into())?;
    // It must take nothing that is meant for such a resolver.
    socket::take_no_more(&socket, resolver)?;
    socket::from_socket2(socket)
}
