//! Lookups that came by TCP. They are rare, so each is a task that waits.
//!
//! The steps are those of [`stages`]; [`lookups`](crate::lookups) drives them for datagrams.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::timeout_at;

use crate::answer::ValidatedAnswer;
use crate::client_query::Query;
use crate::completion::{AdmissionError, Completion};
use crate::config::ServerConfig;
use crate::cookie::Cookies;
use crate::event::{DiscardReason, ProxyEvent};
use crate::gate::{AdmissionStatus, CommitMode, Gate};
use crate::question::Transport;
use crate::reply::{ClientReply, HeldAnswer};
use crate::stages::{self, Client};
use crate::upstream::health::UpstreamHealth;
use crate::upstream::pool::ConnectionPool;
use crate::upstream::profile::{EdnsCheck, EdnsLevel, UpstreamProfiles};
use crate::upstream::{AnswerAssessment, AttemptsOutcome, UpstreamAttempts, UpstreamFailure};

/// What all lookups over TCP share.
pub(crate) struct TcpLookups<G: Gate> {
    pub(crate) gate: Arc<G>,
    pub(crate) config: ServerConfig,
    /// Shared with the workers, as pool and health are.
    pub(crate) cookies: Arc<Cookies>,
    pub(crate) pool: Arc<ConnectionPool>,
    pub(crate) health: Arc<UpstreamHealth>,
    /// One for all connections, which are few. Never locked across an await.
    profiles: Mutex<UpstreamProfiles>,
    /// One for all connections. Never locked across an await.
    worker_state: Mutex<G::WorkerState>,
}

impl<G: Gate> TcpLookups<G> {
    pub(crate) fn new(gate: Arc<G>, config: ServerConfig, cookies: Arc<Cookies>) -> Self {
        Self {
            profiles: Mutex::new(UpstreamProfiles::new(Arc::clone(&cookies))),
            worker_state: Mutex::new(gate.worker_state()),
            gate,
            pool: Arc::new(ConnectionPool::new(&config.encrypted)),
            config,
            health: Arc::default(),
            cookies,
        }
    }

    /// Runs one lookup to its end. `None`: the packet deserves no reply.
    ///
    /// Only the upstream and the commit are waited for, and both together no longer than
    /// [`ServerConfig::lookup_timeout`].
    pub(crate) async fn lookup(&self, client: Client, packet: &[u8]) -> Option<ClientReply<'static>> {
        let room = &mut Vec::new();
        let mut query = match stages::read(&*self.gate, &mut self.worker_state(), packet, room) {
            Ok(query) => query,
            Err(reply) => return reply.map(ClientReply::into_owned),
        };
        query.take_cookie(&self.cookies, client.source.ip());
        let screened = stages::screen(&*self.gate, &mut self.worker_state(), &client, &query, room);
        let (identity, upstreams) = match screened {
            Ok(forward) => forward,
            Err(reply) => return Some(reply.into_owned()),
        };
        let deadline = client.received + self.config.lookup_timeout;
        let (held, validated) = match self.forward(&client, &query, upstreams, deadline).await {
            Ok(answer) => answer,
            Err(failure) => {
                let asked = (&client, &query);
                let reply = stages::no_answer(&*self.gate, &mut self.worker_state(), asked, &failure, room);
                return Some(reply.into_owned());
            }
        };
        let source = validated.source;
        let reply = match self.admit(&identity, validated, deadline).await {
            Ok(proof) => held.release::<G>(&query, client.transport, proof, room),
            Err(error) => stages::not_admitted(
                &*self.gate,
                &mut self.worker_state(),
                (&client, &query),
                source,
                &error,
                room,
            ),
        };
        Some(reply.into_owned())
    }

    /// The reply to a query that met a limit.
    pub(crate) fn overloaded(
        &self,
        client: &Client,
        packet: &[u8],
        limit: DiscardReason,
    ) -> Option<ClientReply<'static>> {
        self.observe(ProxyEvent::Discarded(limit));
        let room = &mut Vec::new();
        match stages::read(&*self.gate, &mut self.worker_state(), packet, room) {
            Ok(mut query) => {
                query.take_cookie(&self.cookies, client.source.ip());
                Some(stages::overloaded(&query, limit, &mut Vec::new()).into_owned())
            }
            Err(reply) => reply.map(ClientReply::into_owned),
        }
    }

    /// Counts a reply that was sent.
    pub(crate) fn sent(&self, client: &Client, reply: &ClientReply<'_>) {
        self.observe(ProxyEvent::Reply {
            transport: client.transport,
            rcode: reply.rcode(),
            took: client.received.elapsed(),
        });
    }

    /// Counts what happened.
    pub(crate) fn observe(&self, event: ProxyEvent<'_>) {
        let mut worker_state = self.worker_state();
        self.gate.observe(&mut worker_state, event);
        self.gate.flush(&mut worker_state);
    }

    /// *Forward* and *validate*, by TCP all the way: a client comes by TCP because it expects more
    /// than UDP holds.
    async fn forward(
        &self,
        client: &Client,
        query: &Query<'_>,
        upstreams: Arc<[SocketAddr]>,
        deadline: Instant,
    ) -> Result<(HeldAnswer<'static>, ValidatedAnswer), UpstreamFailure> {
        let transport = |server| self.config.encrypted_transport(server).unwrap_or(Transport::Tcp);
        let first = self.health.first(&upstreams, transport);
        let mut attempts = UpstreamAttempts::new(upstreams, first);
        while Instant::now() < deadline
            && let Some(server) = attempts.next()
        {
            let until = deadline.min(Instant::now() + self.config.upstream_timeout);
            match self.ask(client, query, server, until).await {
                Ok(answer) => match attempts.judge(query, server, HeldAnswer::new(answer)) {
                    AnswerAssessment::Usable(held, validated) => return Ok((held, validated)),
                    AnswerAssessment::TryNext => {}
                    AnswerAssessment::Invalid(why) => {
                        stages::observe_bogus(
                            &*self.gate,
                            &mut self.worker_state(),
                            (Some(client), query),
                            server,
                            why,
                        );
                    }
                },
                Err(failure) => attempts.failed(failure),
            }
        }
        match attempts.end() {
            AttemptsOutcome::ErrorAnswer(held, validated) => Ok((held, validated)),
            AttemptsOutcome::Failure(failure) => Err(failure),
        }
    }

    /// Asks one upstream until `until`. A query with options goes there as the client sent it, and
    /// every other one with our own OPT and cookie (RFC 7873 is between neighbours), with less of
    /// them each time that the upstream does not understand it.
    async fn ask(
        &self,
        client: &Client,
        query: &Query<'_>,
        server: SocketAddr,
        until: Instant,
    ) -> Result<Vec<u8>, UpstreamFailure> {
        if query.has_options() {
            return self.exchange(client, query, server, until).await;
        }
        let (mut max_level, mut has_shown_cookie) = (EdnsLevel::Cookies, false);
        let mut bytes = Vec::new();
        loop {
            let level = {
                let mut profiles = self.profiles.lock();
                let profile = profiles.of(server);
                let level = profile.level(Instant::now()).min(max_level);
                query.write_for(level, profile.cookie(), &mut bytes);
                level
            };
            // It was read before.
            let Ok(ours) = Query::read(&bytes) else {
                return self.exchange(client, query, server, until).await;
            };
            let answer = self.exchange(client, &ours, server, until).await?;
            let may_lower = level == EdnsLevel::Cookies || query.edns().is_none();
            let mut profiles = self.profiles.lock();
            match profiles
                .of(server)
                .check_connected(Instant::now(), level, may_lower, &answer)
            {
                EdnsCheck::NotUnderstood(lower) => max_level = lower,
                EdnsCheck::BadCookie if !std::mem::replace(&mut has_shown_cookie, true) => {}
                _ => return Ok(answer),
            }
        }
    }

    async fn exchange(
        &self,
        client: &Client,
        query: &Query<'_>,
        server: SocketAddr,
        until: Instant,
    ) -> Result<Vec<u8>, UpstreamFailure> {
        let exchanged = self.pool.exchange(server, client.source.ip(), query, until).await;
        exchanged.observe(&*self.gate, &mut self.worker_state());
        exchanged.tell(Instant::now(), &self.health, &*self.gate, &mut self.worker_state());
        exchanged.answer
    }

    async fn admit(
        &self,
        identity: &G::Identity,
        validated: ValidatedAnswer,
        deadline: Instant,
    ) -> Result<G::Proof, AdmissionError> {
        let began = Instant::now();
        let opens_something = !validated.addresses.is_empty();
        let (completion, settled) = Completion::channel();
        let admission = {
            let mut worker_state = self.worker_state();
            let admission = self
                .gate
                .admit(&mut worker_state, identity, validated, CommitMode::Immediate, || {
                    completion
                });
            self.gate.flush(&mut worker_state);
            // Whoever comes by TCP does not count microseconds.
            self.gate.replied(&mut worker_state);
            admission
        };
        let outcome = match admission {
            AdmissionStatus::Settled(outcome) => outcome,
            AdmissionStatus::Pending(patience) => {
                let until = deadline.min(began + patience);
                match timeout_at(until.into(), settled).await {
                    Ok(Ok(outcome)) => outcome,
                    Ok(Err(_)) | Err(_) => Err(stages::commit_timed_out()),
                }
            }
        };
        if opens_something {
            stages::observe_commit(&*self.gate, &mut self.worker_state(), began.elapsed(), outcome.is_ok());
        }
        outcome
    }

    fn worker_state(&self) -> MutexGuard<'_, G::WorkerState> {
        self.worker_state.lock()
    }
}
