//! Forwarding: which upstream a lookup asks, and how.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use super::Lookups;
use super::active_lookup::{ActiveLookup, LookupStage};
use super::output::LookupOutput;
use crate::client_query::Query;
use crate::event::{ProxyEvent, UpstreamOutcome};
use crate::gate::Gate;
use crate::lookup_key::LookupKey;
use crate::question::Transport;
use crate::single_flight::{FlightResult, FlightRole};
use crate::upstream::exchange::observe_change;
use crate::upstream::health::UpstreamRoute;
use crate::upstream::profile::EdnsLevel;
use crate::upstream::{AttemptsOutcome, UpstreamAttempts, UpstreamFailure};

/// A question that every resolver has an answer to: the name servers of the root (RFC 8109 §3),
/// under id 0.
const PROBE: [u8; 17] = [0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];

impl<G: Gate, W> Lookups<G, W> {
    /// Asks the next upstream, or ends the lookup when there is none. If the same question is in
    /// flight already, the lookup waits for that.
    pub(super) fn forward(&mut self, now: Instant, key: LookupKey, out: &mut impl LookupOutput<W>) {
        let Some(lookup) = self.in_flight.get_mut(key) else {
            return;
        };
        // The answer may depend on options, so it cannot be shared; over TCP nobody can forge it.
        let mut by_tcp = lookup.by_tcp || lookup.query.has_options();
        if lookup.flight.is_none() && !by_tcp && now < lookup.ask_until && !lookup.attempts.is_over() {
            let upstreams = lookup.attempts.upstreams();
            match self.shared.flights.join(&lookup.query, upstreams, &self.flights, key) {
                FlightRole::Leader(flight) => lookup.flight = Some(flight),
                FlightRole::Follower => {
                    lookup.stage = LookupStage::Waiting;
                    lookup.until = lookup.deadline;
                    return self.deadlines.set(key, lookup.until);
                }
                FlightRole::OtherFlags => by_tcp = true,
            }
        }
        if now < lookup.ask_until
            && let Some(server) = lookup.attempts.next()
        {
            let until = lookup.ask_until.min(now + self.config.upstream_timeout);
            lookup.until = until;
            lookup.max_level = EdnsLevel::Cookies;
            // An encrypted upstream is asked over its connection, whatever the question.
            by_tcp |= self.config.encrypted_transport(server).is_some();
            return match by_tcp {
                true => self.ask_by_tcp(now, key, server, until, out),
                false => self.ask(now, key, server, out),
            };
        }
        let end = lookup.attempts.end();
        let flight = lookup.flight.take();
        // Given up early, because there is an expired answer to give. Other lookups may have none,
        // so this failure is not theirs.
        let hurried = lookup.ask_until < lookup.deadline && now >= lookup.ask_until;
        match end {
            AttemptsOutcome::ErrorAnswer(held, validated) => {
                if let Some(flight) = flight {
                    let (server, answer) = (validated.source, held.as_bytes());
                    flight.finish(|| answer_result(server, answer));
                }
                if !self.answer_stale(now, key, out) {
                    self.admit(now, key, held, validated, out);
                }
            }
            AttemptsOutcome::Failure(failure) => {
                let failure = Arc::new(failure);
                if let Some(flight) = flight
                    && !hurried
                {
                    flight.finish(|| FlightResult::Failure(Arc::clone(&failure)));
                }
                self.fail(now, key, &failure, out);
            }
        }
    }

    /// Asks an upstream over UDP, for the rest of this attempt.
    pub(super) fn ask(&mut self, now: Instant, key: LookupKey, server: SocketAddr, out: &mut impl LookupOutput<W>) {
        let Some(lookup) = self.in_flight.get_mut(key) else {
            return;
        };
        let profile = self.profiles.of(server);
        let level = profile.level(now).min(lookup.max_level);
        lookup.query.write_for(level, profile.cookie(), &mut self.asked);
        match out.send_query(now, server, key, &self.asked) {
            Ok(sent) => {
                lookup.level = level;
                lookup.stage = LookupStage::Forwarded {
                    server,
                    sent,
                    began: now,
                };
                self.deadlines.set(key, lookup.until);
            }
            Err(error) => {
                let failure = UpstreamFailure::Unreachable { server, error };
                self.upstream_failed(now, key, server, failure, now);
                self.forward(now, key, out);
            }
        }
    }

    /// Asks an upstream over a connection: with the client's bytes if they have options, and with
    /// our own OPT as over UDP otherwise (RFC 7873 is between neighbours).
    pub(super) fn ask_by_tcp(
        &mut self,
        now: Instant,
        key: LookupKey,
        server: SocketAddr,
        until: Instant,
        out: &mut impl LookupOutput<W>,
    ) {
        let Some(lookup) = self.in_flight.get_mut(key) else {
            return;
        };
        lookup.stage = LookupStage::ForwardedByTcp;
        lookup.until = until;
        self.deadlines.clear(key);
        let client = match &lookup.client_waiting {
            Some(client_waiting) => client_waiting.client.source.ip(),
            // The cache has the share of an address that no client has.
            None => Ipv4Addr::UNSPECIFIED.into(),
        };
        if lookup.query.has_options() {
            return out.query_over_connection(server, client, key, lookup.query.as_bytes(), until);
        }
        let profile = self.profiles.of(server);
        lookup.level = profile.level(now).min(lookup.max_level);
        lookup.query.write_for(lookup.level, profile.cookie(), &mut self.asked);
        out.query_over_connection(server, client, key, &self.asked, until);
    }

    /// Records that an upstream has not answered a question over UDP.
    pub(super) fn upstream_failed(
        &mut self,
        now: Instant,
        key: LookupKey,
        server: SocketAddr,
        failure: UpstreamFailure,
        began: Instant,
    ) {
        let event = ProxyEvent::Upstream {
            server,
            transport: Transport::Udp,
            outcome: failure.outcome(),
            took: now.saturating_duration_since(began),
        };
        self.gate.observe(&mut self.worker_state, event);
        let route = (server, Transport::Udp);
        let change = self.shared.health.failed(now, route);
        observe_change(&*self.gate, &mut self.worker_state, route, change);
        if let Some(lookup) = self.in_flight.get_mut(key) {
            lookup.attempts.failed(failure);
        }
    }

    /// Handles an error of the socket from which this lookup's query was sent.
    pub(crate) fn unreachable(
        &mut self,
        now: Instant,
        key: LookupKey,
        error: io::Error,
        out: &mut impl LookupOutput<W>,
    ) {
        let Some(lookup) = self.in_flight.get_mut(key) else {
            return;
        };
        let LookupStage::Forwarded { server, began, .. } = lookup.stage else {
            return;
        };
        let failure = UpstreamFailure::Unreachable { server, error };
        self.upstream_failed(now, key, server, failure, began);
        self.forward(now, key, out);
    }

    /// Counts a datagram of `server` that answers no question of ours.
    pub(crate) fn mismatched(&mut self, server: SocketAddr) {
        let event = ProxyEvent::Upstream {
            server,
            transport: Transport::Udp,
            outcome: UpstreamOutcome::Mismatched,
            took: std::time::Duration::ZERO,
        };
        self.gate.observe(&mut self.worker_state, event);
    }

    /// Probes a silent upstream with a question of our own, so that no client waits in vain.
    pub(super) fn probe(&mut self, now: Instant, (server, transport): UpstreamRoute, out: &mut impl LookupOutput<W>) {
        let Ok(query) = Query::read(&PROBE) else {
            return;
        };
        let mut lookup = ActiveLookup::new(
            None,
            query.keep(),
            UpstreamAttempts::new(Arc::new([server]), 0),
            now + self.config.lookup_timeout,
        );
        lookup.by_tcp = transport != Transport::Udp;
        self.start_background(now, Box::new(lookup), out);
    }
}

pub(super) fn answer_result(server: SocketAddr, answer: &[u8]) -> FlightResult {
    FlightResult::Answer {
        server,
        answer: answer.into(),
    }
}
