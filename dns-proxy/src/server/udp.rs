//! Lookups over UDP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::control::LocalAddress;
use super::limits::Full;
use super::socket::{self, Datagram};
use super::tproxy::AnswerSockets;
use super::{Listener, ListenerKind, Service};
use crate::gate::{Asked, Discard, Gate, Transport};
use crate::pipeline::Client;
use crate::reply::Reply;

/// Datagrams taken before other tasks get a turn.
const BATCH: usize = 64;

/// The largest datagram.
const MAX_PAYLOAD: usize = 65_535;

/// Pause after an error of the socket itself, which may last (no memory).
const PAUSE: Duration = Duration::from_millis(10);

/// A bound socket and what its datagrams mean.
pub(super) struct UdpListener {
    listener: Listener,
    socket: Arc<UdpSocket>,
    answer_sockets: Arc<AnswerSockets>,
}

impl UdpListener {
    pub(super) fn bind(listener: Listener) -> io::Result<Self> {
        let transparent = listener.kind == ListenerKind::Tproxy;
        Ok(Self {
            listener,
            socket: Arc::new(socket::bind(listener.address, transparent)?),
            answer_sockets: Arc::new(AnswerSockets::new()),
        })
    }
}

/// Takes lookups until asked to stop, then answers those that are in flight.
pub(super) async fn serve<G: Gate>(udp: UdpListener, service: Arc<Service<G>>, mut stopped: watch::Receiver<()>) {
    let mut buffer = vec![0; MAX_PAYLOAD];
    let mut lookups = JoinSet::new();
    loop {
        tokio::select! {
            ready = udp.socket.readable() => {
                if ready.is_err() {
                    tokio::time::sleep(PAUSE).await;
                }
            }
            () = super::ended(&mut stopped) => break,
        }
        match udp.take_batch(&mut buffer, &service, &mut lookups, BATCH).await {
            Ok(BATCH) => tokio::task::yield_now().await,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(listener = %udp.listener.address, %error, "receiving lookups failed; going on");
                tokio::time::sleep(PAUSE).await;
            }
        }
        while lookups.try_join_next().is_some() {}
    }
    // Another process, or another socket of ours, may listen on the same address: new lookups go there from here on,
    // and what is queued here already is still ours.
    match socket::take_no_more(&*udp.socket, udp.listener.address) {
        Ok(()) => {
            let _ = udp.take_batch(&mut buffer, &service, &mut lookups, usize::MAX).await;
        }
        Err(error) => tracing::warn!(listener = %udp.listener.address, %error, "ends without emptying its queue"),
    }
    while lookups.join_next().await.is_some() {}
}

impl UdpListener {
    /// Starts a lookup for each datagram that is there, up to `most`, and says how many there were.
    async fn take_batch<G: Gate>(
        &self,
        buffer: &mut [u8],
        service: &Arc<Service<G>>,
        lookups: &mut JoinSet<()>,
        most: usize,
    ) -> io::Result<usize> {
        for taken in 0..most {
            match socket::try_receive(&self.socket, buffer) {
                Ok(datagram) => self.take(datagram, buffer, service, lookups).await,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(taken),
                Err(error) => return Err(error),
            }
        }
        Ok(most)
    }

    async fn take<G: Gate>(
        &self,
        datagram: Datagram,
        buffer: &[u8],
        service: &Arc<Service<G>>,
        lookups: &mut JoinSet<()>,
    ) {
        let packet = &buffer[..datagram.length];
        let Some((client, way_back)) = self.client(&datagram) else {
            tracing::debug!(source = %datagram.source, "a datagram without its original destination was discarded");
            return;
        };
        match service.lookups.take(client.source.ip()) {
            Ok(permit) => {
                let (service, packet) = (service.clone(), packet.to_vec());
                lookups.spawn(async move {
                    if let Some(reply) = service.pipeline.lookup(client, &packet).await {
                        way_back.send(&reply, &client, &service).await;
                    }
                    drop(permit);
                });
            }
            Err(full) => {
                if let Some(reply) = service.pipeline.overloaded(packet, full.into()) {
                    way_back.send(&reply, &client, service).await;
                }
            }
        }
    }

    /// Who asked whom, and how the answer gets there.
    fn client(&self, datagram: &Datagram) -> Option<(Client, WayBack)> {
        let (asked, way_back) = match self.listener.kind {
            ListenerKind::Dnat(resolver) => (Asked::Resolver(resolver), self.by_listening_socket(datagram)),
            ListenerKind::Plain => (Asked::Us, self.by_listening_socket(datagram)),
            ListenerKind::Tproxy => {
                let resolver = datagram.received.original_destination?;
                let way_back = WayBack::As(resolver, self.answer_sockets.clone());
                (Asked::Resolver(resolver), way_back)
            }
        };
        let client = Client {
            source: datagram.source,
            asked,
            transport: Transport::Udp,
            received: Instant::now(),
        };
        Some((client, way_back))
    }

    fn by_listening_socket(&self, datagram: &Datagram) -> WayBack {
        WayBack::Listening(self.socket.clone(), datagram.received.local)
    }
}

/// How an answer leaves.
enum WayBack {
    /// From the socket that the query came to; under a wildcard, from the address that was asked. Under dnat, conntrack
    /// puts the resolver's address back.
    Listening(Arc<UdpSocket>, Option<LocalAddress>),
    /// As the resolver that was asked.
    As(SocketAddr, Arc<AnswerSockets>),
}

impl WayBack {
    async fn send<G: Gate>(&self, reply: &Reply, client: &Client, service: &Service<G>) {
        let (bytes, to) = (reply.as_bytes(), client.source);
        let outcome = match self {
            Self::Listening(socket, from) => socket::send(socket, bytes, to, *from).await,
            Self::As(resolver, sockets) => match sockets.answering_as(*resolver) {
                Ok(socket) => socket::send(&socket, bytes, to, None).await,
                Err(error) => Err(error),
            },
        };
        match outcome {
            Ok(_) => service.pipeline.sent(client, reply),
            // A client can bring this about (port 0, an address without a way back), so it may not fill the log.
            Err(error) => tracing::debug!(client = %to, asked = ?client.asked, %error, "an answer could not be sent"),
        }
    }
}

impl From<Full> for Discard {
    fn from(full: Full) -> Self {
        match full {
            Full::Client => Self::ClientLimit,
            Full::Total => Self::TotalLimit,
        }
    }
}
