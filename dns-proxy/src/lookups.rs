//! The lookups of one worker, as they come by datagram: receive → screen → forward → validate →
//! admit → release.
//!
//! A state machine that is fed with packets and time, and knows no socket: what is to be sent goes
//! through [`LookupOutput`]. Between two steps a lookup rests [in flight](in_flight), in one of the
//! [`LookupStage`]s, and exactly one of these wakes it: its answer, the answer that another lookup was
//! given to the same question ([`single_flight`](crate::single_flight)), its commit, or its time.

mod cached;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use slotmap::SlotMap;

use self::cached::CacheDecision;
use crate::answer::ValidatedAnswer;
use crate::cache::{AnswerCache, CacheKey};
use crate::client_quota::{ClientQuota, QuotaPermit};
use crate::completion::{AdmissionError, Completion, CompletionReceiver};
use crate::config::{CacheConfig, ServerConfig};
use crate::cookie::Cookies;
use crate::event::{DiscardReason, ProxyEvent, UpstreamOutcome, WithheldReason};
use crate::gate::{AdmissionStatus, CommitMode, Gate};
use crate::lookup_key::LookupKey;
use crate::message::Query;
use crate::question::Transport;
use crate::reply::{ClientReply, HeldAnswer};
use crate::single_flight::{FlightLeader, FlightReceiver, FlightResult, FlightRole, SingleFlight};
use crate::stages::{self, Client};
use crate::timer_wheel::TimerWheel;
use crate::upstream::exchange::{UpstreamExchange, observe_change};
use crate::upstream::health::{UpstreamHealth, UpstreamRoute};
use crate::upstream::profile::{EdnsCheck, EdnsLevel, UpstreamProfiles};
use crate::upstream::{AnswerAssessment, AttemptsOutcome, UpstreamAttempts, UpstreamFailure, is_truncated};
use crate::validate::{InvalidAnswer, validate};

/// A question that every resolver has an answer to: the name servers of the root (RFC 8109 §3),
/// under id 0.
const PROBE: [u8; 17] = [0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];

/// Under what a query was sent to an upstream: which socket, which id on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SentQuery {
    pub(crate) socket: u32,
    pub(crate) id: u16,
}

/// What sends. `W` is how an answer gets back to its client, of which nothing is known here.
pub(crate) trait LookupOutput<W> {
    /// Sends a query under a random id from a random port, and remembers whose answer comes there.
    fn send_query(
        &mut self,
        now: Instant,
        server: SocketAddr,
        lookup: LookupKey,
        query: &[u8],
    ) -> io::Result<SentQuery>;
    /// Forgets whose answer comes there.
    fn forget_query(&mut self, sent: SentQuery);
    /// Asks over TCP, out of the client's share; [`Lookups::exchanged`] is told what came of it,
    /// `until` at the latest.
    fn query_over_connection(
        &mut self,
        server: SocketAddr,
        client: IpAddr,
        lookup: LookupKey,
        query: &[u8],
        until: Instant,
    );
    /// Notes that a lookup in flight is to be answered on this way.
    fn track_pending(&mut self, reply_path: &W);
    /// Notes that such a lookup has ended; its reply follows within the batch.
    fn untrack_pending(&mut self, reply_path: &W);
    /// Sends a reply.
    fn send_reply(&mut self, reply_path: &W, client: SocketAddr, reply: &ClientReply<'_>);
}

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
    /// Lookups in flight on nobody's behalf: for the cache, and to see whether an upstream answers.
    unasked: usize,
    /// Where queries to upstreams are written.
    asked: Vec<u8>,
    /// Where replies are written.
    room: Vec<u8>,
    /// Where answers out of the cache are written.
    cached: Vec<u8>,
}

struct ActiveLookup<G: Gate, W> {
    /// `None`: no client wants to know.
    client_waiting: Option<WaitingClient<G, W>>,
    query: Query<'static>,
    attempts: UpstreamAttempts,
    stage: LookupStage,
    /// `Some` while it asks on behalf of all lookups with the same question.
    flight: Option<FlightLeader>,
    /// What the upstream has shown to understand of this question.
    max_level: EdnsLevel,
    /// It is not asked over UDP.
    by_tcp: bool,
    /// The upstream was shown the cookie that it wanted, once.
    has_shown_cookie: bool,
    /// When it is given up.
    deadline: Instant,
    /// Until when upstreams are asked.
    ask_until: Instant,
    /// When its present stage is given up.
    until: Instant,
    /// Where its answer belongs in the cache.
    key: Option<CacheKey>,
    /// There is an answer past its time.
    stale: bool,
}

/// Who is to be answered.
struct WaitingClient<G: Gate, W> {
    client: Client,
    reply_path: W,
    identity: G::Identity,
    _permit: QuotaPermit,
}

/// What a lookup waits for.
enum LookupStage {
    /// An answer by UDP.
    Forwarded {
        server: SocketAddr,
        sent: SentQuery,
        began: Instant,
        /// How it was asked.
        level: EdnsLevel,
    },
    /// An answer by TCP, which a task waits for.
    ForwardedByTcp,
    /// The answer to the same question of another lookup.
    Waiting,
    /// The kernel.
    Admitting {
        held: HeldAnswer<'static>,
        /// Who gave the answer.
        source: SocketAddr,
        began: Instant,
    },
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
            unasked: 0,
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

    /// A query has come.
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
        let permit = match self.shared.quota.take(client.source.ip()) {
            Ok(permit) => permit,
            Err(full) => {
                let limit = DiscardReason::from(full);
                gate.observe(worker_state, ProxyEvent::Discarded(limit));
                let refusal = stages::overloaded(&query, limit, room);
                return send(gate, worker_state, now, &client, &reply_path, &refusal, out);
            }
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
        let by_tcp = query.has_options();
        let plain = if by_tcp { Transport::Tcp } else { Transport::Udp };
        let transport = |server| self.config.encrypted_transport(server).unwrap_or(plain);
        let first = self.shared.health.first(&upstreams, transport);
        let upstream = upstreams.first().copied();
        let deadline = now + self.config.lookup_timeout;
        let mut lookup = Box::new(ActiveLookup {
            client_waiting: Some(client_waiting),
            key: self
                .cache
                .as_ref()
                .and(upstream)
                .and_then(|upstream| CacheKey::of(&query, upstream)),
            query: query.keep(),
            attempts: UpstreamAttempts::new(upstreams, first),
            stage: LookupStage::ForwardedByTcp,
            flight: None,
            max_level: EdnsLevel::Cookies,
            by_tcp: false,
            has_shown_cookie: false,
            deadline,
            ask_until: deadline,
            until: deadline,
            stale: false,
        });
        let found = self.look_up(now, &mut lookup);
        // Taken before its answer ends the lookup.
        let again = matches!(found, CacheDecision::Hit { refresh: true }).then(|| lookup.again());
        let key = self.in_flight.insert(lookup);
        match found {
            CacheDecision::Hit { .. } => self.answer_from_cache(now, key, upstream, out),
            CacheDecision::Miss => self.forward(now, key, out),
        }
        if let Some(again) = again {
            self.refresh(now, again, out);
        }
    }

    /// A query longer than what is taken over UDP has come, of which this is the beginning.
    pub(crate) fn receive_overlong(
        &mut self,
        now: Instant,
        client: Client,
        reply_path: &W,
        beginning: &[u8],
        out: &mut impl LookupOutput<W>,
    ) {
        let Ok(header) = crate::wire::Header::read(beginning) else {
            return;
        };
        if header.has(crate::wire::Header::QR) {
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

    /// A datagram has come to where the answer to this lookup was expected. Whether it is that.
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
        let LookupStage::Forwarded {
            server,
            sent,
            began,
            level,
        } = lookup.stage
        else {
            return false;
        };
        if !lookup.query.is_answered_by(id, answer) {
            return false;
        }
        let may_lower = level == EdnsLevel::Cookies || lookup.query.edns().is_none();
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
            // There is more than fits. We must learn all of it, whatever the client will take. Or
            // it may be a forgery.
            _ if truncated || check != EdnsCheck::Accepted => {
                let until = lookup.deadline.min(now + self.config.upstream_timeout);
                self.ask_by_tcp(now, key, server, until, out);
            }
            _ => self.validate(now, key, server, HeldAnswer::new(answer), out),
        }
        true
    }

    /// What came of asking over TCP.
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
                if !lookup.query.has_options() {
                    self.profiles.of(exchanged.server).check_over_tcp(&answer);
                }
                self.validate(now, key, exchanged.server, HeldAnswer::new(answer), out);
            }
            Err(failure) => {
                lookup.attempts.failed(failure);
                self.forward(now, key, out);
            }
        }
    }

    /// What came of the question that another lookup asked. They share the answer alone: what it
    /// teaches is read and admitted for this client as for the other.
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
                // It was withheld from this client too.
                if let UpstreamFailure::InvalidAnswer { server, why } = *failure {
                    self.observe_bogus(key, server, why);
                }
                self.fail(now, key, &failure, out);
            }
            FlightResult::Abandoned => self.forward(now, key, out),
        }
    }

    /// The socket that a query was sent from says that the upstream cannot be reached.
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

    /// A datagram of `server` answers no question of ours.
    pub(crate) fn mismatched(&mut self, server: SocketAddr) {
        let event = ProxyEvent::Upstream {
            server,
            transport: Transport::Udp,
            outcome: UpstreamOutcome::Mismatched,
            took: std::time::Duration::ZERO,
        };
        self.gate.observe(&mut self.worker_state, event);
    }

    /// What came of an admission.
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

    /// Gives up what has waited too long, each for its next chance or for good.
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
                LookupStage::Forwarded {
                    server,
                    sent,
                    began,
                    level,
                } => {
                    out.forget_query(sent);
                    self.profiles.of(server).timed_out(now, level);
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

    /// Asks the next upstream, or ends the lookup when there is none. What is in flight already is
    /// waited for.
    fn forward(&mut self, now: Instant, key: LookupKey, out: &mut impl LookupOutput<W>) {
        let Some(lookup) = self.in_flight.get_mut(key) else {
            return;
        };
        // An answer may depend on its options, and a forger's fits whatever they are.
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
            // An encrypted one is asked on a connection, whatever the question.
            by_tcp |= self.config.encrypted_transport(server).is_some();
            return match by_tcp {
                true => self.ask_by_tcp(now, key, server, until, out),
                false => self.ask(now, key, server, out),
            };
        }
        let end = lookup.attempts.end();
        let flight = lookup.flight.take();
        // Given up early, since there is something to give instead: nobody else has to do with
        // that.
        let hurried = lookup.ask_until < lookup.deadline && now >= lookup.ask_until;
        match end {
            AttemptsOutcome::ErrorAnswer(held, validated) => {
                if let Some(flight) = flight {
                    let (server, answer) = (validated.source, held.as_bytes());
                    flight.land(|| answer_landed(server, answer));
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
                    flight.land(|| FlightResult::Failure(Arc::clone(&failure)));
                }
                self.fail(now, key, &failure, out);
            }
        }
    }

    /// Asks an upstream over UDP, until what is left of this try.
    fn ask(&mut self, now: Instant, key: LookupKey, server: SocketAddr, out: &mut impl LookupOutput<W>) {
        let Some(lookup) = self.in_flight.get_mut(key) else {
            return;
        };
        let profile = self.profiles.of(server);
        let level = profile.level(now).min(lookup.max_level);
        lookup.query.write_for(level, profile.cookie(), &mut self.asked);
        match out.send_query(now, server, key, &self.asked) {
            Ok(sent) => {
                lookup.stage = LookupStage::Forwarded {
                    server,
                    sent,
                    began: now,
                    level,
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

    /// Asks an upstream over TCP: the client's bytes where it has options, as over UDP otherwise.
    fn ask_by_tcp(
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
        self.deadlines.clear(key);
        let client = match &lookup.client_waiting {
            Some(client_waiting) => client_waiting.client.source.ip(),
            // The cache has a share of its own.
            None => Ipv4Addr::UNSPECIFIED.into(),
        };
        if lookup.query.has_options() {
            return out.query_over_connection(server, client, key, lookup.query.as_bytes(), until);
        }
        let profile = self.profiles.of(server);
        lookup
            .query
            .write_for(profile.level(now), profile.cookie(), &mut self.asked);
        out.query_over_connection(server, client, key, &self.asked, until);
    }

    /// Notes that an upstream has left a question over UDP unanswered.
    fn upstream_failed(
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

    /// Asks a silent upstream something, on nobody's behalf: whoever waited for it would wait in
    /// vain.
    fn probe(&mut self, now: Instant, (server, transport): UpstreamRoute, out: &mut impl LookupOutput<W>) {
        let Ok(query) = Query::read(&PROBE) else {
            return;
        };
        let deadline = now + self.config.lookup_timeout;
        self.start_unasked(
            now,
            Box::new(ActiveLookup {
                client_waiting: None,
                key: None,
                query: query.keep(),
                attempts: UpstreamAttempts::new(Arc::new([server]), 0),
                stage: LookupStage::ForwardedByTcp,
                flight: None,
                max_level: EdnsLevel::Cookies,
                by_tcp: transport != Transport::Udp,
                has_shown_cookie: false,
                deadline,
                ask_until: deadline,
                until: deadline,
                stale: false,
            }),
            out,
        );
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
        let reply = stages::no_answer(&lookup.query, failure, &mut self.room);
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

    fn validate(
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
                    flight.land(|| answer_landed(server, held.as_bytes()));
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

    fn observe_bogus(&mut self, key: LookupKey, server: SocketAddr, why: InvalidAnswer) {
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
    fn keep(&mut self, now: Instant, key: LookupKey, answer: &[u8]) {
        if let Some(cache) = &mut self.cache
            && let Some(place) = self.in_flight.get_mut(key).and_then(|lookup| lookup.key.take())
        {
            cache.keep(now, place, answer);
        }
    }

    fn admit(
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
            // The cache has it, and nobody waits: what it opens is admitted with the first who
            // asks.
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

    fn finish_admission(
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

    /// The one place where an answer leaves, and it takes a proof.
    fn release(
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
            Err(error) => {
                let AdmissionError { kind, reason } = &error;
                let why = (WithheldReason::NotAdmitted(*kind), reason.as_str());
                let asked = (Some(client), &lookup.query);
                stages::observe_withheld(&*self.gate, &mut self.worker_state, asked, source, why);
                stages::not_committed(&lookup.query, &error, &mut self.room)
            }
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

    fn remove(&mut self, key: LookupKey, out: &mut impl LookupOutput<W>) -> Option<Box<ActiveLookup<G, W>>> {
        let lookup = self.in_flight.remove(key)?;
        self.deadlines.clear(key);
        match &lookup.client_waiting {
            Some(client_waiting) => out.untrack_pending(&client_waiting.reply_path),
            None => self.unasked -= 1,
        }
        Some(lookup)
    }
}

fn answer_landed(server: SocketAddr, answer: &[u8]) -> FlightResult {
    FlightResult::Answer {
        server,
        answer: answer.into(),
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
