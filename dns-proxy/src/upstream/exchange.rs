//! What came of one question to a resolver over TCP.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::UpstreamFailure;
use super::health::{HealthChange, UpstreamHealth, UpstreamRoute};
use crate::event::{ProxyEvent, UpstreamOutcome};
use crate::gate::Gate;
use crate::question::Transport;

/// What came of it.
#[derive(Debug)]
pub(crate) struct UpstreamExchange {
    pub(crate) server: SocketAddr,
    pub(crate) answer: Result<Vec<u8>, UpstreamFailure>,
    pub(super) took: Duration,
    /// Answers that did not belong to the question.
    pub(super) mismatched: usize,
}

impl UpstreamExchange {
    /// Counts it.
    pub(crate) fn observe<G: Gate>(&self, gate: &G, worker_state: &mut G::WorkerState) {
        let outcome = match &self.answer {
            Ok(_) => UpstreamOutcome::Answered,
            Err(failure) => failure.outcome(),
        };
        let outcomes = std::iter::repeat_n(UpstreamOutcome::Mismatched, self.mismatched).chain([outcome]);
        for outcome in outcomes {
            let event = ProxyEvent::Upstream {
                server: self.server,
                transport: Transport::Tcp,
                outcome,
                took: self.took,
            };
            gate.observe(worker_state, event);
        }
    }

    /// Tells what it says of the upstream.
    pub(crate) fn tell<G: Gate>(
        &self,
        now: Instant,
        health: &UpstreamHealth,
        gate: &G,
        worker_state: &mut G::WorkerState,
    ) {
        let route = (self.server, Transport::Tcp);
        let change = match &self.answer {
            Ok(_) => health.answered(route),
            // That says something of the client.
            Err(UpstreamFailure::Busy { .. }) => None,
            Err(_) => health.failed(now, route),
        };
        observe_change(gate, worker_state, route, change);
    }
}

/// Tells that an upstream has fallen silent, or answers again.
pub(crate) fn observe_change<G: Gate>(
    gate: &G,
    worker_state: &mut G::WorkerState,
    (server, transport): UpstreamRoute,
    change: Option<HealthChange>,
) {
    if let Some(change) = change {
        let answers = change == HealthChange::Answers;
        let event = ProxyEvent::UpstreamState {
            server,
            transport,
            answers,
        };
        gate.observe(worker_state, event);
    }
}
