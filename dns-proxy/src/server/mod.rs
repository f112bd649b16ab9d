//! The sockets that lookups arrive on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use parking_lot::Mutex;
use socket2::Socket;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::client_quota::ClientQuota;
use crate::config::ServerConfig;
use crate::cookie::Cookies;
use crate::event::ProxyEvent;
use crate::gate::Gate;
use crate::listener::{Listener, ListenerKind};
use crate::lookups::SharedLookupState;
use crate::single_flight::SingleFlight;
use crate::upstream::health::UpstreamHealth;
use crate::upstream::pool::ConnectionPool;
use crate::worker;
use crate::worker::mailbox::{Mailbox, WorkerMessage};
use crate::worker::udp_listener::UdpListener;

pub(crate) mod socket_store;
mod tcp;

pub use socket_store::SocketStore;

use socket_store::SocketRole;

/// The most workers that a proxy has.
pub const MOST_WORKERS: usize = 64;

/// Why a listener could not be opened.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The address could not be bound.
    #[error("cannot listen on {address} ({transport}): {error}")]
    Bind {
        /// The address to listen on.
        address: SocketAddr,
        /// `UDP` or `TCP`.
        transport: &'static str,
        /// The error of the system call.
        error: std::io::Error,
    },
    /// A thread that serves lookups could not be started.
    #[error("cannot start a DNS worker: {0}")]
    Worker(std::io::Error),
}

/// The running proxy. Dropping it ends all its listeners, connections and lookups at once; a
/// graceful end is [`listen`](Self::listen) with nothing, then waiting until it [is
/// drained](Self::is_drained).
pub struct DnsServer<G: Gate> {
    service: Arc<Service<G>>,
    /// The workers, which do the lookups. They start with the first listener.
    workers: Vec<Arc<Mailbox<G::Proof>>>,
    listening: BTreeMap<Listener, RunningListener>,
    /// The tasks of listeners that no longer accept but still answer.
    ending: Vec<JoinSet<()>>,
    /// The store in which the sockets outlive this process, if there is one.
    kept: Option<Arc<dyn SocketStore>>,
}

impl<G: Gate> DnsServer<G> {
    /// A proxy without listeners. Must be called inside a tokio runtime.
    pub fn new(gate: Arc<G>, config: ServerConfig) -> Self {
        Self {
            service: Arc::new(Service {
                flights: SingleFlight::new(),
                lookups: ClientQuota::new(config.in_flight_per_client, config.in_flight_total),
                connections: ClientQuota::new(config.tcp_per_client, config.tcp_total),
                cookies: Arc::new(Cookies::new()),
                pool: Arc::new(ConnectionPool::new(&config.encrypted)),
                health: Arc::default(),
                worker_state: Mutex::new(gate.worker_state()),
                gate,
                config,
            }),
            workers: Vec::new(),
            listening: BTreeMap::new(),
            ending: Vec::new(),
            kept: None,
        }
    }

    /// Keeps the listening sockets in this store while they listen, and adopts those that an
    /// earlier process left there.
    pub fn keep_sockets(&mut self, kept: Arc<dyn SocketStore>) {
        self.kept = Some(kept);
    }

    /// Makes the listeners exactly these: opens new ones (bound for UDP and TCP when this returns)
    /// and ends those that are not listed. Listeners that stay are not disturbed. On an error no
    /// listener is ended.
    ///
    /// A listener that ends receives no new queries, and answers those that it has. When this
    /// returns, all of them are [in flight](Self::in_flight).
    pub async fn listen(&mut self, listeners: &[Listener]) -> Result<(), ServerError> {
        let wanted: BTreeSet<Listener> = listeners.iter().copied().collect();
        if !wanted.is_empty() {
            self.start_workers().map_err(ServerError::Worker)?;
        }
        let mut bound = Vec::new();
        for listener in &wanted {
            if !self.listening.contains_key(listener) {
                bound.push(BoundListener::bind(
                    *listener,
                    self.workers.len(),
                    self.kept.as_deref(),
                )?);
            }
        }
        for BoundListener {
            listener,
            udp,
            left,
            tcp,
        } in bound
        {
            for (worker, socket) in self.workers.iter().zip(udp) {
                worker.post(WorkerMessage::AddListener(Box::new(socket)));
            }
            for (worker, socket) in self.workers.iter().cycle().zip(left) {
                worker.post(WorkerMessage::DrainListener(Box::new(socket)));
            }
            self.listening.insert(
                listener,
                RunningListener::start(tcp, listener.kind, &self.service, &self.workers),
            );
        }
        let (stay, ended): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut self.listening)
            .into_iter()
            .partition(|(listener, _)| wanted.contains(listener));
        self.listening = stay;
        let mut endings = Vec::new();
        for (listener, listening) in ended {
            // First, so that after a crash no process adopts sockets that receive nothing.
            self.forget(listener);
            for worker in &self.workers {
                let (done, ending) = oneshot::channel();
                worker.post(WorkerMessage::RemoveListener(listener, done));
                endings.push(ending);
            }
            self.ending.push(listening.tasks);
        }
        for ending in endings {
            // An error means that the worker has ended, and its listeners with it.
            let _ = ending.await;
        }
        self.forget_ended();
        Ok(())
    }

    /// Whether the ended listeners have answered everything. Clients that have just connected get a
    /// moment to ask.
    pub fn is_drained(&mut self) -> bool {
        self.forget_ended();
        self.ending.is_empty() && self.in_flight() == 0
    }

    fn forget(&self, listener: Listener) {
        if let Some(kept) = &self.kept {
            let udp = (0..self.workers.len()).map(SocketRole::Udp);
            udp.chain([SocketRole::Tcp])
                .for_each(|half| kept.forget(&socket_store::name(listener, half)));
        }
    }

    fn forget_ended(&mut self) {
        self.ending.retain_mut(|tasks| {
            while tasks.try_join_next().is_some() {}
            !tasks.is_empty()
        });
    }

    fn start_workers(&mut self) -> std::io::Result<()> {
        let service = &self.service;
        while self.workers.len() < service.config.workers.clamp(1, MOST_WORKERS) {
            let (gate, config) = (Arc::clone(&service.gate), service.config.clone());
            let shared = SharedLookupState {
                quota: Arc::clone(&service.lookups),
                flights: Arc::clone(&service.flights),
                health: Arc::clone(&service.health),
                cookies: Arc::clone(&service.cookies),
            };
            let pool = Arc::clone(&service.pool);
            self.workers
                .push(worker::start(gate, config, shared, pool, Handle::current())?);
        }
        Ok(())
    }

    /// The listeners that are bound.
    pub fn listeners(&self) -> Vec<Listener> {
        self.listening.keys().copied().collect()
    }

    /// Lookups in flight now, for metrics.
    pub fn in_flight(&self) -> usize {
        self.service.lookups.taken()
    }
}

impl<G: Gate> Drop for DnsServer<G> {
    fn drop(&mut self) {
        self.workers.iter().for_each(|worker| worker.post(WorkerMessage::Stop));
    }
}

impl<G: Gate> fmt::Debug for DnsServer<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DnsServer")
            .field("listeners", &self.listening.keys())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

/// What all listeners share.
struct Service<G: Gate> {
    gate: Arc<G>,
    config: ServerConfig,
    flights: Arc<SingleFlight>,
    lookups: Arc<ClientQuota>,
    connections: Arc<ClientQuota>,
    cookies: Arc<Cookies>,
    pool: Arc<ConnectionPool>,
    health: Arc<UpstreamHealth>,
    /// For what connections tell the gate.
    worker_state: Mutex<G::WorkerState>,
}

impl<G: Gate> Service<G> {
    /// Counts what happened.
    fn observe(&self, event: ProxyEvent<'_>) {
        self.gate.observe(&mut self.worker_state.lock(), event);
    }
}

/// The bound sockets of one listener, before anything is read from them.
struct BoundListener {
    listener: Listener,
    /// One for each worker.
    udp: Vec<UdpListener>,
    /// Those that an earlier process with more workers has left.
    left: Vec<UdpListener>,
    tcp: TcpListener,
}

impl BoundListener {
    fn bind(listener: Listener, workers: usize, kept: Option<&dyn SocketStore>) -> Result<Self, ServerError> {
        let failed = |transport| {
            move |error| ServerError::Bind {
                address: listener.address,
                transport,
                error,
            }
        };
        let udp = (0..workers).map(|worker| {
            let socket = open(listener, SocketRole::Udp(worker), kept, UdpListener::open)?;
            Ok(UdpListener::new(listener, socket))
        });
        let left = kept.into_iter().flat_map(|kept| {
            (workers..MOST_WORKERS).filter_map(move |worker| {
                let name = socket_store::name(listener, SocketRole::Udp(worker));
                let socket = socket_store::checked(kept.take(&name)?, listener.address);
                // No later process is to adopt what receives nothing.
                kept.forget(&name);
                Some(UdpListener::new(listener, socket.ok()??))
            })
        });
        Ok(Self {
            listener,
            left: left.collect(),
            udp: udp.collect::<Result<_, _>>().map_err(failed("UDP"))?,
            tcp: open(listener, SocketRole::Tcp, kept, tcp::bind)
                .and_then(|socket| TcpListener::from_std(socket.into()))
                .map_err(failed("TCP"))?,
        })
    }
}

/// The socket that an earlier process has left, or a new one.
fn open(
    listener: Listener,
    half: SocketRole,
    kept: Option<&dyn SocketStore>,
    bind: impl FnOnce(Listener) -> io::Result<Socket>,
) -> io::Result<Socket> {
    let Some(kept) = kept else { return bind(listener) };
    let name = socket_store::name(listener, half);
    if let Some(left) = kept.take(&name)
        && let Ok(Some(socket)) = socket_store::checked(left, listener.address)
    {
        return Ok(socket);
    }
    let socket = bind(listener)?;
    kept.keep(&name, socket.as_fd());
    Ok(socket)
}

/// The running TCP half of a listener; the workers receive from the UDP half themselves.
struct RunningListener {
    /// Dropping them aborts those that are left.
    tasks: JoinSet<()>,
    /// Dropping it asks the tasks to end.
    _stop: watch::Sender<()>,
}

impl RunningListener {
    fn start<G: Gate>(
        tcp: TcpListener,
        kind: ListenerKind,
        service: &Arc<Service<G>>,
        workers: &[Arc<Mailbox<G::Proof>>],
    ) -> Self {
        let (stop, stopped) = watch::channel(());
        let mut tasks = JoinSet::new();
        tasks.spawn(tcp::serve(tcp, kind, service.clone(), workers.to_vec(), stopped));
        Self { tasks, _stop: stop }
    }
}

/// Resolves when the listener is asked to end.
async fn ended(stopped: &mut watch::Receiver<()>) {
    // Nothing is ever sent, so this returns when the sender is gone.
    while stopped.changed().await.is_ok() {}
}
