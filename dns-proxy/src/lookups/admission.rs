//! Admission and release: the gate's decision on an answer, and the reply.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::active_lookup::{ActiveLookup, LookupStage, WaitingClient};
use super::output::LookupOutput;
use super::{Lookups, send};
use crate::answer::ValidatedAnswer;
use crate::completion::{AdmissionError, Completion};
use crate::gate::{AdmissionStatus, CommitMode, Gate};
use crate::lookup_key::LookupKey;
use crate::reply::HeldAnswer;
use crate::stages;

impl<G: Gate, W> Lookups<G, W> {
    pub(super) fn admit(
        &mut self,
        now: Instant,
        key: LookupKey,
        held: HeldAnswer<'_>,
        validated: ValidatedAnswer,
        out: &mut impl LookupOutput<W>,
    ) {
        let mode = match self.in_flight.len() {
            1 => CommitMode::Immediate,
            _ => CommitMode::Batched,
        };
        let Some(lookup) = self.in_flight.get_mut(key) else {
            return;
        };
        let Some(client_waiting) = &lookup.client_waiting else {
            // No client waits. The cache has the answer, and the first client that asks for it has
            // it admitted.
            drop(self.remove(key, out));
            return;
        };
        let (opens_nothing, source) = (validated.addresses.is_empty(), validated.source);
        let completion = || Completion::for_lookup(Arc::clone(&self.completions), key);
        match self.gate.admit(
            &mut self.worker_state,
            &client_waiting.identity,
            validated,
            mode,
            completion,
        ) {
            AdmissionStatus::Pending(patience) => {
                lookup.stage = LookupStage::Admitting {
                    held: held.keep(),
                    source,
                    began: now,
                };
                lookup.until = lookup.deadline.min(now + patience);
                self.deadlines.set(key, lookup.until);
            }
            AdmissionStatus::Settled(outcome) => {
                if !opens_nothing {
                    stages::observe_commit(&*self.gate, &mut self.worker_state, Duration::ZERO, outcome.is_ok());
                }
                if let Some(lookup) = self.remove(key, out) {
                    self.release(now, &lookup, (held, source), outcome, out);
                }
            }
        }
    }

    /// Handles the result of an admission.
    pub(crate) fn settled(
        &mut self,
        now: Instant,
        key: LookupKey,
        outcome: Result<G::Proof, AdmissionError>,
        out: &mut impl LookupOutput<W>,
    ) {
        let admitting = |lookup: &ActiveLookup<G, W>| matches!(lookup.stage, LookupStage::Admitting { .. });
        if self.in_flight.get_mut(key).is_some_and(|lookup| admitting(lookup))
            && let Some(lookup) = self.remove(key, out)
        {
            self.finish_admission(now, lookup, outcome, out);
        }
    }

    pub(super) fn finish_admission(
        &mut self,
        now: Instant,
        mut lookup: Box<ActiveLookup<G, W>>,
        outcome: Result<G::Proof, AdmissionError>,
        out: &mut impl LookupOutput<W>,
    ) {
        let stage = std::mem::replace(&mut lookup.stage, LookupStage::ForwardedByTcp);
        if let LookupStage::Admitting { held, source, began } = stage {
            let took = now.saturating_duration_since(began);
            stages::observe_commit(&*self.gate, &mut self.worker_state, took, outcome.is_ok());
            self.release(now, &lookup, (held, source), outcome, out);
        }
    }

    /// Sends the reply. This is the one place where an answer leaves, and it takes a proof.
    pub(super) fn release(
        &mut self,
        now: Instant,
        lookup: &ActiveLookup<G, W>,
        (held, source): (HeldAnswer<'_>, SocketAddr),
        outcome: Result<G::Proof, AdmissionError>,
        out: &mut impl LookupOutput<W>,
    ) {
        let Some(WaitingClient { client, reply_path, .. }) = &lookup.client_waiting else {
            return;
        };
        let reply = match outcome {
            Ok(proof) => held.release::<G>(&lookup.query, client.transport, proof, &mut self.room),
            Err(error) => stages::not_admitted(
                &*self.gate,
                &mut self.worker_state,
                (client, &lookup.query),
                source,
                &error,
                &mut self.room,
            ),
        };
        send(
            &*self.gate,
            &mut self.worker_state,
            now,
            client,
            reply_path,
            &reply,
            out,
        );
    }
}
