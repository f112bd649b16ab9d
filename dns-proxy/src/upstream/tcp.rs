//! What came of one question to a resolver over TCP.

use std::net::SocketAddr;
use std::time::Duration;

use super::Failure;
use crate::gate::{Event, Gate, Transport, UpstreamOutcome};

/// What came of it.
#[derive(Debug)]
pub(crate) struct Exchanged {
    pub(crate) server: SocketAddr,
    pub(crate) answer: Result<Vec<u8>, Failure>,
    pub(super) took: Duration,
    /// Answers that did not belong to the question.
    pub(super) mismatched: usize,
}

impl Exchanged {
    /// Counts it.
    pub(crate) fn observe<G: Gate>(&self, gate: &G, desk: &mut G::Desk) {
        let outcome = match &self.answer {
            Ok(_) => UpstreamOutcome::Answered,
            Err(failure) => failure.outcome(),
        };
        let outcomes = std::iter::repeat_n(UpstreamOutcome::Mismatched, self.mismatched).chain([outcome]);
        for outcome in outcomes {
            let event = Event::Upstream {
                server: self.server,
                transport: Transport::Tcp,
                outcome,
                took: self.took,
            };
            gate.observe(desk, event);
        }
    }
}
