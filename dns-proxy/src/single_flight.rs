//! One copy of a question in flight, whichever worker it came to and however often (RFC 5452 §5,
//! "birthday attacks").
//!
//! Each copy of a question in flight, under an id and a port of its own, is one more chance for
//! every packet of a forger. So the first lookup of a question becomes the [`FlightLeader`], and
//! those that ask the same meanwhile wait for its result. They share the upstream's answer alone:
//! each lookup validates it, has it admitted for its own client, and replies under its own id.
//!
//! Lookups that differ in their [`QueryFlags`] only (flags, EDNS) cannot share an answer, and would
//! be further copies: a forged answer fits all of them. The one that comes first has UDP, the
//! others go by TCP.

use std::net::SocketAddr;
use std::sync::Arc;

use ahash::RandomState;
use hashbrown::HashTable;
use names::Name;
use parking_lot::{Mutex, MutexGuard};

use crate::client_query::{Query, QueryFlags};
use crate::lookup_key::LookupKey;
use crate::upstream::UpstreamFailure;

/// Workers that meet in one part of the table wait for each other; a power of two.
const SHARDS: usize = 64;

/// The questions in flight of all workers.
pub(crate) struct SingleFlight {
    shards: [Mutex<FlightShard>; SHARDS],
    /// Keyed at random: who makes up questions cannot have them meet in one place.
    hasher: RandomState,
}

struct FlightShard {
    /// By question; at most one for each question and list of upstreams.
    entries: HashTable<FlightEntry>,
    /// Flights that have begun here, so that no two have the same number.
    begun: u64,
}

struct FlightEntry {
    number: u64,
    hash: u64,
    name: Name,
    qtype: u16,
    qclass: u16,
    upstreams: Arc<[SocketAddr]>,
    flags: QueryFlags,
    waiting: Vec<FlightWaiter>,
}

/// A lookup of some worker that waits for a flight.
struct FlightWaiter {
    receiver: Arc<dyn FlightReceiver>,
    lookup: LookupKey,
}

/// A question in flight, held by the lookup that asks it. Dropped without an outcome, it sends
/// those that wait on their own way.
pub(crate) struct FlightLeader {
    /// `None` once it has ended.
    flights: Option<Arc<SingleFlight>>,
    hash: u64,
    number: u64,
}

/// What a lookup that is to be forwarded finds.
pub(crate) enum FlightRole {
    /// Nobody asks this: the lookup does.
    Leader(FlightLeader),
    /// Somebody does: [`FlightReceiver::flight_ended`] tells the result.
    Follower,
    /// Somebody asks the same question with other flags.
    OtherFlags,
}

/// Receives the results of flights for the lookups of one worker.
pub(crate) trait FlightReceiver: Send + Sync {
    /// Hands over the result of the flight that this lookup waits for. Any thread may call it.
    fn flight_ended(&self, lookup: LookupKey, result: FlightResult);
}

/// The result of a flight, for the lookups that waited for it.
#[derive(Debug, Clone)]
pub(crate) enum FlightResult {
    /// This upstream gave this answer, which belongs to the question.
    Answer {
        /// The upstream that answered.
        server: SocketAddr,
        /// Not validated for anybody but the lookup that led.
        answer: Arc<[u8]>,
    },
    /// No upstream did.
    Failure(Arc<UpstreamFailure>),
    /// It was given up early; an upstream may still have the answer.
    Abandoned,
}

impl SingleFlight {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            shards: std::array::from_fn(|_| {
                Mutex::new(FlightShard {
                    entries: HashTable::new(),
                    begun: 0,
                })
            }),
            hasher: RandomState::new(),
        })
    }

    /// Leads the question, or waits for who does, which is told through `receiver`.
    pub(crate) fn join(
        self: &Arc<Self>,
        query: &Query<'_>,
        upstreams: &Arc<[SocketAddr]>,
        receiver: &Arc<dyn FlightReceiver>,
        lookup: LookupKey,
    ) -> FlightRole {
        let question = query.question();
        let hash = self.hasher.hash_one((question.name.as_str(), question.qtype));
        let mut shard = self.shard(hash);
        let shard = &mut *shard;
        let asks_the_same = |entry: &FlightEntry| {
            entry.name == question.name
                && (entry.qtype, entry.qclass) == (question.qtype, question.qclass)
                && (Arc::ptr_eq(&entry.upstreams, upstreams) || entry.upstreams == *upstreams)
        };
        if let Some(entry) = shard.entries.find_mut(hash, asks_the_same) {
            if entry.flags != query.flags() {
                return FlightRole::OtherFlags;
            }
            entry.waiting.push(FlightWaiter {
                receiver: Arc::clone(receiver),
                lookup,
            });
            return FlightRole::Follower;
        }
        let number = shard.begun;
        shard.begun += 1;
        let entry = FlightEntry {
            number,
            hash,
            name: question.name.clone(),
            qtype: question.qtype,
            qclass: question.qclass,
            upstreams: Arc::clone(upstreams),
            flags: query.flags(),
            waiting: Vec::new(),
        };
        shard.entries.insert_unique(hash, entry, |entry| entry.hash);
        FlightRole::Leader(FlightLeader {
            flights: Some(Arc::clone(self)),
            hash,
            number,
        })
    }

    fn end(&self, hash: u64, number: u64) -> Vec<FlightWaiter> {
        let mut shard = self.shard(hash);
        match shard.entries.find_entry(hash, |entry| entry.number == number) {
            Ok(found) => found.remove().0.waiting,
            Err(_) => Vec::new(),
        }
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, FlightShard> {
        // The table takes its places from the lowest bits and its tags from the highest.
        let shard = &self.shards[(hash >> 32) as usize % SHARDS];
        shard.lock()
    }
}

impl FlightLeader {
    /// Ends it, and tells those that waited. `result` is made only if there are any.
    pub(crate) fn finish(mut self, result: impl FnOnce() -> FlightResult) {
        self.end(result);
    }

    fn end(&mut self, result: impl FnOnce() -> FlightResult) {
        let Some(flights) = self.flights.take() else {
            return;
        };
        let waiting = flights.end(self.hash, self.number);
        if waiting.is_empty() {
            return;
        }
        let result = result();
        for FlightWaiter { receiver, lookup } in waiting {
            receiver.flight_ended(lookup, result.clone());
        }
    }
}

impl Drop for FlightLeader {
    fn drop(&mut self) {
        self.end(|| FlightResult::Abandoned);
    }
}
