//! Asking upstreams: which, in what order, how often, and what their answers are good for. The
//! connections are here; the UDP sockets belong to the workers.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use thiserror::Error;

use crate::answer::ValidatedAnswer;
use crate::answer_match::is_bare_error;
use crate::client_query::Query;
use crate::event::UpstreamOutcome;
use crate::reply::HeldAnswer;
use crate::validate::{InvalidAnswer, validate};
use crate::wire_format::Header;

mod connection;
pub(crate) mod encrypted;
pub(crate) mod exchange;
pub(crate) mod health;
pub(crate) mod pool;
pub(crate) mod profile;

/// The upstreams are asked in turn, each at most this often: a datagram may be lost.
const ROUNDS: usize = 2;

/// Why no upstream gave a usable answer; of several failures the last.
#[derive(Debug, Error)]
pub(crate) enum UpstreamFailure {
    #[error("no upstream is configured")]
    NoUpstream,
    #[error("upstream {server} did not answer in time")]
    TimedOut { server: SocketAddr },
    #[error("upstream {server} cannot be reached: {error}")]
    Unreachable { server: SocketAddr, error: io::Error },
    #[error("too many lookups of this client wait for upstream {server} over TCP")]
    Busy { server: SocketAddr },
    #[error("upstream {server}: {why}")]
    InvalidAnswer { server: SocketAddr, why: InvalidAnswer },
}

impl UpstreamFailure {
    /// How the failure of one exchange is counted.
    pub(crate) fn outcome(&self) -> UpstreamOutcome {
        match self {
            Self::TimedOut { .. } | Self::Busy { .. } => UpstreamOutcome::TimedOut,
            _ => UpstreamOutcome::Unreachable,
        }
    }
}

/// The upstreams that a lookup has asked and will ask. An upstream's own error (SERVFAIL, REFUSED)
/// is taken only when no other upstream has a better answer.
#[derive(Debug)]
pub(crate) struct UpstreamAttempts {
    upstreams: Arc<[SocketAddr]>,
    /// The index of the upstream that is asked first.
    first: usize,
    made: usize,
    failure: UpstreamFailure,
    error_answer: Option<Box<(HeldAnswer<'static>, ValidatedAnswer)>>,
}

/// What an answer of an upstream is good for.
#[derive(Debug)]
pub(crate) enum AnswerAssessment<'a> {
    /// It is valid.
    Usable(HeldAnswer<'a>, ValidatedAnswer),
    /// It is an upstream's own error, which was kept: another upstream may have a better answer.
    TryNext,
    /// It is invalid; another upstream may have a better answer.
    Invalid(InvalidAnswer),
}

/// The outcome when no upstream is left to ask.
#[derive(Debug)]
pub(crate) enum AttemptsOutcome {
    /// An upstream's own error.
    ErrorAnswer(HeldAnswer<'static>, ValidatedAnswer),
    /// No answer at all.
    Failure(UpstreamFailure),
}

impl UpstreamAttempts {
    /// Begins with the upstream at `first`; the others follow in turn.
    pub(crate) fn new(upstreams: Arc<[SocketAddr]>, first: usize) -> Self {
        Self {
            upstreams,
            first,
            made: 0,
            failure: UpstreamFailure::NoUpstream,
            error_answer: None,
        }
    }

    /// The same upstreams, from the beginning.
    pub(crate) fn again(&self) -> Self {
        Self::new(Arc::clone(&self.upstreams), self.first)
    }

    /// All of them.
    pub(crate) fn upstreams(&self) -> &Arc<[SocketAddr]> {
        &self.upstreams
    }

    /// The upstream that is preferred.
    pub(crate) fn first(&self) -> Option<SocketAddr> {
        self.upstreams.first().copied()
    }

    /// The upstream to ask now; `None` when all were asked often enough, or all were asked once and
    /// one has answered with an error.
    pub(crate) fn next(&mut self) -> Option<SocketAddr> {
        if self.is_over() {
            return None;
        }
        let server = self.upstreams[(self.first + self.made) % self.upstreams.len()];
        self.made += 1;
        Some(server)
    }

    /// Whether nobody is left to ask.
    pub(crate) fn is_over(&self) -> bool {
        let count = self.upstreams.len();
        let round_is_over = self.made > 0 && self.made.is_multiple_of(count);
        self.made >= ROUNDS * count || round_is_over && self.error_answer.is_some()
    }

    /// Notes that an exchange brought nothing.
    pub(crate) fn failed(&mut self, failure: UpstreamFailure) {
        self.failure = failure;
    }

    /// Judges an answer of `server` that belongs to the question.
    pub(crate) fn judge<'a>(
        &mut self,
        query: &Query<'_>,
        server: SocketAddr,
        held: HeldAnswer<'a>,
    ) -> AnswerAssessment<'a> {
        if let Some(error) = without_question(query, &held) {
            let validated = ValidatedAnswer::without_addresses(query.question().name.clone(), server);
            self.error_answer = Some(Box::new((error, validated)));
            return AnswerAssessment::TryNext;
        }
        match validate(query, held.as_bytes(), server) {
            Ok(validated) if is_server_error(&held) => {
                self.error_answer = Some(Box::new((held.keep(), validated)));
                AnswerAssessment::TryNext
            }
            Ok(validated) => AnswerAssessment::Usable(held, validated),
            Err(why) => {
                self.failure = UpstreamFailure::InvalidAnswer { server, why };
                AnswerAssessment::Invalid(why)
            }
        }
    }

    /// What is left when nobody is.
    pub(crate) fn end(&mut self) -> AttemptsOutcome {
        match self.error_answer.take() {
            Some(error_answer) => AttemptsOutcome::ErrorAnswer(error_answer.0, error_answer.1),
            None => AttemptsOutcome::Failure(std::mem::replace(&mut self.failure, UpstreamFailure::NoUpstream)),
        }
    }
}

pub(crate) fn is_truncated(answer: &[u8]) -> bool {
    Header::read(answer).is_ok_and(|header| header.has(Header::TC))
}

/// An error that came without a question, with the client's. It says something of the server alone.
fn without_question(query: &Query<'_>, held: &HeldAnswer<'_>) -> Option<HeldAnswer<'static>> {
    let header = Header::read(held.as_bytes()).ok()?;
    (header.questions == 0 && is_bare_error(held.as_bytes(), &header))
        .then(|| HeldAnswer::bare_error(query, &header, held.as_bytes()))
}

/// SERVFAIL (2) or REFUSED (5): says something of the server and nothing of the name.
fn is_server_error(held: &HeldAnswer<'_>) -> bool {
    Header::read(held.as_bytes()).is_ok_and(|header| matches!(header.rcode(), 2 | 5))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packets;

    fn attempts(count: usize) -> UpstreamAttempts {
        UpstreamAttempts::new(
            (0..count)
                .map(|i| SocketAddr::from(([192, 0, 2, i as u8], 53)))
                .collect(),
            0,
        )
    }

    fn asked(attempts: &mut UpstreamAttempts) -> Vec<u8> {
        std::iter::from_fn(|| attempts.next())
            .map(|server| match server.ip() {
                std::net::IpAddr::V4(ip) => ip.octets()[3],
                std::net::IpAddr::V6(_) => unreachable!(),
            })
            .collect()
    }

    #[test]
    fn upstreams_are_asked_in_turn_twice() {
        assert_eq!(asked(&mut attempts(3)), [0, 1, 2, 0, 1, 2]);
        let mut from_the_second = attempts(3);
        from_the_second.first = 1;
        assert_eq!(asked(&mut from_the_second), [1, 2, 0, 1, 2, 0]);
        assert!(asked(&mut attempts(0)).is_empty());
        assert!(matches!(
            attempts(0).end(),
            AttemptsOutcome::Failure(UpstreamFailure::NoUpstream)
        ));
    }

    #[test]
    fn an_apology_is_held_until_the_others_of_the_round_were_asked() {
        let packet = packets::query("a.example.", "A");
        let query = Query::read(&packet).unwrap();
        let sorry = packets::answer_with_rcode(&packet, 2);
        let mut attempts = attempts(2);
        let server = attempts.next().unwrap();
        assert!(matches!(
            attempts.judge(&query, server, HeldAnswer::new(&sorry[..])),
            AnswerAssessment::TryNext
        ));
        assert_eq!(asked(&mut attempts), [1]);
        let AttemptsOutcome::ErrorAnswer(held, validated) = attempts.end() else {
            panic!("there is one");
        };
        assert_eq!(held.as_bytes(), sorry);
        assert!(validated.addresses.is_empty());
    }

    #[test]
    fn of_several_failures_the_last_is_told() {
        let packet = packets::query("a.example.", "A");
        let query = Query::read(&packet).unwrap();
        let bogus = packets::answer(&packet, &["b.example. 60 A 192.0.2.66"]);
        let mut attempts = attempts(1);
        let server = attempts.next().unwrap();
        attempts.failed(UpstreamFailure::TimedOut { server });
        attempts.judge(&query, server, HeldAnswer::new(&bogus[..]));
        assert!(matches!(
            attempts.end(),
            AttemptsOutcome::Failure(UpstreamFailure::InvalidAnswer { .. })
        ));
    }
}
