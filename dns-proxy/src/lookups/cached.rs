//! Lookups and the answer cache. A cached answer is validated and admitted like one from an
//! upstream, and a popular one is asked for again before it expires.

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

/// How long upstreams are asked while the cache has an expired answer (RFC 8767 §5).
const STALE_PATIENCE: Duration = Duration::from_millis(1_800);

/// Lookups at a time that no client asked for, so that they do not crowd out those of clients.
const UNASKED: usize = 1_000;

/// What the cache has for a lookup that begins.
pub(super) enum CacheDecision {
    /// Its answer, which is asked for again meanwhile if `refresh`.
    Hit { refresh: bool },
    /// Nothing that could be given before upstreams were asked.
    Miss,
}

impl<G: Gate, W> Lookups<G, W> {
    /// Looks into the cache. A hit is written to the buffer.
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
                lookup.ask_until = lookup.deadline.min(now + STALE_PATIENCE);
                CacheDecision::Miss
            }
            CacheLookup::Miss => CacheDecision::Miss,
        }
    }

    /// *Validate* and what follows, for the answer in the buffer.
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
            // It was usable when it was kept, so it is.
            AnswerAssessment::TryNext | AnswerAssessment::Invalid(_) => self.forward(now, key, out),
        }
        self.cached = cached;
    }

    /// No upstream has an answer: gives the one that is past its time, if there is one.
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
        // It is kept already, and must not be taken for a fresh one.
        lookup.key = None;
        self.answer_from_cache(now, key, upstream, out);
        true
    }

    /// Asks again for what the cache has, for no client.
    pub(super) fn refresh(&mut self, now: Instant, again: Box<ActiveLookup<G, W>>, out: &mut impl LookupOutput<W>) {
        if self.start_unasked(now, again, out) {
            self.gate
                .observe(&mut self.worker_state, ProxyEvent::Cache(CacheOutcome::Refresh));
        }
    }

    /// Starts a lookup that no client asked for, unless there are too many. Whether it has.
    pub(super) fn start_unasked(
        &mut self,
        now: Instant,
        lookup: Box<ActiveLookup<G, W>>,
        out: &mut impl LookupOutput<W>,
    ) -> bool {
        if self.unasked >= UNASKED {
            return false;
        }
        self.unasked += 1;
        let key = self.in_flight.insert(lookup);
        self.forward(now, key, out);
        true
    }
}

impl<G: Gate, W> ActiveLookup<G, W> {
    /// The same question, for the cache alone.
    pub(super) fn again(&self) -> Box<Self> {
        let mut again = Self::new(None, self.query.again(), self.attempts.again(), self.deadline);
        again.key = self.key.clone();
        Box::new(again)
    }
}
