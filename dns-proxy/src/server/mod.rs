//! The sockets that lookups arrive on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::gate::Gate;
use crate::pipeline::Pipeline;

mod control;
mod limits;
mod socket;
mod sys;
mod tcp;
mod tproxy;
mod udp;

use limits::Quota;
use udp::UdpListener;

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
    /// Patience with one lookup, all upstreams and the commit together; then SERVFAIL. Default 5 s, the stub resolvers'
    /// own: an answer after that reaches nobody.
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

/// The running proxy. Dropping it ends all its listeners, connections and lookups at once; a graceful end is
/// [`listen`](Self::listen) with nothing, then waiting until [`in_flight`](Self::in_flight) is 0.
pub struct Server<G: Gate> {
    service: Arc<Service<G>>,
    listening: BTreeMap<Listener, Listening>,
    /// Listeners that no longer listen but still answer what they were asked.
    ending: Vec<JoinSet<()>>,
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
        Self {
            service: Arc::new(Service {
                lookups: Quota::new(config.in_flight_per_client, config.in_flight_total),
                connections: Quota::new(config.tcp_per_client, config.tcp_total),
                pipeline: Pipeline { gate, config },
            }),
            listening: BTreeMap::new(),
            ending: Vec::new(),
        }
    }

    /// Makes the listeners exactly these: opens what is new (both UDP and TCP bound when this returns), ends what is
    /// not listed. Listeners that stay are not disturbed. On an error nothing that stood before is ended.
    ///
    /// A listener that ends takes nothing new, and answers what it was asked before.
    pub async fn listen(&mut self, listeners: &[Listener]) -> Result<(), ServerError> {
        let wanted: BTreeSet<Listener> = listeners.iter().copied().collect();
        let mut bound = Vec::new();
        for listener in &wanted {
            if !self.listening.contains_key(listener) {
                bound.push(Bound::bind(*listener)?);
            }
        }
        for sockets in bound {
            let listener = sockets.listener;
            self.listening
                .insert(listener, Listening::start(sockets, &self.service));
        }
        let (stay, ended): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut self.listening)
            .into_iter()
            .partition(|(listener, _)| wanted.contains(listener));
        self.listening = stay;
        self.ending.extend(ended.into_values().map(|listening| listening.tasks));
        self.ending.retain_mut(|tasks| {
            while tasks.try_join_next().is_some() {}
            !tasks.is_empty()
        });
        Ok(())
    }

    /// The listeners that are bound.
    pub fn listeners(&self) -> Vec<Listener> {
        self.listening.keys().copied().collect()
    }

    /// Lookups in flight now, for metrics and for a graceful end.
    pub fn in_flight(&self) -> usize {
        self.service.lookups.taken()
    }
}

impl<G: Gate> fmt::Debug for Server<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("listeners", &self.listening.keys())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

/// What all listeners share.
struct Service<G: Gate> {
    pipeline: Pipeline<G>,
    lookups: Arc<Quota>,
    connections: Arc<Quota>,
}

/// The sockets of one listener, before anything is read from them.
struct Bound {
    listener: Listener,
    udp: UdpListener,
    tcp: TcpListener,
}

impl Bound {
    fn bind(listener: Listener) -> Result<Self, ServerError> {
        let failed = |transport| {
            move |error| ServerError::Bind {
                address: listener.address,
                transport,
                error,
            }
        };
        Ok(Self {
            listener,
            udp: UdpListener::bind(listener).map_err(failed("UDP"))?,
            tcp: tcp::bind(listener).map_err(failed("TCP"))?,
        })
    }
}

/// A listener at work.
struct Listening {
    /// Dropped with the aborting of what is left.
    tasks: JoinSet<()>,
    /// Dropping it asks the tasks to come to an end.
    _stop: watch::Sender<()>,
}

impl Listening {
    fn start<G: Gate>(sockets: Bound, service: &Arc<Service<G>>) -> Self {
        let (stop, stopped) = watch::channel(());
        let mut tasks = JoinSet::new();
        tasks.spawn(udp::serve(sockets.udp, service.clone(), stopped.clone()));
        tasks.spawn(tcp::serve(sockets.tcp, sockets.listener.kind, service.clone(), stopped));
        Self { tasks, _stop: stop }
    }
}

/// Resolves when the listener is asked to end.
async fn ended(stopped: &mut watch::Receiver<()>) {
    // Nothing is ever sent, so this returns when the sender is gone.
    while stopped.changed().await.is_ok() {}
}
