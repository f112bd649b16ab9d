//! One question to an upstream over a connection, plain or encrypted, and its result.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::UpstreamFailure;
use super::health::{HealthChange, UpstreamHealth, UpstreamRoute};
use crate::event::{ProxyEvent, UpstreamOutcome};
use crate::gate::Gate;
use crate::question::Transport;

/// The result of one exchange.
#[derive(Debug)]
pub(crate) struct UpstreamExchange {
    pub(crate) server: SocketAddr,
    pub(super) transport: Transport,
    pub(crate) answer: Result<Vec<u8>, UpstreamFailure>,
    pub(super) took: Duration,
    /// Answers that did not belong to the question.
    pub(super) mismatched: usize,
}

impl UpstreamExchange {
    /// Tells the gate of the exchange.
    pub(crate) fn observe<G: Gate>(&self, gate: &G, worker_state: &mut G::WorkerState) {
        let outcome = match &self.answer {
            Ok(_) => UpstreamOutcome::Answered,
            Err(failure) => failure.outcome(),
        };
        let outcomes = std::iter::repeat_n(UpstreamOutcome::Mismatched, self.mismatched).chain([outcome]);
        for outcome in outcomes {
            let event = ProxyEvent::Upstream {
                server: self.server,
                transport: self.transport,
                outcome,
                took: self.took,
            };
            gate.observe(worker_state, event);
        }
    }

    /// Records what the exchange shows of the upstream's health.
    pub(crate) fn tell<G: Gate>(
        &self,
        now: Instant,
        health: &UpstreamHealth,
        gate: &G,
        worker_state: &mut G::WorkerState,
    ) {
        let route = (self.server, self.transport);
        let change = match &self.answer {
            Ok(_) => health.answered(route),
            // The client has used up its share; the upstream was not asked.
            Err(UpstreamFailure::Busy { .. }) => None,
            Err(_) => health.failed(now, route),
        };
        observe_change(gate, worker_state, route, change);
    }
}

/// Tells the gate that an upstream has fallen silent, or answers again.
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
