//! Asking resolvers: which, in what order, and for how long.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;
use tokio::time::{Instant, timeout_at};

use crate::gate::{Event, Gate, Lesson, Transport, UpstreamOutcome};
use crate::message::Query;
use crate::reply::Held;
use crate::validate::{Bogus, validate};
use crate::wire::Header;

mod tcp;
mod udp;

/// The upstreams are asked in turn, at most this often each: a lost packet is nobody's fault.
const ROUNDS: usize = 2;

/// One query on its way to upstreams.
pub(crate) struct Asking<'a, G> {
    pub(crate) gate: &'a G,
    pub(crate) query: &'a Query<'a>,
    /// How the client asked, and so how we ask: a client comes by TCP because it expects more than UDP holds.
    pub(crate) transport: Transport,
    /// For one try.
    pub(crate) patience: Duration,
    /// For all tries.
    pub(crate) deadline: Instant,
}

/// Why no upstream gave an answer that can be used; of several failures the last.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    #[error("no upstream is configured")]
    NoUpstream,
    #[error("upstream {server} did not answer in time")]
    TimedOut { server: SocketAddr },
    #[error("upstream {server} cannot be reached: {error}")]
    Unreachable { server: SocketAddr, error: io::Error },
    #[error("upstream {server}: {why}")]
    Bogus { server: SocketAddr, why: Bogus },
}

impl<G: Gate> Asking<'_, G> {
    /// The first usable answer, with what it teaches. An upstream that itself failed (SERVFAIL, REFUSED) is believed
    /// only when no other has anything better to say.
    pub(crate) async fn resolve(&self, upstreams: &[SocketAddr]) -> Result<(Held, Lesson), Failure> {
        let mut failure = Failure::NoUpstream;
        let mut apology = None;
        for _ in 0..ROUNDS {
            for &server in upstreams {
                if Instant::now() >= self.deadline {
                    break;
                }
                let held = match self.ask(server).await {
                    Ok(held) => held,
                    Err(failed) => {
                        failure = failed;
                        continue;
                    }
                };
                match validate(self.query, held.as_bytes(), server) {
                    Ok(lesson) if is_apology(&held) => apology = Some((held, lesson)),
                    Ok(lesson) => return Ok((held, lesson)),
                    Err(why) => failure = Failure::Bogus { server, why },
                }
            }
            if let Some(answer) = apology {
                return Ok(answer);
            }
        }
        Err(failure)
    }

    /// One try at one server.
    async fn ask(&self, server: SocketAddr) -> Result<Held, Failure> {
        if self.transport == Transport::Udp {
            let answer = self.exchange(server, Transport::Udp).await?;
            if !is_truncated(&answer) {
                return Ok(Held::new(answer));
            }
            // There is more than fits. We must learn all of it, whatever the client will take.
        }
        self.exchange(server, Transport::Tcp).await.map(Held::new)
    }

    /// Asks once, under a fresh random id, and waits for the answer that belongs to the question.
    async fn exchange(&self, server: SocketAddr, transport: Transport) -> Result<Vec<u8>, Failure> {
        let began = Instant::now();
        let until = self.deadline.min(began + self.patience);
        let observe = |outcome| {
            self.gate.observe(Event::Upstream {
                server,
                transport,
                outcome,
                took: began.elapsed(),
            });
        };
        let id = rand::random();
        let message = self.query.with_id(id);
        let belongs = |answer: &[u8]| {
            let belongs = self.query.is_answered_by(id, answer);
            if !belongs {
                observe(UpstreamOutcome::Mismatched);
            }
            belongs
        };
        let outcome = match transport {
            Transport::Udp => timeout_at(until, udp::exchange(server, &message, belongs)).await,
            Transport::Tcp => timeout_at(until, tcp::exchange(server, &message, belongs)).await,
        };
        match outcome {
            Ok(Ok(answer)) => {
                observe(match transport == Transport::Udp && is_truncated(&answer) {
                    true => UpstreamOutcome::Truncated,
                    false => UpstreamOutcome::Answered,
                });
                Ok(answer)
            }
            Ok(Err(error)) => {
                observe(UpstreamOutcome::Unreachable);
                Err(Failure::Unreachable { server, error })
            }
            Err(_) => {
                observe(UpstreamOutcome::TimedOut);
                Err(Failure::TimedOut { server })
            }
        }
    }
}

fn is_truncated(answer: &[u8]) -> bool {
    Header::read(answer).is_ok_and(|header| header.has(Header::TC))
}

/// SERVFAIL (2) or REFUSED (5): says something of the server and nothing of the name.
fn is_apology(held: &Held) -> bool {
    Header::read(held.as_bytes()).is_ok_and(|header| matches!(header.rcode(), 2 | 5))
}
