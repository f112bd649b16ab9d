//! A worker: a thread that serves lookups and shares nothing on its way with the others.
//!
//! It has its own socket on every address that is listened on, its own sockets to every upstream,
//! and its own [`Lookups`]. It sleeps in one place, `epoll_wait`; then it receives what has come in
//! batches, works it off, and sends the results in batches. What needs an async runtime
//! (connections) runs as tokio tasks: those of clients post the queries that they have read as a
//! [`WorkerMessage`], those to upstreams the answers.

use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::ops::{ControlFlow, Range};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll;
use tokio::runtime::Handle;

use self::alarm::Alarm;
use self::busy_poll::BusyPoll;
use self::connection_replies::{ConnectionQuery, ConnectionReplies};
use self::mailbox::{Mailbox, MailboxOwner, WorkerMessage};
use self::mmsg::{ReceiveBatch, SendBuffers};
use self::tproxy::SpoofingSockets;
use self::udp_listener::{ReplyPath, UdpListener};
use self::upstream_sockets::{UpstreamSockets, id_of};
use crate::client_query::Query;
use crate::config::ServerConfig;
use crate::gate::Gate;
use crate::listener::Listener;
use crate::lookup_key::LookupKey;
use crate::lookups::{LookupOutput, Lookups, SentQuery, SharedLookupState};
use crate::question::Transport;
use crate::reply::ClientReply;
use crate::stages::Client;
use crate::upstream::pool::ConnectionPool;

mod alarm;
mod busy_poll;
pub(crate) mod connection_replies;
mod control;
pub(crate) mod mailbox;
mod mmsg;
pub(crate) mod socket;
mod sys;
mod tproxy;
pub(crate) mod udp_listener;
mod upstream_sockets;

/// Datagrams received with one system call.
const BATCH: usize = 64;

/// Batches received from one socket before the other sockets have their turn.
const BATCHES_PER_TURN: usize = 4;

/// The longest query over UDP. A longer one is fragmented on most links, so its client is told to
/// come by TCP.
const MAX_QUERY: usize = 1_232;

/// The longest datagram.
const MAX_ANSWER: usize = 65_535;

/// A turn with so many datagrams is a burst: pause for [`GATHER`] so that the next batch is larger.
/// After a whole batch the next one waits in the socket already.
const BURST: Range<usize> = 8..BATCH;

/// How long an only worker lets a burst grow. Sending is most of what a lookup costs, and replies
/// to one client leave as one, so a larger batch costs less for each lookup. Outside of bursts
/// nobody waits.
const GATHER: Duration = Duration::from_micros(50);

/// The most workers that wait for a batch as large as that of an only one.
const GATHERING: usize = 4;

/// How often sockets that are no longer needed are closed.
const TIDY_INTERVAL: Duration = Duration::from_secs(1);

/// How long to pause after an error of a listening socket itself, which may last (no memory).
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// How long to pause after a turn in which a worker took so many datagrams. The kernel spreads
/// clients over the workers, so that each of N gets its Nth part of a burst: it waits N times as
/// long, for a batch that costs as little.
fn gather_pause(taken: usize, workers: usize) -> Option<Duration> {
    BURST
        .contains(&taken)
        .then(|| GATHER * workers.clamp(1, GATHERING) as u32)
}

/// Starts a worker in the network namespace of the calling thread. It ends with the message
/// [`WorkerMessage::Stop`].
pub(crate) fn start<G: Gate>(
    gate: Arc<G>,
    config: ServerConfig,
    shared: SharedLookupState,
    pool: Arc<ConnectionPool>,
    tasks: Handle,
) -> io::Result<Arc<Mailbox<G::Proof>>> {
    let mailbox = Arc::new(Mailbox::new()?);
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let token = epoll::EventData::new_u64(PollToken::Mailbox.into());
    epoll::add(&poll, mailbox.wakeup(), token, epoll::EventFlags::IN)?;
    let alarm = Alarm::new()?;
    watch(&poll, alarm.as_fd(), PollToken::Alarm)?;
    let now = Instant::now();
    let workers = config.workers;
    let worker = UdpWorker {
        lookups: Lookups::new(gate, config, shared, &mailbox, now),
        sockets: WorkerSockets {
            poll,
            listening: Vec::new(),
            answering: SpoofingSockets::new(),
            connections: ConnectionReplies::default(),
            upstreams: UpstreamSockets::new(),
            space: SendBuffers::new(),
            pool,
            tasks,
            mailbox: Arc::clone(&mailbox),
        },
        queries: ReceiveBatch::new(BATCH, MAX_QUERY),
        answers: ReceiveBatch::new(BATCH, MAX_ANSWER),
        messages: Vec::new(),
        taken: 0,
        workers,
        busy_poll: BusyPoll::default(),
        alarm,
        tidied: now,
    };
    thread::Builder::new().name("dns-worker".to_owned()).spawn(move || {
        // Also when it panics.
        let _owner = MailboxOwner(Arc::clone(&worker.sockets.mailbox));
        worker.run();
    })?;
    Ok(mailbox)
}

struct UdpWorker<G: Gate> {
    lookups: Lookups<G, ReplyPath>,
    sockets: WorkerSockets<G::Proof>,
    queries: ReceiveBatch,
    answers: ReceiveBatch,
    messages: Vec<WorkerMessage<G::Proof>>,
    /// Datagrams taken in this turn.
    taken: usize,
    /// How many workers there are, this one included.
    workers: usize,
    busy_poll: BusyPoll,
    alarm: Alarm,
    tidied: Instant,
}

/// Everything that sends.
struct WorkerSockets<P> {
    poll: OwnedFd,
    /// By number; `None`: the number is free.
    listening: Vec<Option<UdpListener>>,
    answering: SpoofingSockets,
    connections: ConnectionReplies,
    upstreams: UpstreamSockets,
    space: SendBuffers,
    pool: Arc<ConnectionPool>,
    tasks: Handle,
    mailbox: Arc<Mailbox<P>>,
}

/// What epoll speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PollToken {
    Mailbox,
    Alarm,
    Listening(u32),
    Upstream(u32),
}

impl<G: Gate> UdpWorker<G> {
    fn run(mut self) {
        // Otherwise the kernel takes as long again for a pause as it is long. Without, they are
        // longer.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let mut events = Vec::with_capacity(256);
        while let ControlFlow::Continue(()) = self.turn(&mut events) {}
    }

    /// Sleeps until there is something to do, and does it.
    fn turn(&mut self, events: &mut Vec<epoll::Event>) -> ControlFlow<()> {
        events.clear();
        let taken = mem::take(&mut self.taken);
        if let Some(pause) = gather_pause(taken, self.workers) {
            thread::sleep(pause);
        }
        if let Err(error) = self.wait(taken, events) {
            tracing::error!(%error, "waiting for lookups failed; going on");
            thread::sleep(ERROR_PAUSE);
        }
        let now = Instant::now();
        self.read_messages(now)?;
        for event in events.iter() {
            match PollToken::from(event.data.u64()) {
                PollToken::Mailbox => self.sockets.mailbox.clear_wakeup(),
                PollToken::Alarm => self.alarm.rang(),
                PollToken::Listening(number) => self.take_queries(now, number, BATCHES_PER_TURN),
                PollToken::Upstream(number) => self.take_answers(now, number),
            }
        }
        self.lookups.expire(now, &mut self.sockets);
        self.lookups.flush();
        // What was admitted at once. Whoever asks to stop has seen that no lookup is in flight, and
        // their replies still lie here.
        let flow = self.read_messages(now);
        self.send(now);
        if now.saturating_duration_since(self.tidied) >= TIDY_INTERVAL {
            self.tidied = now;
            self.sockets.upstreams.tidy(now);
        }
        flow
    }

    /// Sleeps until there is something to do, unless it may come in a moment.
    fn wait(&mut self, taken: usize, events: &mut Vec<epoll::Event>) -> io::Result<()> {
        let mut look = |pause: Option<Timespec>| {
            let found = epoll::wait(
                &self.sockets.poll,
                rustix::buffer::spare_capacity(events),
                pause.as_ref(),
            );
            match found {
                Err(rustix::io::Errno::INTR) => Ok(0),
                found => found,
            }
        };
        let at_once = Some(Timespec::default());
        if !self.sockets.mailbox.prepare_to_sleep() {
            look(at_once)?;
            return Ok(());
        }
        let mut now = Instant::now();
        if let Some(target) = self.busy_poll.poll_target(now, taken, self.lookups.in_flight()) {
            let began = now;
            while now < began + busy_poll::SPIN_TIME {
                for _ in 0..busy_poll::POLLS_PER_YIELD {
                    if look(at_once)? > 0 {
                        self.busy_poll.record(target, began.elapsed(), true);
                        return Ok(());
                    }
                }
                thread::yield_now();
                now = Instant::now();
            }
            self.busy_poll.record(target, now - began, false);
        }
        if let Some(due) = self.due() {
            self.alarm.set(now, due)?;
        }
        look(None)?;
        Ok(())
    }

    /// When there is something to do by itself.
    fn due(&self) -> Option<Instant> {
        let tidy = self
            .sockets
            .upstreams
            .idle_from()
            .map(|idle| idle.max(self.tidied + TIDY_INTERVAL));
        self.lookups.next_deadline().into_iter().chain(tidy).min()
    }

    fn read_messages(&mut self, now: Instant) -> ControlFlow<()> {
        let mut messages = mem::take(&mut self.messages);
        self.sockets.mailbox.take_all(&mut messages);
        for message in messages.drain(..) {
            match message {
                WorkerMessage::AdmissionSettled(lookup, outcome) => {
                    self.lookups.settled(now, lookup, outcome, &mut self.sockets)
                }
                WorkerMessage::ExchangeEnded(lookup, exchanged) => {
                    self.lookups.exchanged(now, lookup, exchanged, &mut self.sockets);
                }
                WorkerMessage::FlightEnded(lookup, landed) => {
                    self.lookups.landed(now, lookup, landed, &mut self.sockets)
                }
                WorkerMessage::Query(query) => self.receive_from_connection(now, *query),
                WorkerMessage::AddListener(listening) => drop(self.sockets.listen(*listening)),
                WorkerMessage::DrainListener(listening) => {
                    if let Some(number) = self.sockets.listen(*listening) {
                        self.end_at(now, number);
                    }
                }
                WorkerMessage::RemoveListener(listener, done) => {
                    self.end(now, listener);
                    let _ = done.send(());
                }
                WorkerMessage::Stop => return ControlFlow::Break(()),
            }
        }
        self.messages = messages;
        ControlFlow::Continue(())
    }

    fn receive_from_connection(&mut self, now: Instant, query: ConnectionQuery) {
        let ConnectionQuery {
            client,
            packet,
            permit,
            reply,
        } = query;
        let (permit, limit) = match permit {
            Ok(permit) => (Some(permit), None),
            Err(limit) => (None, Some(limit)),
        };
        let key = self.sockets.connections.expect(reply, permit);
        let (path, out) = (ReplyPath::Connection(key), &mut self.sockets);
        match limit {
            None => self.lookups.receive(now, client, path, &packet, out),
            Some(limit) => self.lookups.receive_over_limit(now, client, &path, &packet, limit, out),
        }
        self.sockets.connections.handled(key);
    }

    /// Takes the lookups that have come to a listener, at most so many batches.
    fn take_queries(&mut self, now: Instant, number: u32, turns: usize) {
        for _ in 0..turns {
            let Some(listening) = self.sockets.listening_at(number) else {
                return;
            };
            match self.queries.receive(listening.as_fd()) {
                Ok(count) => {
                    self.taken += count;
                    self.busy_poll.came(now, count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::warn!(listener = %listening.listener.address, %error, "receiving lookups failed; going on");
                    return thread::sleep(ERROR_PAUSE);
                }
            }
            for datagram in self.queries.datagrams() {
                let Some(listening) = self.sockets.listening_at(number) else {
                    return;
                };
                let (Some((target, reply_path)), Some(source)) = (listening.way(number, &datagram), datagram.source)
                else {
                    tracing::debug!(source = ?datagram.source, "a datagram without its original destination was discarded");
                    continue;
                };
                let client = Client {
                    source,
                    target,
                    transport: Transport::Udp,
                    received: now,
                };
                let (payload, out) = (datagram.payload, &mut self.sockets);
                match datagram.is_cut {
                    false => self.lookups.receive(now, client, reply_path, payload, out),
                    true => self.lookups.receive_overlong(now, client, &reply_path, payload, out),
                }
            }
            if !self.queries.is_full() {
                return;
            }
        }
    }

    /// Takes the answers that have come from an upstream.
    fn take_answers(&mut self, now: Instant, number: u32) {
        for _ in 0..BATCHES_PER_TURN {
            let Some(socket) = self.sockets.upstreams.get(number) else {
                return;
            };
            let server = socket.server;
            match self.answers.receive(socket.as_fd()) {
                Ok(count) => self.taken += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    // What ICMP says of a query; the socket itself is as good as before.
                    for lookup in self.sockets.upstreams.give_up(number) {
                        let error = io::Error::from(error.kind());
                        self.lookups.unreachable(now, lookup, error, &mut self.sockets);
                    }
                    continue;
                }
            }
            for datagram in self.answers.datagrams() {
                let answer = datagram.payload;
                let belongs = id_of(answer).is_some_and(|id| {
                    let lookup = self.sockets.upstreams.lookup(number, id);
                    lookup.is_some_and(|lookup| self.lookups.answered(now, lookup, id, answer, &mut self.sockets))
                });
                if !belongs {
                    self.sockets.upstreams.stray(number);
                    self.lookups.mismatched(server);
                }
            }
            if !self.answers.is_full() {
                return;
            }
        }
    }

    /// Sends everything. What cannot be sent is asked elsewhere, which is to be sent too.
    fn send(&mut self, now: Instant) {
        let mut failed = Vec::new();
        loop {
            let sockets = &mut self.sockets;
            sockets
                .upstreams
                .flush(&mut sockets.space, |lookup, error| failed.push((lookup, error)));
            if failed.is_empty() {
                break;
            }
            for (lookup, error) in failed.drain(..) {
                self.lookups.unreachable(now, lookup, error, &mut self.sockets);
            }
        }
        self.lookups.flush();
        self.sockets.send_answers();
        self.lookups.replied();
    }

    /// Comes to an end with a listener.
    fn end(&mut self, now: Instant, listener: Listener) {
        let wanted = |it: &Option<UdpListener>| it.as_ref().is_some_and(|it| it.listener == listener && !it.ends);
        let Some(number) = self.sockets.listening.iter().position(wanted) else {
            return;
        };
        self.end_at(now, number as u32);
    }

    fn end_at(&mut self, now: Instant, number: u32) {
        if let Some(listening) = self.sockets.listening_at(number) {
            listening.stop_receiving();
        }
        self.take_queries(now, number, usize::MAX);
        self.sockets.close_if_done(number);
    }
}

impl<P: Send + 'static> WorkerSockets<P> {
    fn listening_at(&mut self, number: u32) -> Option<&mut UdpListener> {
        self.listening.get_mut(number as usize)?.as_mut()
    }

    fn listener_of(&mut self, reply_path: &ReplyPath) -> Option<&mut UdpListener> {
        self.listening_at(reply_path.number()?)
    }

    /// Listens on this socket. Its number is returned.
    fn listen(&mut self, listening: UdpListener) -> Option<u32> {
        let free = self.listening.iter().position(Option::is_none);
        let number = free.unwrap_or_else(|| {
            self.listening.push(None);
            self.listening.len() - 1
        });
        let address = listening.listener.address;
        if let Err(error) = watch(&self.poll, listening.as_fd(), PollToken::Listening(number as u32)) {
            // Out of memory or of watches: the other workers, if any, serve the address alone.
            tracing::error!(listener = %address, %error, "a worker cannot listen");
            return None;
        }
        self.listening[number] = Some(listening);
        Some(number as u32)
    }

    /// Closes the socket of a listener that ends, when it owes no answer any more.
    fn close_if_done(&mut self, number: u32) {
        let is_over = self.listening_at(number).is_some_and(|it| it.ends && it.pending == 0);
        if is_over && let Some(mut listening) = self.listening[number as usize].take() {
            listening.flush(&mut self.space);
        }
    }

    fn send_answers(&mut self) {
        for number in 0..self.listening.len() {
            if let Some(listening) = &mut self.listening[number] {
                listening.flush(&mut self.space);
            }
            self.close_if_done(number as u32);
        }
        self.answering.flush(&mut self.space);
    }
}

impl<P: Send + 'static> LookupOutput<ReplyPath> for WorkerSockets<P> {
    fn send_query(
        &mut self,
        now: Instant,
        server: SocketAddr,
        lookup: LookupKey,
        query: &[u8],
    ) -> io::Result<SentQuery> {
        let opened = |number, socket: BorrowedFd<'_>| watch(&self.poll, socket, PollToken::Upstream(number));
        self.upstreams.ask(now, server, lookup, query, opened)
    }

    fn forget_query(&mut self, sent: SentQuery) {
        self.upstreams.forget(sent);
    }

    fn query_over_connection(
        &mut self,
        server: SocketAddr,
        client: IpAddr,
        lookup: LookupKey,
        query: &[u8],
        until: Instant,
    ) {
        let (mailbox, pool, query) = (Arc::clone(&self.mailbox), Arc::clone(&self.pool), query.to_vec());
        self.tasks.spawn(async move {
            // It was read before.
            if let Ok(query) = Query::read(&query) {
                let exchanged = pool.exchange(server, client, &query, until).await;
                mailbox.post(WorkerMessage::ExchangeEnded(lookup, exchanged));
            }
        });
    }

    fn send_reply(&mut self, reply_path: &ReplyPath, client: SocketAddr, reply: &ClientReply<'_>) {
        match *reply_path {
            ReplyPath::Listening(number, from) => {
                if let Some(listening) = self.listening_at(number) {
                    listening.answer(reply.as_bytes(), client, from);
                }
            }
            ReplyPath::As(_, resolver) => {
                let bytes = reply.as_bytes();
                if let Err(error) = self.answering.answer_as(resolver, bytes, client, &mut self.space) {
                    tracing::debug!(%client, %resolver, %error, "an answer could not be sent");
                }
            }
            ReplyPath::Connection(key) => self.connections.send(key, reply.as_bytes()),
        }
    }

    fn track_pending(&mut self, reply_path: &ReplyPath) {
        if let ReplyPath::Connection(key) = *reply_path {
            self.connections.track_pending(key);
        }
        if let Some(listening) = self.listener_of(reply_path) {
            listening.pending += 1;
        }
    }

    fn untrack_pending(&mut self, reply_path: &ReplyPath) {
        if let Some(listening) = self.listener_of(reply_path) {
            listening.pending = listening.pending.saturating_sub(1);
        }
    }
}

fn watch(poll: &OwnedFd, socket: BorrowedFd<'_>, token: PollToken) -> io::Result<()> {
    let data = epoll::EventData::new_u64(token.into());
    Ok(epoll::add(poll, socket, data, epoll::EventFlags::IN)?)
}

impl From<PollToken> for u64 {
    fn from(token: PollToken) -> u64 {
        match token {
            PollToken::Mailbox => 0,
            PollToken::Listening(number) => 1 << 32 | u64::from(number),
            PollToken::Upstream(number) => 2 << 32 | u64::from(number),
            PollToken::Alarm => 3 << 32,
        }
    }
}

impl From<u64> for PollToken {
    fn from(data: u64) -> Self {
        let number = data as u32;
        match data >> 32 {
            0 => PollToken::Mailbox,
            1 => PollToken::Listening(number),
            2 => PollToken::Upstream(number),
            _ => PollToken::Alarm,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_lets_its_part_of_a_burst_grow_for_as_much_longer() {
        let micros = |taken, workers| gather_pause(taken, workers).map(|pause| pause.as_micros());
        for (workers, longest) in [(1, 50), (2, 100), (4, 200), (64, 200)] {
            assert_eq!(micros(7, workers), None, "{workers} workers: that is no burst");
            assert_eq!(micros(8, workers), Some(longest), "{workers} workers");
            assert_eq!(micros(BATCH - 1, workers), Some(longest), "{workers} workers");
            assert_eq!(
                micros(BATCH, workers),
                None,
                "{workers} workers: the next batch is there"
            );
        }
    }
}
