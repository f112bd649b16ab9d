//! The UDP sockets from which a worker asks upstreams.
//!
//! An answer is accepted only at the right port under the right id (RFC 5452 §9.2), and both are
//! random for each query. The port is that of a socket drawn from a pool; the kernel drew the
//! pool's ports (Linux since 2.6.24: at random from `ip_local_port_range`, for a connect(2) without
//! a bind(2)). No port is used for longer than [`LIFE`], and a port that receives guesses is left
//! at once. The sockets are connected, so they receive from their upstream's address alone.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rand::RngExt;
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use socket2::{Domain, Protocol, Socket, Type};

use super::mmsg::{SendBuffers, SendQueue};
use crate::lookup_key::LookupKey;
use crate::lookups::SentQuery;

/// How many ports one upstream is asked from at a time.
const POOL: usize = 16;

/// How long queries leave from one port.
const LIFE: Duration = Duration::from_secs(5);

/// After so long without a query, the ports to an upstream are closed.
const IDLE: Duration = LIFE.saturating_mul(2);

/// After so many stray answers a socket is left: somebody guesses ids.
const STRAYS: u32 = 32;

/// Queries in flight on one socket. Ids stay unpredictable while few of the 65,536 are taken.
const IN_FLIGHT: usize = 8_192;

/// A burst of answers: some thousand.
const RECEIVE_BUFFER: usize = 4 << 20;

/// All pools of a worker.
pub(super) struct UpstreamSockets {
    pools: HashMap<SocketAddr, PortPool>,
    sockets: Vec<Option<UpstreamSocket>>,
    /// Places in `sockets` that are free.
    free: Vec<u32>,
    /// Sockets with something to send.
    unsent: Vec<u32>,
    /// When a socket was last drawn.
    drawn: Option<Instant>,
}

/// The ports of one upstream.
struct PortPool {
    sockets: [Option<u32>; POOL],
    /// Drawn for this batch, so that its queries leave in one system call.
    drawn: Option<usize>,
    used: Instant,
}

/// One socket, and so one source port, towards an upstream.
pub(super) struct UpstreamSocket {
    socket: Socket,
    pub(super) server: SocketAddr,
    opened: Instant,
    strays: u32,
    /// No query leaves from it any more; it ends when nothing is in flight.
    retired: bool,
    in_flight: HashMap<u16, LookupKey, BuildHasherDefault<IdHasher>>,
    queue: SendQueue,
}

impl UpstreamSockets {
    pub(super) fn new() -> Self {
        Self {
            pools: HashMap::new(),
            sockets: Vec::new(),
            free: Vec::new(),
            unsent: Vec::new(),
            drawn: None,
        }
    }

    /// Puts a query into the batch. `opened` is told of a socket that is new.
    pub(super) fn ask(
        &mut self,
        now: Instant,
        server: SocketAddr,
        lookup: LookupKey,
        query: &[u8],
        opened: impl FnOnce(u32, BorrowedFd<'_>) -> io::Result<()>,
    ) -> io::Result<SentQuery> {
        let index = self.draw(now, server, opened)?;
        // Drawn from those that are open.
        let socket = self.sockets[index as usize].as_mut().ok_or(io::ErrorKind::NotFound)?;
        let mut random = rand::rng();
        let id = loop {
            let id = random.random();
            if !socket.in_flight.contains_key(&id) {
                break id;
            }
        };
        socket.in_flight.insert(id, lookup);
        if socket.queue.is_empty() {
            self.unsent.push(index);
        }
        socket.queue.push_under_id(id, query);
        Ok(SentQuery { socket: index, id })
    }

    /// When none of the sockets that are open is of use any more, if no query comes until then.
    pub(super) fn idle_from(&self) -> Option<Instant> {
        let is_open = self.sockets.len() > self.free.len();
        self.drawn.filter(|_| is_open).map(|drawn| drawn + IDLE)
    }

    /// Whose answer may come under `id`.
    pub(super) fn lookup(&self, socket: u32, id: u16) -> Option<LookupKey> {
        self.get(socket)?.in_flight.get(&id).copied()
    }

    pub(super) fn forget(&mut self, sent: SentQuery) {
        if let Some(socket) = self.get_mut(sent.socket) {
            socket.in_flight.remove(&sent.id);
        }
    }

    pub(super) fn get(&self, socket: u32) -> Option<&UpstreamSocket> {
        self.sockets.get(socket as usize)?.as_ref()
    }

    /// Notes an answer that nobody waits for.
    pub(super) fn stray(&mut self, socket: u32) {
        if let Some(socket) = self.get_mut(socket) {
            socket.strays += 1;
        }
    }

    /// Takes out the lookups that wait on a socket whose upstream cannot be reached, but for those
    /// whose query has not left yet.
    pub(super) fn give_up(&mut self, socket: u32) -> Vec<LookupKey> {
        let Some(socket) = self.get_mut(socket) else {
            return Vec::new();
        };
        let mut waiting = std::mem::take(&mut socket.in_flight);
        for index in 0..socket.queue.len() {
            if let Some((id, key)) = id_of(socket.queue.payload(index)).and_then(|id| waiting.remove_entry(&id)) {
                socket.in_flight.insert(id, key);
            }
        }
        waiting.into_values().collect()
    }

    /// Sends the batch, and has the next one leave from other ports. `failed` is told of queries
    /// that cannot be sent, and of those sent before whose upstream cannot be reached.
    pub(super) fn flush(&mut self, space: &mut SendBuffers, mut failed: impl FnMut(LookupKey, io::Error)) {
        let mut unsent = std::mem::take(&mut self.unsent);
        for index in unsent.drain(..) {
            self.send(index, space, &mut failed);
        }
        // Its memory is used again.
        self.unsent = unsent;
        for pool in self.pools.values_mut() {
            pool.drawn = None;
        }
    }

    fn send(&mut self, index: u32, space: &mut SendBuffers, failed: &mut impl FnMut(LookupKey, io::Error)) {
        let Some(socket) = self.sockets.get_mut(index as usize).and_then(Option::as_mut) else {
            return;
        };
        socket.queue.sort();
        let mut sent = 0;
        while sent < socket.queue.len() {
            match socket.queue.send(sent, socket.socket.as_fd(), space) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    // An ICMP error that an earlier query brought: it is told once, and does not
                    // concern this one.
                    let unsent = (sent..socket.queue.len()).filter_map(|index| id_of(socket.queue.payload(index)));
                    let unsent: Vec<u16> = unsent.collect();
                    let refused: Vec<u16> = socket
                        .in_flight
                        .keys()
                        .copied()
                        .filter(|id| !unsent.contains(id))
                        .collect();
                    for id in refused {
                        if let Some(key) = socket.in_flight.remove(&id) {
                            failed(key, io::ErrorKind::ConnectionRefused.into());
                        }
                    }
                }
                Err(error) => {
                    let id = id_of(socket.queue.payload(sent));
                    if let Some(key) = id.and_then(|id| socket.in_flight.remove(&id)) {
                        failed(key, error);
                    }
                    sent += 1;
                }
            }
        }
        socket.queue.clear();
    }

    /// Closes sockets that are no longer of use.
    pub(super) fn tidy(&mut self, now: Instant) {
        let sockets = &mut self.sockets;
        self.pools.retain(|_, pool| {
            let idle = now.saturating_duration_since(pool.used) >= IDLE;
            for place in &mut pool.sockets {
                if let Some(socket) = place.and_then(|index| sockets[index as usize].as_mut())
                    && (idle || socket.is_worn(now))
                {
                    socket.retired = true;
                    *place = None;
                }
            }
            !idle
        });
        for (index, place) in (0..).zip(&mut self.sockets) {
            if place
                .as_ref()
                .is_some_and(|it| it.retired && it.in_flight.is_empty() && it.queue.is_empty())
            {
                *place = None;
                self.free.push(index);
            }
        }
    }

    /// A socket to ask from.
    fn draw(
        &mut self,
        now: Instant,
        server: SocketAddr,
        opened: impl FnOnce(u32, BorrowedFd<'_>) -> io::Result<()>,
    ) -> io::Result<u32> {
        let pool = self.pools.entry(server).or_insert_with(|| PortPool {
            sockets: [None; POOL],
            drawn: None,
            used: now,
        });
        pool.used = now;
        self.drawn = Some(now);
        let place = match pool.drawn {
            Some(place) => place,
            None => *pool.drawn.insert(rand::rng().random_range(0..POOL)),
        };
        if let Some(index) = pool.sockets[place] {
            match self.sockets[index as usize].as_mut() {
                Some(socket) if !socket.is_worn(now) => {
                    if socket.in_flight.len() >= IN_FLIGHT {
                        pool.drawn = None;
                    }
                    return Ok(index);
                }
                Some(socket) => socket.retired = true,
                None => {}
            }
        }
        let socket = UpstreamSocket::open(now, server)?;
        let index = self.free.last().copied().unwrap_or(self.sockets.len() as u32);
        opened(index, socket.socket.as_fd())?;
        if self.free.pop().is_none() {
            self.sockets.push(None);
        }
        self.sockets[index as usize] = Some(socket);
        pool.sockets[place] = Some(index);
        Ok(index)
    }

    fn get_mut(&mut self, socket: u32) -> Option<&mut UpstreamSocket> {
        self.sockets.get_mut(socket as usize)?.as_mut()
    }
}

impl UpstreamSocket {
    fn open(now: Instant, server: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(server),
            Type::DGRAM.nonblocking(),
            Some(Protocol::UDP),
        )?;
        // Less than asked is no reason not to ask.
        let _ = set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)
            .map_err(io::Error::from)
            .or_else(|_| socket.set_recv_buffer_size(RECEIVE_BUFFER));
        socket.connect(&server.into())?;
        Ok(Self {
            socket,
            server,
            opened: now,
            strays: 0,
            retired: false,
            in_flight: HashMap::default(),
            queue: SendQueue::default(),
        })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether queries should leave from another port.
    fn is_worn(&self, now: Instant) -> bool {
        self.strays >= STRAYS || now.saturating_duration_since(self.opened) > LIFE
    }
}

/// The id of a message.
pub(super) fn id_of(message: &[u8]) -> Option<u16> {
    message.first_chunk().copied().map(u16::from_be_bytes)
}

/// Ids are random, and drawn by us: they need no hash.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0 << 8 | u64::from(byte);
        }
    }

    fn write_u16(&mut self, id: u16) {
        // hashbrown takes its tag from the highest bits.
        self.0 = u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn ask(upstreams: &mut UpstreamSockets, now: Instant, server: SocketAddr) -> SentQuery {
        let lookup = LookupKey::of_test(0);
        upstreams.ask(now, server, lookup, &[0; 12], |_, _| Ok(())).unwrap()
    }

    fn ports(resolver: &UdpSocket, upstreams: &mut UpstreamSockets, batches: usize, now: Instant) -> Vec<u16> {
        let server = resolver.local_addr().unwrap();
        let mut space = SendBuffers::new();
        (0..batches)
            .map(|_| {
                let sent = ask(upstreams, now, server);
                upstreams.flush(&mut space, |_, error| panic!("{error}"));
                let mut packet = [0; 64];
                let (_, source) = resolver.recv_from(&mut packet).unwrap();
                assert_eq!(id_of(&packet), Some(sent.id));
                upstreams.forget(sent);
                source.port()
            })
            .collect()
    }

    #[test]
    fn queries_leave_from_a_pool_of_ports_that_is_replaced_after_a_while() {
        let resolver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut upstreams = UpstreamSockets::new();
        let now = Instant::now();
        let distinct = |mut ports: Vec<u16>| {
            ports.sort_unstable();
            ports.dedup();
            ports
        };
        let before = distinct(ports(&resolver, &mut upstreams, 300, now));
        assert_eq!(before.len(), POOL);
        let later = now + LIFE + Duration::from_millis(1);
        let after = distinct(ports(&resolver, &mut upstreams, 300, later));
        assert_eq!(after.len(), POOL);
        assert!(after.iter().filter(|port| before.contains(port)).count() <= 1);
        upstreams.tidy(later);
        assert_eq!(upstreams.sockets.iter().flatten().count(), POOL);
        assert_eq!(upstreams.idle_from(), Some(later + IDLE));
        upstreams.tidy(later + IDLE);
        assert_eq!(upstreams.idle_from(), None, "nothing is open");
        assert_eq!(upstreams.sockets.iter().flatten().count(), 0);
        assert!(upstreams.pools.is_empty());
    }

    #[test]
    fn a_port_that_is_guessed_at_is_left() {
        let resolver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = resolver.local_addr().unwrap();
        let mut upstreams = UpstreamSockets::new();
        let now = Instant::now();
        let first = ask(&mut upstreams, now, server);
        for _ in 0..STRAYS {
            upstreams.stray(first.socket);
        }
        // The same batch, so the same place in the pool.
        let second = ask(&mut upstreams, now, server);
        assert_ne!(first.socket, second.socket);
        assert_eq!(
            upstreams.lookup(first.socket, first.id),
            Some(LookupKey::of_test(0)),
            "it still waits there"
        );
    }

    #[test]
    fn ids_in_flight_on_one_socket_differ() {
        let resolver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut upstreams = UpstreamSockets::new();
        let now = Instant::now();
        let sent: Vec<SentQuery> = (0..3_000)
            .map(|_| ask(&mut upstreams, now, resolver.local_addr().unwrap()))
            .collect();
        let mut ids: Vec<u16> = sent.iter().map(|sent| sent.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 3_000);
        assert!(
            sent.iter().all(|it| it.socket == sent[0].socket),
            "one batch, one socket"
        );
    }
}
