//! One lookup in flight: what it has asked, and what it waits for.

use std::net::SocketAddr;
use std::time::Instant;

use super::output::SentQuery;
use crate::cache::CacheKey;
use crate::client_query::Query;
use crate::client_quota::QuotaPermit;
use crate::gate::Gate;
use crate::reply::HeldAnswer;
use crate::single_flight::FlightLeader;
use crate::stages::Client;
use crate::upstream::UpstreamAttempts;
use crate::upstream::profile::EdnsLevel;

pub(super) struct ActiveLookup<G: Gate, W> {
    /// `None`: the proxy asks for its cache, or probes an upstream.
    pub(super) client_waiting: Option<WaitingClient<G, W>>,
    pub(super) query: Query<'static>,
    pub(super) attempts: UpstreamAttempts,
    pub(super) stage: LookupStage,
    /// `Some` while it asks on behalf of all lookups with the same question.
    pub(super) flight: Option<FlightLeader>,
    /// The most that the upstream has shown to understand of this question.
    pub(super) max_level: EdnsLevel,
    /// How the upstream was asked last.
    pub(super) level: EdnsLevel,
    /// Upstreams are asked over TCP alone.
    pub(super) by_tcp: bool,
    /// The upstream was asked again with the cookie that it wanted; once is enough.
    pub(super) has_shown_cookie: bool,
    /// When the lookup is given up.
    pub(super) deadline: Instant,
    /// Until when upstreams are asked.
    pub(super) ask_until: Instant,
    /// When the present stage is given up.
    pub(super) until: Instant,
    /// The key of its answer in the cache.
    pub(super) key: Option<CacheKey>,
    /// The cache has an expired answer.
    pub(super) stale: bool,
}

/// The client that waits for the reply.
pub(super) struct WaitingClient<G: Gate, W> {
    pub(super) client: Client,
    pub(super) reply_path: W,
    pub(super) identity: G::Identity,
    /// `None`: the client's connection holds it until the reply is written.
    pub(super) _permit: Option<QuotaPermit>,
}

/// What a lookup waits for.
pub(super) enum LookupStage {
    /// An answer by UDP.
    Forwarded {
        server: SocketAddr,
        sent: SentQuery,
        began: Instant,
    },
    /// An answer by TCP, which a task waits for.
    ForwardedByTcp,
    /// The answer to the same question of another lookup.
    Waiting,
    /// It waits for the gate to admit the answer: for the kernel.
    Admitting {
        held: HeldAnswer<'static>,
        /// The upstream that gave the answer.
        source: SocketAddr,
        began: Instant,
    },
}

impl<G: Gate, W> ActiveLookup<G, W> {
    /// A lookup that has not asked anybody yet.
    pub(super) fn new(
        client_waiting: Option<WaitingClient<G, W>>,
        query: Query<'static>,
        attempts: UpstreamAttempts,
        deadline: Instant,
    ) -> Self {
        Self {
            client_waiting,
            query,
            attempts,
            stage: LookupStage::ForwardedByTcp,
            flight: None,
            max_level: EdnsLevel::Cookies,
            level: EdnsLevel::Cookies,
            by_tcp: false,
            has_shown_cookie: false,
            deadline,
            ask_until: deadline,
            until: deadline,
            key: None,
            stale: false,
        }
    }

    /// Whether the upstream may be asked with less than [`level`](Self::level): the client's own
    /// OPT is not left out.
    pub(super) fn may_lower(&self) -> bool {
        self.level == EdnsLevel::Cookies || self.query.edns().is_none()
    }
}
