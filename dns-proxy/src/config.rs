//! The settings of the proxy.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::thread;
use std::time::Duration;

use crate::question::Transport;
use crate::upstream::encrypted::EncryptedUpstream;

/// Limits and times. Every client is hostile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Patience with one upstream, per try. Default 2 s.
    pub upstream_timeout: Duration,
    /// Patience with one lookup, all upstreams and the commit together; then SERVFAIL. Default 5 s,
    /// the stub resolvers' own: an answer after that reaches nobody.
    pub lookup_timeout: Duration,
    /// Idle time of a client's TCP connection (RFC 7766 §6.2.3). Default 10 s.
    pub tcp_idle: Duration,
    /// TCP connections of one client address. Default 32.
    pub tcp_per_client: usize,
    /// TCP connections in all. Default 1,024.
    pub tcp_total: usize,
    /// Lookups in flight of one client address. Default 32,768; and never more than there are
    /// places free, so that a client alone gets half of all, and others always find room beside it.
    pub in_flight_per_client: usize,
    /// Lookups in flight in all. Default 65,536: an upstream that takes 50 ms is asked a million
    /// times a second then. Each takes half a KiB, and the query itself as far as it is longer than
    /// usual (1,232 octets at most).
    pub in_flight_total: usize,
    /// Threads that do lookups, [`MOST_WORKERS`](crate::MOST_WORKERS) at most. Default: half of the
    /// processors, one at least and four at most. One serves some hundred thousand lookups a
    /// second, and the rest of the node belongs to its workloads.
    pub workers: usize,
    /// Upstreams that are asked over an encrypted connection, wherever the gate names their
    /// address.
    pub encrypted: Vec<EncryptedUpstream>,
    /// The answer cache; `None`, the default: every lookup is forwarded.
    pub cache: Option<CacheConfig>,
}

/// The answer cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheConfig {
    /// Answers kept, of all workers together; the least recently asked goes first. An answer with
    /// two addresses takes some 500 octets.
    pub entries: NonZeroUsize,
    /// How long after its time an answer is given when no upstream has one (RFC 8767); zero: not at
    /// all.
    pub stale_for: Duration,
}

impl ServerConfig {
    /// How an upstream is asked, if that is over an encrypted connection.
    pub(crate) fn encrypted_transport(&self, server: SocketAddr) -> Option<Transport> {
        let upstream = self.encrypted.iter().find(|it| it.address == server)?;
        Some(upstream.protocol.transport())
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            upstream_timeout: Duration::from_secs(2),
            lookup_timeout: Duration::from_secs(5),
            tcp_idle: Duration::from_secs(10),
            tcp_per_client: 32,
            tcp_total: 1_024,
            in_flight_per_client: 32_768,
            in_flight_total: 65_536,
            workers: thread::available_parallelism().map_or(1, |processors| (processors.get() / 2).clamp(1, 4)),
            encrypted: Vec::new(),
            cache: None,
        }
    }
}
