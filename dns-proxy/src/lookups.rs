//! The lookups of one worker: receive → screen → forward → validate → admit → release.
//!
//! A state machine that is fed with packets and time and knows no socket: it sends through
//! [`LookupOutput`]. Between two steps a lookup waits in one of the stages of
//! [`LookupStage`](active_lookup::LookupStage), and exactly one of these wakes it: its answer, the
//! answer that another lookup got to the same question ([`single_flight`](crate::single_flight)),
//! its commit, or its deadline.
//!
//! The steps are children of this file: `forwarding` asks upstreams, `answers` takes what they
//! answer, `cached` is the answer cache, `admission` asks the gate and releases.

mod active_lookup;
mod admission;
mod answers;
mod cached;
mod forwarding;
mod output;

use std::sync::Arc;
use std::time::Instant;

use slotmap::SlotMap;

use self::active_lookup::{ActiveLookup, LookupStage, WaitingClient};
use self::cached::CacheDecision;
pub(crate) use self::output::{LookupOutput, SentQuery};
use crate::cache::{AnswerCache, CacheKey};
use crate::client_quota::ClientQuota;
use crate::completion::CompletionReceiver;
use crate::config::{CacheConfig, ServerConfig};
use crate::cookie::Cookies;
use crate::event::{DiscardReason, ProxyEvent};
use crate::gate::Gate;
use crate::lookup_key::LookupKey;
use crate::question::Transport;
use crate::reply::ClientReply;
use crate::single_flight::{FlightReceiver, SingleFlight};
use crate::stages::{self, Client};
use crate::timer_wheel::TimerWheel;
use crate::upstream::health::UpstreamHealth;
use crate::upstream::profile::UpstreamProfiles;
use crate::upstream::{UpstreamAttempts, UpstreamFailure};

/// What the workers share.
pub(crate) struct SharedLookupState {
    pub(crate) quota: Arc<ClientQuota>,
    pub(crate) flights: Arc<SingleFlight>,
    pub(crate) health: Arc<UpstreamHealth>,
    pub(crate) cookies: Arc<Cookies>,
}

/// The lookups in flight, and what they need.
pub(crate) struct Lookups<G: Gate, W> {
    gate: Arc<G>,
    worker_state: G::WorkerState,
    config: ServerConfig,
    shared: SharedLookupState,
    completions: Arc<dyn CompletionReceiver<G::Proof>>,
    flights: Arc<dyn FlightReceiver>,
    in_flight: SlotMap<LookupKey, Box<ActiveLookup<G, W>>>,
    deadlines: TimerWheel,
    profiles: UpstreamProfiles,
    cache: Option<AnswerCache>,
    /// How many lookups in flight serve no client: refreshes of the cache, and probes.
    background: usize,
    /// The buffer for queries to upstreams.
    asked: Vec<u8>,
    /// The buffer for replies.
    room: Vec<u8>,
    /// The buffer for answers from the cache.
    cached: Vec<u8>,
}

impl<G: Gate, W> Lookups<G, W> {
    pub(crate) fn new(
        gate: Arc<G>,
        config: ServerConfig,
        shared: SharedLookupState,
        receiver: &Arc<impl CompletionReceiver<G::Proof> + FlightReceiver + 'static>,
        now: Instant,
    ) -> Self {
        Self {
            worker_state: gate.worker_state(),
            cache: config.cache.map(|CacheConfig { entries, stale_for }| {
                let share = entries.get().div_ceil(config.workers.max(1));
                AnswerCache::new(share.try_into().unwrap_or(entries), stale_for)
            }),
            background: 0,
            cached: Vec::new(),
            gate,
            config,
            profiles: UpstreamProfiles::new(Arc::clone(&shared.cookies)),
            shared,
            completions: receiver.clone(),
            flights: receiver.clone(),
            in_flight: SlotMap::with_key(),
            deadlines: TimerWheel::new(now),
            asked: Vec::new(),
            room: Vec::new(),
        }
    }

    /// Handles a query from a client.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        client: Client,
        reply_path: W,
        packet: &[u8],
        out: &mut impl LookupOutput<W>,
    ) {
        let (gate, worker_state, room) = (&*self.gate, &mut self.worker_state, &mut self.room);
        let mut query = match stages::read(gate, worker_state, packet, room) {
            Ok(query) => query,
            Err(Some(reply)) => return send(gate, worker_state, now, &client, &reply_path, &reply, out),
            Err(None) => return,
        };
        query.take_cookie(&self.shared.cookies, client.source.ip());
        let (identity, upstreams) = match stages::screen(gate, worker_state, &client, &query, room) {
            Ok(forward) => forward,
            Err(refusal) => return send(gate, worker_state, now, &client, &reply_path, &refusal, out),
        };
        let permit = match client.transport {
            Transport::Udp => match self.shared.quota.take(client.source.ip()) {
                Ok(permit) => Some(permit),
                Err(full) => {
                    let limit = DiscardReason::from(full);
                    gate.observe(worker_state, ProxyEvent::Discarded(limit));
                    let refusal = stages::overloaded(&query, limit, room);
                    return send(gate, worker_state, now, &client, &reply_path, &refusal, out);
                }
            },
            _ => None,
        };
        out.track_pending(&reply_path);
        let client_waiting = WaitingClient {
            client,
            reply_path,
            identity,
            _permit: permit,
        };
        if let Some(silent) = self.shared.health.to_be_tried(now, &upstreams) {
            self.probe(now, silent, out);
        }
        // A client comes by TCP because it expects more than UDP holds.
        let came_by_tcp = client.transport != Transport::Udp;
        let by_tcp = came_by_tcp || query.has_options();
        let plain = if by_tcp { Transport::Tcp } else { Transport::Udp };
        let transport = |server| self.config.encrypted_transport(server).unwrap_or(plain);
        let first = self.shared.health.first(&upstreams, transport);
        let upstream = upstreams.first().copied();
        let deadline = now + self.config.lookup_timeout;
        let cache_key = self
            .cache
            .as_ref()
            .and(upstream)
            .and_then(|upstream| CacheKey::of(&query, upstream));
        let attempts = UpstreamAttempts::new(upstreams, first);
        let mut lookup = Box::new(ActiveLookup::new(
            Some(client_waiting),
            query.keep(),
            attempts,
            deadline,
        ));
        lookup.key = cache_key;
        lookup.by_tcp = came_by_tcp;
        let found = self.look_up(now, &mut lookup);
        // Taken before its answer ends the lookup.
        let again = matches!(found, CacheDecision::Hit { refresh: true }).then(|| lookup.to_background());
        let key = self.in_flight.insert(lookup);
        match found {
            CacheDecision::Hit { .. } => self.answer_from_cache(now, key, upstream, out),
            CacheDecision::Miss => self.forward(now, key, out),
        }
        if let Some(again) = again {
            self.refresh(now, again, out);
        }
    }

    /// Handles a query that met a limit before it came here.
    pub(crate) fn receive_over_limit(
        &mut self,
        now: Instant,
        client: Client,
        reply_path: &W,
        packet: &[u8],
        limit: DiscardReason,
        out: &mut impl LookupOutput<W>,
    ) {
        let (gate, worker_state, room) = (&*self.gate, &mut self.worker_state, &mut self.room);
        gate.observe(worker_state, ProxyEvent::Discarded(limit));
        let reply = match stages::read(gate, worker_state, packet, room) {
            Ok(mut query) => {
                query.take_cookie(&self.shared.cookies, client.source.ip());
                stages::overloaded(&query, limit, room)
            }
            Err(Some(reply)) => reply,
            Err(None) => return,
        };
        send(gate, worker_state, now, &client, reply_path, &reply, out);
    }

    /// Handles the beginning of a query that is longer than is taken over UDP.
    pub(crate) fn receive_overlong(
        &mut self,
        now: Instant,
        client: Client,
        reply_path: &W,
        beginning: &[u8],
        out: &mut impl LookupOutput<W>,
    ) {
        let Ok(header) = crate::wire_format::Header::read(beginning) else {
            return;
        };
        if header.has(crate::wire_format::Header::QR) {
            return self
                .gate
                .observe(&mut self.worker_state, ProxyEvent::Discarded(DiscardReason::NotAQuery));
        }
        let reply = ClientReply::to_overlong(header, &mut self.room);
        send(
            &*self.gate,
            &mut self.worker_state,
            now,
            &client,
            reply_path,
            &reply,
            out,
        );
    }

    /// Ends the stages whose time is over: the lookup asks the next upstream or fails.
    pub(crate) fn expire(&mut self, now: Instant, out: &mut impl LookupOutput<W>) {
        while let Some(key) = self.deadlines.pop(now) {
            let Some(lookup) = self.in_flight.get_mut(key) else {
                continue;
            };
            if lookup.until > now {
                // Farther away than the wheel reaches.
                self.deadlines.set(key, lookup.until);
                continue;
            }
            match lookup.stage {
                LookupStage::Forwarded { server, sent, began } => {
                    out.forget_query(sent);
                    self.profiles.of(server).timed_out(now, lookup.level);
                    let failure = UpstreamFailure::TimedOut { server };
                    self.upstream_failed(now, key, server, failure, began);
                    self.forward(now, key, out);
                }
                LookupStage::Admitting { .. } => self.settled(now, key, Err(stages::commit_timed_out()), out),
                // Who leads the flight began before, and so is given up before; only a worker that
                // has ended says nothing.
                LookupStage::Waiting => {
                    let failure = match lookup.attempts.first() {
                        Some(server) => UpstreamFailure::TimedOut { server },
                        None => UpstreamFailure::NoUpstream,
                    };
                    self.fail(now, key, &failure, out);
                }
                // Its task ends in time by itself.
                LookupStage::ForwardedByTcp => {}
            }
        }
    }

    /// When [`expire`](Self::expire) is next to be called.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// How many lookups wait for something.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The end of a batch.
    pub(crate) fn flush(&mut self) {
        self.gate.flush(&mut self.worker_state);
    }

    /// The replies of a batch were sent.
    pub(crate) fn replied(&mut self) {
        self.gate.replied(&mut self.worker_state);
    }

    /// Ends a lookup that no upstream has an answer to.
    fn fail(&mut self, now: Instant, key: LookupKey, failure: &UpstreamFailure, out: &mut impl LookupOutput<W>) {
        if self.answer_stale(now, key, out) {
            return;
        }
        let Some(lookup) = self.remove(key, out) else { return };
        let Some(WaitingClient { client, reply_path, .. }) = &lookup.client_waiting else {
            return;
        };
        let reply = stages::no_answer(
            &*self.gate,
            &mut self.worker_state,
            (client, &lookup.query),
            failure,
            &mut self.room,
        );
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

    fn remove(&mut self, key: LookupKey, out: &mut impl LookupOutput<W>) -> Option<Box<ActiveLookup<G, W>>> {
        let lookup = self.in_flight.remove(key)?;
        self.deadlines.clear(key);
        match &lookup.client_waiting {
            Some(client_waiting) => out.untrack_pending(&client_waiting.reply_path),
            None => self.background -= 1,
        }
        Some(lookup)
    }
}

fn send<G: Gate, W>(
    gate: &G,
    worker_state: &mut G::WorkerState,
    now: Instant,
    client: &Client,
    reply_path: &W,
    reply: &ClientReply<'_>,
    out: &mut impl LookupOutput<W>,
) {
    out.send_reply(reply_path, client.source, reply);
    let event = ProxyEvent::Reply {
        transport: client.transport,
        rcode: reply.rcode(),
        took: now.saturating_duration_since(client.received),
    };
    gate.observe(worker_state, event);
}

#[cfg(test)]
mod tests;
