//! Connections of clients (RFC 7766): they frame queries and replies, and a worker looks up.

use std::future::poll_fn;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use socket2::{Protocol, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::Service;
use crate::event::{DiscardReason, ProxyEvent};
use crate::gate::Gate;
use crate::listener::{Listener, ListenerKind};
use crate::question::{QueryTarget, Transport};
use crate::stages::Client;
use crate::tcp_framing;
use crate::worker::connection_replies::{ConnectionQuery, ConnectionReply};
use crate::worker::mailbox::{Mailbox, WorkerMessage};
use crate::worker::socket;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1_024;

/// Lookups in flight on one connection. At this limit nothing more is read from it until one is
/// answered.
const IN_FLIGHT: usize = 64;

/// How long the connections of an ended listener still accept queries, so that none is lost that a
/// client is just sending.
const LINGER: Duration = Duration::from_millis(500);

/// Pause after accept(2) failed for a reason that may last (no descriptors left).
const PAUSE: Duration = Duration::from_millis(50);

/// Binds the TCP half of a listener.
pub(super) fn bind(listener: Listener) -> io::Result<Socket> {
    let socket = socket::new(listener.address, Type::STREAM, Protocol::TCP)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if listener.kind == ListenerKind::Tproxy {
        socket::make_transparent(&socket, listener.address)?;
    }
    socket.bind(&listener.address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Accepts connections until asked to stop, then lets those that are open answer what they were
/// asked.
pub(super) async fn serve<G: Gate>(
    listener: TcpListener,
    kind: ListenerKind,
    service: Arc<Service<G>>,
    workers: Vec<Arc<Mailbox<G::Proof>>>,
    stopped: watch::Receiver<()>,
) {
    let mut connections = JoinSet::new();
    let mut stop = stopped.clone();
    // Each connection has its lookups done by the worker after that of the one before.
    let mut workers = workers.iter().cycle();
    let mut start = |stream, source, connections: &mut JoinSet<()>| {
        if let Some(worker) = workers.next() {
            start(stream, source, kind, (&service, worker), &stopped, connections);
        }
    };
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, source)) => start(stream, source, &mut connections),
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed; going on");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            () = super::ended(&mut stop) => break,
        }
        while connections.try_join_next().is_some() {}
    }
    // Connections that are not yet accepted would be reset.
    while let Some((stream, source)) = accepted_already(&listener).await {
        start(stream, source, &mut connections);
    }
    // Where a duplicate is kept, closing the socket does not end it: the kernel would go on to
    // queue connections that nobody accepts.
    if let Err(error) = SockRef::from(&listener).shutdown(Shutdown::Read) {
        tracing::debug!(%error, "a listener ends with its last descriptor");
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Serves a new connection, or closes it if its client has too many.
fn start<G: Gate>(
    stream: TcpStream,
    source: SocketAddr,
    kind: ListenerKind,
    (service, worker): (&Arc<Service<G>>, &Arc<Mailbox<G::Proof>>),
    stopped: &watch::Receiver<()>,
    connections: &mut JoinSet<()>,
) {
    let Ok(permit) = service.connections.take(source.ip()) else {
        let limit = ProxyEvent::Discarded(DiscardReason::ConnectionLimit);
        return service.observe(limit);
    };
    let (service, worker, stopped) = (service.clone(), Arc::clone(worker), stopped.clone());
    connections.spawn(async move {
        if let Some(connection) = ClientConnection::new(stream, source, kind, service, worker) {
            connection.serve(stopped).await;
        }
        drop(permit);
    });
}

/// The next connection that waits to be accepted, if any does.
async fn accepted_already(listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
    poll_fn(|context| {
        Poll::Ready(match listener.poll_accept(context) {
            Poll::Ready(accepted) => accepted.ok(),
            Poll::Pending => None,
        })
    })
    .await
}

/// One client's connection.
struct ClientConnection<G: Gate> {
    stream: TcpStream,
    source: SocketAddr,
    target: QueryTarget,
    service: Arc<Service<G>>,
    /// The worker that does the lookups.
    worker: Arc<Mailbox<G::Proof>>,
    /// Received bytes that are not a whole message yet.
    unread: BytesMut,
    /// The replies to lookups in flight; `None`: there is none to be written.
    lookups: JoinSet<Option<ConnectionReply>>,
    /// Extended by whole queries and by replies only, so that single bytes keep no connection open.
    idle_until: Instant,
}

impl<G: Gate> ClientConnection<G> {
    fn new(
        stream: TcpStream,
        source: SocketAddr,
        kind: ListenerKind,
        service: Arc<Service<G>>,
        worker: Arc<Mailbox<G::Proof>>,
    ) -> Option<Self> {
        // Replies are small and complete when they are written: waiting for an ACK only delays
        // them.
        let _ = stream.set_nodelay(true);
        let target = match kind {
            ListenerKind::Dnat(resolver) => QueryTarget::Resolver(resolver),
            // A transparent connection's local address is the one that the client connected to.
            ListenerKind::Tproxy => QueryTarget::Resolver(stream.local_addr().ok()?),
            ListenerKind::Plain => QueryTarget::Proxy,
        };
        Some(Self {
            idle_until: Instant::now() + service.config.tcp_idle,
            stream,
            source,
            target,
            service,
            worker,
            unread: BytesMut::new(),
            lookups: JoinSet::new(),
        })
    }

    /// Reads queries and answers them as they are ready, in any order (RFC 7766 §6.2.1.1), until
    /// the client is done or silent, or breaks the framing.
    async fn serve(mut self, mut stopped: watch::Receiver<()>) {
        let mut reading = true;
        let lingered = async {
            super::ended(&mut stopped).await;
            tokio::time::sleep(LINGER).await;
        };
        tokio::pin!(lingered);
        while reading || !self.lookups.is_empty() {
            let has_room = self.lookups.len() < IN_FLIGHT;
            tokio::select! {
                Some(done) = self.lookups.join_next() => {
                    // What deserves no reply has none, and neither has a lookup whose worker has
                    // ended; the connection goes on without it.
                    if let Ok(Some(reply)) = done && self.answer(&reply.bytes).await.is_break() {
                        return;
                    }
                }
                read = self.stream.read_buf(&mut self.unread), if reading && has_room => {
                    if matches!(read, Ok(0) | Err(_)) {
                        reading = false;
                    }
                }
                () = sleep_until(self.idle_until), if self.lookups.is_empty() => return,
                () = &mut lingered, if reading => reading = false,
            }
            if self.start_lookups().is_break() {
                return;
            }
        }
    }

    /// Starts a lookup for each whole message that was read, as long as there is room.
    fn start_lookups(&mut self) -> ControlFlow<()> {
        while self.lookups.len() < IN_FLIGHT
            && let Some(packet) = tcp_framing::pop(&mut self.unread)
        {
            if packet.is_empty() {
                return ControlFlow::Break(());
            }
            self.start_lookup(packet);
        }
        ControlFlow::Continue(())
    }

    fn start_lookup(&mut self, packet: Bytes) {
        let client = Client {
            source: self.source,
            target: self.target,
            transport: Transport::Tcp,
            received: Instant::now().into_std(),
        };
        self.stay();
        let permit = self.service.lookups.take(self.source.ip());
        let (reply, replied) = oneshot::channel();
        self.worker.post(WorkerMessage::Query(Box::new(ConnectionQuery {
            client,
            packet,
            permit: permit.map_err(DiscardReason::from),
            reply,
        })));
        self.lookups.spawn(async move { replied.await.ok() });
    }

    /// Writes a reply. A client that reads nothing for as long as it may be idle is disconnected.
    async fn answer(&mut self, reply: &[u8]) -> ControlFlow<()> {
        let mut framed = Vec::with_capacity(2 + reply.len());
        tcp_framing::push(&mut framed, reply);
        let patience = self.service.config.tcp_idle;
        match timeout(patience, self.stream.write_all(&framed)).await {
            Ok(Ok(())) => {
                self.stay();
                ControlFlow::Continue(())
            }
            Ok(Err(_)) | Err(_) => ControlFlow::Break(()),
        }
    }

    fn stay(&mut self) {
        self.idle_until = Instant::now() + self.service.config.tcp_idle;
    }
}
