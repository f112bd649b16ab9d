//! Answers: what an upstream, or the lookup that leads the flight, has brought.

use std::net::SocketAddr;
use std::time::Instant;

use super::Lookups;
use super::active_lookup::LookupStage;
use super::forwarding::answer_result;
use super::output::LookupOutput;
use crate::event::{ProxyEvent, UpstreamOutcome};
use crate::gate::Gate;
use crate::lookup_key::LookupKey;
use crate::question::Transport;
use crate::reply::HeldAnswer;
use crate::single_flight::FlightResult;
use crate::stages;
use crate::upstream::exchange::{UpstreamExchange, observe_change};
use crate::upstream::profile::EdnsCheck;
use crate::upstream::{AnswerAssessment, UpstreamFailure, is_truncated};
use crate::validate::{InvalidAnswer, validate};

impl<G: Gate, W> Lookups<G, W> {
    /// Handles a datagram that arrived where the answer to this lookup is expected. Returns whether
    /// it is the answer.
    pub(crate) fn answered(
        &mut self,
        now: Instant,
        key: LookupKey,
        id: u16,
        answer: &[u8],
        out: &mut impl LookupOutput<W>,
    ) -> bool {
        let Some(lookup) = self.in_flight.get_mut(key) else {
            return false;
        };
        let LookupStage::Forwarded { server, sent, began } = lookup.stage else {
            return false;
        };
        if !lookup.query.is_answered_by(id, answer) {
            return false;
        }
        let (level, may_lower) = (lookup.level, lookup.may_lower());
        let check = self.profiles.of(server).check(now, level, may_lower, answer);
        if check == EdnsCheck::Forged {
            return false;
        }
        out.forget_query(sent);
        let route = (server, Transport::Udp);
        let change = self.shared.health.answered(route);
        observe_change(&*self.gate, &mut self.worker_state, route, change);
        let truncated = is_truncated(answer);
        let event = ProxyEvent::Upstream {
            server,
            transport: Transport::Udp,
            outcome: match truncated {
                _ if check == EdnsCheck::MissingCookie => UpstreamOutcome::Unproven,
                true => UpstreamOutcome::Truncated,
                false => UpstreamOutcome::Answered,
            },
            took: now.saturating_duration_since(began),
        };
        self.gate.observe(&mut self.worker_state, event);
        match check {
            EdnsCheck::NotUnderstood(level) => {
                lookup.max_level = level;
                self.ask(now, key, server, out);
            }
            EdnsCheck::BadCookie if !std::mem::replace(&mut lookup.has_shown_cookie, true) => {
                self.ask(now, key, server, out);
            }
            // Either the answer is truncated: all of it must be learned, whatever the client takes.
            // Or it may be forged.
            _ if truncated || check != EdnsCheck::Accepted => {
                let until = lookup.deadline.min(now + self.config.upstream_timeout);
                self.ask_by_tcp(now, key, server, until, out);
            }
            _ => self.validate(now, key, server, HeldAnswer::new(answer), out),
        }
        true
    }

    /// Handles the result of an exchange over a connection.
    pub(crate) fn exchanged(
        &mut self,
        now: Instant,
        key: LookupKey,
        exchanged: UpstreamExchange,
        out: &mut impl LookupOutput<W>,
    ) {
        exchanged.observe(&*self.gate, &mut self.worker_state);
        exchanged.tell(now, &self.shared.health, &*self.gate, &mut self.worker_state);
        let Some(lookup) = self.in_flight.get_mut(key) else {
            return;
        };
        match exchanged.answer {
            Ok(answer) => {
                let (server, level, until) = (exchanged.server, lookup.level, lookup.until);
                if !lookup.query.has_options() {
                    let profile = self.profiles.of(server);
                    match profile.check_connected(now, level, lookup.may_lower(), &answer) {
                        EdnsCheck::NotUnderstood(level) => {
                            lookup.max_level = level;
                            return self.ask_by_tcp(now, key, server, until, out);
                        }
                        EdnsCheck::BadCookie if !std::mem::replace(&mut lookup.has_shown_cookie, true) => {
                            return self.ask_by_tcp(now, key, server, until, out);
                        }
                        _ => {}
                    }
                }
                self.validate(now, key, exchanged.server, HeldAnswer::new(answer), out);
            }
            Err(failure) => {
                lookup.attempts.failed(failure);
                self.forward(now, key, out);
            }
        }
    }

    /// Handles the result of the flight that this lookup waits for. The lookups share the answer
    /// alone: it is validated and admitted for this client as for the other.
    pub(crate) fn landed(
        &mut self,
        now: Instant,
        key: LookupKey,
        landed: FlightResult,
        out: &mut impl LookupOutput<W>,
    ) {
        let Some(lookup) = self.in_flight.get_mut(key) else {
            return;
        };
        if !matches!(lookup.stage, LookupStage::Waiting) {
            return;
        }
        match landed {
            FlightResult::Answer { server, answer } => match validate(&lookup.query, &answer, server) {
                Ok(validated) => {
                    self.keep(now, key, &answer);
                    self.admit(now, key, HeldAnswer::new(&answer[..]), validated, out);
                }
                Err(why) => {
                    self.observe_bogus(key, server, why);
                    self.fail(now, key, &UpstreamFailure::InvalidAnswer { server, why }, out);
                }
            },
            FlightResult::Failure(failure) => {
                // The answer was withheld from this client too.
                if let UpstreamFailure::InvalidAnswer { server, why } = *failure {
                    self.observe_bogus(key, server, why);
                }
                self.fail(now, key, &failure, out);
            }
            FlightResult::Abandoned => self.forward(now, key, out),
        }
    }

    pub(super) fn validate(
        &mut self,
        now: Instant,
        key: LookupKey,
        server: SocketAddr,
        held: HeldAnswer<'_>,
        out: &mut impl LookupOutput<W>,
    ) {
        let Some(lookup) = self.in_flight.get_mut(key) else {
            return;
        };
        match lookup.attempts.judge(&lookup.query, server, held) {
            AnswerAssessment::Usable(held, validated) => {
                if let Some(flight) = lookup.flight.take() {
                    flight.finish(|| answer_result(server, held.as_bytes()));
                }
                self.keep(now, key, held.as_bytes());
                self.admit(now, key, held, validated, out);
            }
            AnswerAssessment::TryNext => self.forward(now, key, out),
            AnswerAssessment::Invalid(why) => {
                self.observe_bogus(key, server, why);
                self.forward(now, key, out);
            }
        }
    }

    pub(super) fn observe_bogus(&mut self, key: LookupKey, server: SocketAddr, why: InvalidAnswer) {
        if let Some(lookup) = self.in_flight.get_mut(key) {
            let client = lookup
                .client_waiting
                .as_ref()
                .map(|client_waiting| &client_waiting.client);
            stages::observe_bogus(
                &*self.gate,
                &mut self.worker_state,
                (client, &lookup.query),
                server,
                why,
            );
        }
    }

    /// Keeps a validated answer in the cache, if there is one.
    pub(super) fn keep(&mut self, now: Instant, key: LookupKey, answer: &[u8]) {
        if let Some(cache) = &mut self.cache
            && let Some(place) = self.in_flight.get_mut(key).and_then(|lookup| lookup.key.take())
        {
            cache.keep(now, place, answer);
        }
    }
}
