//! The lookups of one worker without its sockets, for benchmarks and for counting instructions.
//! Nothing of the agent uses it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::cookie::Cookies;
use crate::flights::Flights;
use crate::gate::{Gate, QueryTarget, Transport};
use crate::lookups::{Key, Lookups, Outlet, Sent, Shared};
use crate::reply::Reply;
use crate::server::ServerConfig;
use crate::server::limits::Quota;
use crate::stages::Client;
use crate::worker::mailbox::{Letter, Mailbox};

/// A worker that is handed packets and keeps what it would send.
pub struct Rehearsal<G: Gate> {
    lookups: Lookups<G, ()>,
    mailbox: Arc<Mailbox<G::Proof>>,
    letters: Vec<Letter<G::Proof>>,
    sent: Kept,
    now: Instant,
}

/// What was sent last.
#[derive(Default)]
struct Kept {
    asked: Option<(Key, Sent)>,
    reply: Vec<u8>,
}

impl<G: Gate> Rehearsal<G> {
    /// A worker with nothing in flight.
    pub fn new(gate: Arc<G>, config: ServerConfig) -> io::Result<Self> {
        let now = Instant::now();
        let shared = Shared {
            quota: Quota::new(config.in_flight_per_client, config.in_flight_total),
            flights: Flights::new(),
            health: Arc::default(),
            cookies: Arc::new(Cookies::new()),
        };
        let mailbox = Arc::new(Mailbox::new()?);
        Ok(Self {
            lookups: Lookups::new(gate, config, shared, Arc::clone(&mailbox), now),
            mailbox,
            letters: Vec::new(),
            sent: Kept::default(),
            now,
        })
    }

    /// The whole way of one lookup, the gate's time included. `answer` is what the upstream says if
    /// it is asked; its id is replaced. What the client gets is returned: nothing if the gate takes
    /// longer than a second.
    pub fn lookup(&mut self, client: SocketAddr, query: &[u8], answer: &mut [u8]) -> &[u8] {
        self.sent.asked = None;
        self.sent.reply.clear();
        let client = Client {
            source: client,
            target: QueryTarget::Proxy,
            transport: Transport::Udp,
            received: self.now,
        };
        self.lookups.receive(self.now, client, (), query, &mut self.sent);
        if let Some((key, sent)) = self.sent.asked.take()
            && let Some(id) = answer.first_chunk_mut()
        {
            *id = sent.id.to_be_bytes();
            self.lookups.answered(self.now, key, sent.id, answer, &mut self.sent);
        }
        self.lookups.flush();
        if self.sent.reply.is_empty() {
            self.wait_for_the_gate();
        }
        &self.sent.reply
    }

    fn wait_for_the_gate(&mut self) {
        if self.mailbox.may_sleep() {
            let second = Timespec { tv_sec: 1, tv_nsec: 0 };
            let mut bell = [PollFd::from_borrowed_fd(self.mailbox.bell(), PollFlags::IN)];
            // Whether it was rung or not: what came is in the box.
            let _ = poll(&mut bell, Some(&second));
            self.mailbox.silence();
        }
        self.mailbox.collect(&mut self.letters);
        for letter in self.letters.drain(..) {
            if let Letter::Settled(key, outcome) = letter {
                self.lookups.settled(self.now, key, outcome, &mut self.sent);
            }
        }
    }
}

impl Outlet<()> for Kept {
    fn ask(&mut self, _: Instant, _: SocketAddr, lookup: Key, _: &[u8]) -> io::Result<Sent> {
        let sent = Sent { socket: 0, id: 4_711 };
        self.asked = Some((lookup, sent));
        Ok(sent)
    }

    fn forget(&mut self, _: Sent) {}

    fn ask_by_tcp(&mut self, _: SocketAddr, _: IpAddr, _: Key, _: &[u8], _: Instant) {}

    fn owe(&mut self, (): &()) {}

    fn owe_no_more(&mut self, (): &()) {}

    fn reply(&mut self, (): &(), _: SocketAddr, reply: &Reply<'_>) {
        self.reply.extend_from_slice(reply.as_bytes());
    }
}
