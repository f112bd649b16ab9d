//! The steps of a lookup that use the answer cache.
//!
//! A cached answer is validated and admitted like one from an upstream. A popular one is asked for
//! again before it expires, by a *background lookup*, for which no client waits.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Lookups;
use super::active_lookup::ActiveLookup;
use super::output::LookupOutput;
use crate::cache::CacheLookup;
use crate::event::{CacheOutcome, ProxyEvent};
use crate::gate::Gate;
use crate::lookup_key::LookupKey;
use crate::reply::HeldAnswer;
use crate::upstream::AnswerAssessment;

/// How long upstreams are asked before an expired answer of the cache is given (RFC 8767 §5).
const STALE_TIMEOUT: Duration = Duration::from_millis(1_800);

/// The most background lookups at a time, so that they do not crowd out those of clients.
const MAX_BACKGROUND: usize = 1_000;

/// What the cache has for a lookup that begins.
pub(super) enum CacheDecision {
    /// A fresh answer. With `refresh`, a background lookup asks for it again.
    Hit { refresh: bool },
    /// No fresh answer: upstreams must be asked.
    Miss,
}

impl<G: Gate, W> Lookups<G, W> {
    /// Looks the question up in the cache. The answer of a hit is written to `self.cached`.
    pub(super) fn look_up(&mut self, now: Instant, lookup: &mut ActiveLookup<G, W>) -> CacheDecision {
        let (Some(cache), Some(key)) = (&mut self.cache, &lookup.key) else {
            return CacheDecision::Miss;
        };
        let found = cache.find(now, key, &lookup.query, &mut self.cached);
        let outcome = match found {
            CacheLookup::Fresh { .. } => CacheOutcome::Hit,
            CacheLookup::Stale | CacheLookup::Miss => CacheOutcome::Miss,
        };
        self.gate.observe(&mut self.worker_state, ProxyEvent::Cache(outcome));
        match found {
            CacheLookup::Fresh { refresh } => CacheDecision::Hit { refresh },
            CacheLookup::Stale => {
                lookup.stale = true;
                lookup.ask_until = lookup.deadline.min(now + STALE_TIMEOUT);
                CacheDecision::Miss
            }
            CacheLookup::Miss => CacheDecision::Miss,
        }
    }

    /// Validates and admits the answer in `self.cached`, as if `upstream` had just sent it.
    pub(super) fn answer_from_cache(
        &mut self,
        now: Instant,
        key: LookupKey,
        upstream: Option<SocketAddr>,
        out: &mut impl LookupOutput<W>,
    ) {
        let (Some(lookup), Some(server)) = (self.in_flight.get_mut(key), upstream) else {
            return;
        };
        let cached = std::mem::take(&mut self.cached);
        match lookup
            .attempts
            .judge(&lookup.query, server, HeldAnswer::new(&cached[..]))
        {
            AnswerAssessment::Usable(held, validated) => self.admit(now, key, held, validated, out),
            // This does not happen, because only usable answers are kept.
            AnswerAssessment::TryNext | AnswerAssessment::Invalid(_) => self.forward(now, key, out),
        }
        self.cached = cached;
    }

    /// Gives the expired answer of the cache, if there is one, because no upstream has an answer.
    /// Returns whether it did.
    pub(super) fn answer_stale(&mut self, now: Instant, key: LookupKey, out: &mut impl LookupOutput<W>) -> bool {
        let Some(lookup) = self.in_flight.get_mut(key) else {
            return false;
        };
        let (Some(cache), Some(place)) = (&mut self.cache, &lookup.key) else {
            return false;
        };
        if lookup.client_waiting.is_none() {
            cache.not_refreshed(now, place);
            return false;
        }
        if !std::mem::take(&mut lookup.stale) || !cache.find_stale(now, place, &lookup.query, &mut self.cached) {
            return false;
        }
        self.gate
            .observe(&mut self.worker_state, ProxyEvent::Cache(CacheOutcome::Stale));
        let upstream = lookup.attempts.first();
        // Without a key, the answer is not put into the cache as a fresh one.
        lookup.key = None;
        self.answer_from_cache(now, key, upstream, out);
        true
    }

    /// Starts a background lookup that refreshes a cached answer.
    pub(super) fn refresh(&mut self, now: Instant, again: Box<ActiveLookup<G, W>>, out: &mut impl LookupOutput<W>) {
        if self.start_background(now, again, out) {
            self.gate
                .observe(&mut self.worker_state, ProxyEvent::Cache(CacheOutcome::Refresh));
        }
    }

    /// Starts a background lookup, unless there are too many. Returns whether it did.
    pub(super) fn start_background(
        &mut self,
        now: Instant,
        lookup: Box<ActiveLookup<G, W>>,
        out: &mut impl LookupOutput<W>,
    ) -> bool {
        if self.background >= MAX_BACKGROUND {
            return false;
        }
        self.background += 1;
        let key = self.in_flight.insert(lookup);
        self.forward(now, key, out);
        true
    }
}

impl<G: Gate, W> ActiveLookup<G, W> {
    /// A background lookup of the same question, whose answer is for the cache only.
    pub(super) fn to_background(&self) -> Box<Self> {
        let mut again = Self::new(None, self.query.again(), self.attempts.again(), self.deadline);
        again.key = self.key.clone();
        Box::new(again)
    }
}
