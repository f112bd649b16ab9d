//! A bench harness: the lookups of one worker without its sockets, for benchmarks and for counting
//! instructions. The agent does not use it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::client_quota::ClientQuota;
use crate::config::ServerConfig;
use crate::cookie::Cookies;
use crate::gate::Gate;
use crate::lookup_key::LookupKey;
use crate::lookups::{LookupOutput, Lookups, SentQuery, SharedLookupState};
use crate::question::{QueryTarget, Transport};
use crate::reply::ClientReply;
use crate::single_flight::SingleFlight;
use crate::stages::Client;
use crate::worker::mailbox::{Mailbox, WorkerMessage};

/// A worker that is handed packets and records what it would send.
pub struct LookupHarness<G: Gate> {
    lookups: Lookups<G, ()>,
    mailbox: Arc<Mailbox<G::Proof>>,
    messages: Vec<WorkerMessage<G::Proof>>,
    sent: HarnessOutput,
    now: Instant,
}

/// What was sent last.
#[derive(Default)]
struct HarnessOutput {
    asked: Option<(LookupKey, SentQuery)>,
    reply: Vec<u8>,
}

impl<G: Gate> LookupHarness<G> {
    /// A worker with nothing in flight.
    pub fn new(gate: Arc<G>, config: ServerConfig) -> io::Result<Self> {
        let now = Instant::now();
        let shared = SharedLookupState {
            quota: ClientQuota::new(config.in_flight_per_client, config.in_flight_total),
            flights: SingleFlight::new(),
            health: Arc::default(),
            cookies: Arc::new(Cookies::new()),
        };
        let mailbox = Arc::new(Mailbox::new()?);
        Ok(Self {
            lookups: Lookups::new(gate, config, shared, &mailbox, now),
            mailbox,
            messages: Vec::new(),
            sent: HarnessOutput::default(),
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
        if self.mailbox.prepare_to_sleep() {
            let second = Timespec { tv_sec: 1, tv_nsec: 0 };
            let mut wakeup = [PollFd::from_borrowed_fd(self.mailbox.wakeup(), PollFlags::IN)];
            // Whether it was rung or not: what came is in the box.
            let _ = poll(&mut wakeup, Some(&second));
            self.mailbox.clear_wakeup();
        }
        self.mailbox.take_all(&mut self.messages);
        for message in self.messages.drain(..) {
            if let WorkerMessage::AdmissionSettled(key, outcome) = message {
                self.lookups.settled(self.now, key, outcome, &mut self.sent);
            }
        }
    }
}

impl LookupOutput<()> for HarnessOutput {
    fn send_query(&mut self, _: Instant, _: SocketAddr, lookup: LookupKey, _: &[u8]) -> io::Result<SentQuery> {
        let sent = SentQuery { socket: 0, id: 4_711 };
        self.asked = Some((lookup, sent));
        Ok(sent)
    }

    fn forget_query(&mut self, _: SentQuery) {}

    fn query_over_connection(&mut self, _: SocketAddr, _: IpAddr, _: LookupKey, _: &[u8], _: Instant) {}

    fn track_pending(&mut self, (): &()) {}

    fn untrack_pending(&mut self, (): &()) {}

    fn send_reply(&mut self, (): &(), _: SocketAddr, reply: &ClientReply<'_>) {
        self.reply.extend_from_slice(reply.as_bytes());
    }
}
