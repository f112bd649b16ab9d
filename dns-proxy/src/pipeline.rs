//! One lookup, from bytes to bytes.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use crate::gate::{Asked, Denial, Discard, Event, Gate, Lesson, NotAdmitted, Rcode, Screening, Transport};
use crate::message::{Query, Unreadable};
use crate::reply::{ErrorCode, ExtendedError, Reply};
use crate::server::ServerConfig;
use crate::upstream::{self, Failure};

/// What every lookup needs.
pub(crate) struct Pipeline<G> {
    pub(crate) gate: Arc<G>,
    pub(crate) config: ServerConfig,
}

/// Who sent a query, and how it came here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    pub(crate) source: SocketAddr,
    pub(crate) asked: Asked,
    pub(crate) transport: Transport,
    /// When the query was received.
    pub(crate) received: Instant,
}

impl<G: Gate> Pipeline<G> {
    /// The whole way of one lookup. Nothing is returned for what must not be answered.
    ///
    /// Only the upstream and the commit are waited for, and both together no longer than
    /// [`ServerConfig::lookup_timeout`].
    pub(crate) async fn lookup(&self, client: Client, packet: &[u8]) -> Option<Reply> {
        let query = match self.parse(packet) {
            Ok(query) => query,
            Err(reply) => return reply,
        };
        let (identity, upstreams) = match self.screen(&client, &query) {
            Ok(forward) => forward,
            Err(reply) => return Some(reply),
        };
        let deadline = client.received + self.config.lookup_timeout;
        let asking = upstream::Asking {
            gate: &*self.gate,
            query: &query,
            transport: client.transport,
            patience: self.config.upstream_timeout,
            deadline,
        };
        let (held, lesson) = match asking.resolve(&upstreams).await {
            Ok(answer) => answer,
            Err(failure) => return Some(no_answer(&query, &failure)),
        };
        match self.commit(&identity, lesson, deadline).await {
            Ok(proof) => Some(held.release::<G>(&query, client.transport, proof)),
            Err(reason) => Some(not_committed(&query, reason)),
        }
    }

    /// What is said to a query that met a limit. It costs no more than reading it.
    pub(crate) fn overloaded(&self, packet: &[u8], limit: Discard) -> Option<Reply> {
        self.gate.observe(Event::Discarded(limit));
        let query = match self.parse(packet) {
            Ok(query) => query,
            Err(reply) => return reply,
        };
        let text = match limit {
            Discard::ClientLimit => "too many lookups of this client in flight",
            _ => "too many lookups in flight",
        };
        Some(refuse(&query, Rcode::Refused, ErrorCode::Other, text))
    }

    /// Counts a reply that was sent.
    pub(crate) fn sent(&self, client: &Client, reply: &Reply) {
        self.gate.observe(Event::Reply {
            transport: client.transport,
            rcode: reply.rcode(),
            took: client.received.elapsed(),
        });
    }

    fn parse<'p>(&self, packet: &'p [u8]) -> Result<Query<'p>, Option<Reply>> {
        Query::read(packet).map_err(|unreadable| match unreadable {
            Unreadable::NotAQuery => {
                self.gate.observe(Event::Discarded(Discard::NotAQuery));
                None
            }
            Unreadable::Answer(rcode, header) => Some(Reply::to_unreadable(header, rcode)),
        })
    }

    fn screen(&self, client: &Client, query: &Query<'_>) -> Result<(G::Identity, Arc<[SocketAddr]>), Reply> {
        let screened = if query.is_zone_transfer() {
            let text = "zone transfers are not forwarded";
            Err(refuse(query, Rcode::Refused, ErrorCode::NotSupported, text))
        } else {
            match self.gate.screen(client.source.ip(), client.asked, query.question()) {
                Screening::Forward { identity, upstreams } => Ok((identity, upstreams)),
                Screening::Refuse(Denial { rcode, reason }) => Err(refuse(query, rcode, ErrorCode::Blocked, reason)),
            }
        };
        self.gate.observe(Event::Query {
            transport: client.transport,
            question: query.question(),
            forwarded: screened.is_ok(),
        });
        screened
    }

    async fn commit(&self, identity: &G::Identity, lesson: Lesson, deadline: Instant) -> Result<G::Proof, NotAdmitted> {
        let began = Instant::now();
        let opens_something = !lesson.addresses.is_empty();
        let outcome = match timeout_at(deadline, self.gate.admit(identity, lesson)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(NotAdmitted {
                reason: "the kernel did not take the addresses in time".into(),
            }),
        };
        if opens_something {
            self.gate.observe(Event::CommitWait {
                took: began.elapsed(),
                committed: outcome.is_ok(),
            });
        }
        outcome
    }
}

/// The upstreams failed: the one place where failures become codes.
fn no_answer(query: &Query<'_>, failure: &Failure) -> Reply {
    let code = match failure {
        Failure::NoUpstream | Failure::TimedOut { .. } => ErrorCode::NoReachableAuthority,
        Failure::Unreachable { .. } => ErrorCode::NetworkError,
        Failure::Bogus { .. } => ErrorCode::Other,
    };
    refuse(query, Rcode::ServFail, code, failure.to_string())
}

fn not_committed(query: &Query<'_>, NotAdmitted { reason }: NotAdmitted) -> Reply {
    refuse(query, Rcode::ServFail, ErrorCode::Other, reason)
}

fn refuse(query: &Query<'_>, rcode: Rcode, code: ErrorCode, text: impl Into<String>) -> Reply {
    let error = ExtendedError {
        code,
        text: text.into(),
    };
    Reply::without_answer(query, rcode, Some(&error))
}
