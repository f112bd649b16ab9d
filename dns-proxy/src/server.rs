//! The sockets that lookups arrive on.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::gate::Gate;

/// One place to listen: UDP and TCP on the same address and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Listener {
    /// Where.
    pub address: SocketAddr,
    /// What lookups that arrive there mean.
    pub kind: ListenerKind,
}

/// What lookups that arrive at a listener mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListenerKind {
    /// They were sent to this resolver and dnat brought them here.
    Dnat(SocketAddr),
    /// Transparent (`IP_TRANSPARENT`): each was sent to the address it still carries, and is answered from it.
    Tproxy,
    /// They were sent to us.
    Plain,
}

/// Limits and times. Every client is hostile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Patience with one upstream, per try. Default 2 s.
    pub upstream_timeout: Duration,
    /// Patience with all upstreams of one lookup; then SERVFAIL. Default 5 s, below the stub resolvers' own.
    pub lookup_timeout: Duration,
    /// Idle time of a client's TCP connection (RFC 7766 §6.2.3). Default 10 s.
    pub tcp_idle: Duration,
    /// TCP connections of one client address. Default 32.
    pub tcp_per_client: usize,
    /// TCP connections in all. Default 1,024.
    pub tcp_total: usize,
    /// Lookups in flight of one client address. Default 1,000.
    pub in_flight_per_client: usize,
    /// Lookups in flight in all. Default 10,000.
    pub in_flight_total: usize,
}

/// Why a listener could not be opened.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The address could not be bound.
    #[error("cannot listen on {address} ({transport}): {error}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// `UDP` or `TCP`.
        transport: &'static str,
        /// Why.
        error: std::io::Error,
    },
}

/// The running proxy. Dropping it ends all its listeners.
#[derive(Debug)]
pub struct Server<G: Gate> {
    gate: Arc<G>,
    config: ServerConfig,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            upstream_timeout: Duration::from_secs(2),
            lookup_timeout: Duration::from_secs(5),
            tcp_idle: Duration::from_secs(10),
            tcp_per_client: 32,
            tcp_total: 1_024,
            in_flight_per_client: 1_000,
            in_flight_total: 10_000,
        }
    }
}

impl<G: Gate> Server<G> {
    /// A proxy without listeners. Must be called inside a tokio runtime.
    pub fn new(gate: Arc<G>, config: ServerConfig) -> Self {
        Self { gate, config }
    }

    /// Makes the listeners exactly these: opens what is new (both UDP and TCP bound when this returns), ends what is
    /// not listed. Listeners that stay are not disturbed. On an error nothing that stood before is ended.
    pub async fn listen(&mut self, listeners: &[Listener]) -> Result<(), ServerError> {
        let _ = (listeners, &self.gate, &self.config);
        todo!()
    }

    /// The listeners that are bound.
    pub fn listeners(&self) -> Vec<Listener> {
        todo!()
    }

    /// Lookups in flight now, for metrics and for a graceful end.
    pub fn in_flight(&self) -> usize {
        let _: Option<IpAddr> = None;
        todo!()
    }
}
