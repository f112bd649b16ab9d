//! Which events are remembered, and which are lost. Pure.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use ahash::HashMap;
use clock::Time;

use crate::event::{Event, EventKind, EventVerdict};
use crate::sampler::{SamplingRate, TokenBucket};

/// Whose events share a part of the ring. Only a Pod has a part of its own: senders that nobody
/// knows can have any number of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventSource {
    /// News of policies and of the agent.
    Node,
    /// The Pod with this address.
    Pod(IpAddr),
    /// Everybody else.
    Others,
}

/// How much is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingLimits {
    /// Events in all.
    pub total: usize,
    /// Events of one source; of those that were allowed so many besides.
    pub per_source: usize,
    /// How fast lookups and requests of one source are recorded, and how fast its flows; `None`:
    /// whatever comes.
    pub rate: Option<SamplingRate>,
}

impl Default for RingLimits {
    /// Some 500 octets each: 8 MiB when full.
    fn default() -> Self {
        Self {
            total: 16_384,
            per_source: 1_024,
            rate: Some(SamplingRate {
                per_second: 100,
                burst: 200,
            }),
        }
    }
}

/// From so many sources on, those are forgotten that were silent long enough.
const BUCKETS: usize = 4_096;

/// Events, numbered from 1 without a gap.
///
/// Of a source that has more than its share the oldest is forgotten. When all is full, the source
/// that has most forgets its oldest. So a source that floods loses its own, and those that were
/// quiet lose nothing. What is allowed has a part of its own, so that whoever watches it drives out
/// nothing that was refused. Each operation costs the logarithm of the number of sources.
#[derive(Debug)]
pub struct EventRing {
    limits: RingLimits,
    parts: HashMap<PartKey, RingPart>,
    /// The parts with events, by how many they have.
    by_size: BTreeSet<(usize, PartKey)>,
    /// How much of its rate each source has left, for its flows and for the rest.
    buckets: HashMap<(EventSource, bool), TokenBucket>,
    held: usize,
    /// The number of the latest event.
    latest: u64,
    /// How many were not taken in.
    left_out: u64,
}

/// Whose events a part has, and whether they were allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct PartKey {
    source: EventSource,
    is_allowed: bool,
}

#[derive(Debug)]
struct RingPart {
    events: VecDeque<(u64, Arc<Event>)>,
}

/// What a reader finds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RingSlice {
    /// Numbers and events, in their order.
    pub events: Vec<(u64, Arc<Event>)>,
    /// How many events were recorded since, and are forgotten already.
    pub forgotten: u64,
}

impl EventRing {
    /// An empty ring.
    pub fn new(limits: RingLimits) -> Self {
        Self {
            limits,
            parts: HashMap::default(),
            by_size: BTreeSet::new(),
            buckets: HashMap::default(),
            held: 0,
            latest: 0,
            left_out: 0,
        }
    }

    /// Whether an event of `source` and this kind is to be recorded now. If it is not, it counts as
    /// left out.
    ///
    /// To be asked before an event is made, where making it costs something.
    pub fn takes(&mut self, source: EventSource, kind: EventKind, now: Time) -> bool {
        let Some(rate) = self.limits.rate else {
            return true;
        };
        let now = now.as_millis();
        if self.buckets.len() >= BUCKETS {
            self.buckets.retain(|_, bucket| !bucket.is_full(rate, now));
        }
        let key = (source, kind == EventKind::Flow);
        let bucket = self.buckets.entry(key).or_insert_with(|| TokenBucket::full(rate, now));
        let takes = bucket.take(rate, now);
        self.left_out += u64::from(!takes);
        takes
    }

    /// Counts events that could not be recorded.
    pub fn leave_out(&mut self, count: u64) {
        self.left_out += count;
    }

    /// Adds an event. Returns its number.
    pub fn push(&mut self, source: EventSource, event: Event) -> u64 {
        self.latest += 1;
        let source = PartKey {
            source,
            is_allowed: event.verdict == EventVerdict::Allowed,
        };
        let part = self.parts.entry(source).or_insert_with(RingPart::new);
        let before = part.events.len();
        part.events.push_back((self.latest, Arc::new(event)));
        if part.events.len() > self.limits.per_source {
            part.events.pop_front();
        }
        self.resized(source, before);
        while self.held > self.limits.total {
            // Of several that have most it is the one that has just got another event, unless that
            // is all it has.
            let mut largest = self.by_size.iter().rev().copied();
            let Some(first) = largest.next() else {
                break;
            };
            let (size, largest) = match first {
                (1, own) if own == source => largest.next().unwrap_or(first),
                (size, _) if size > 1 && self.by_size.contains(&(size, source)) => (size, source),
                _ => first,
            };
            if let Some(part) = self.parts.get_mut(&largest) {
                part.events.pop_front();
            }
            self.resized(largest, size);
        }
        self.latest
    }

    /// The events after number `after`, in their order.
    pub fn since(&self, after: u64) -> RingSlice {
        let mut events = Vec::new();
        for part in self.parts.values() {
            let from = part.events.partition_point(|(number, _)| *number <= after);
            events.extend(part.events.range(from..).cloned());
        }
        events.sort_unstable_by_key(|(number, _)| *number);
        let recorded = self.latest.saturating_sub(after);
        let found = u64::try_from(events.len()).unwrap_or(u64::MAX);
        RingSlice {
            events,
            forgotten: recorded.saturating_sub(found),
        }
    }

    /// How many events are remembered.
    pub fn len(&self) -> usize {
        self.held
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// How many events are remembered at the most.
    pub fn capacity(&self) -> usize {
        self.limits.total
    }

    /// The number of the latest event; 0 where there was none.
    pub fn latest(&self) -> u64 {
        self.latest
    }

    /// How many events were not recorded, because their source had too many.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// A part has other events than before, when it had so many.
    fn resized(&mut self, source: PartKey, before: usize) {
        let now = self.parts.get(&source).map_or(0, |part| part.events.len());
        self.by_size.remove(&(before, source));
        if now > 0 {
            self.by_size.insert((now, source));
        } else {
            // A Pod that is gone leaves nothing behind.
            self.parts.remove(&source);
        }
        self.held = self.held + now - before;
    }
}

impl RingPart {
    fn new() -> Self {
        Self {
            events: VecDeque::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::samples;

    fn ring(total: usize, per_source: usize) -> EventRing {
        EventRing::new(RingLimits {
            total,
            per_source,
            rate: None,
        })
    }

    fn pod(last: u8) -> EventSource {
        EventSource::Pod([10, 0, 0, last].into())
    }

    fn numbers(ring: &EventRing, after: u64) -> (Vec<u64>, u64) {
        let found = ring.since(after);
        (
            found.events.iter().map(|(number, _)| *number).collect(),
            found.forgotten,
        )
    }

    #[test]
    fn a_reader_is_told_what_it_has_missed() {
        let mut ring = ring(100, 3);
        for _ in 0..5 {
            ring.push(pod(1), samples::lookup("shop/web", "a.example"));
        }
        assert_eq!(numbers(&ring, 0), (vec![3, 4, 5], 2));
        assert_eq!(numbers(&ring, 4), (vec![5], 0));
        assert_eq!(numbers(&ring, 5), (vec![], 0));
    }

    #[test]
    fn a_source_that_floods_drives_out_its_own_also_when_all_is_full() {
        let mut ring = ring(12, 8);
        for number in 0..1_000 {
            if number % 300 == 0 {
                ring.push(pod(1), samples::lookup("shop/quiet", "a.example"));
            }
            ring.push(pod(2), samples::lookup("shop/loud", "b.example"));
            ring.push(pod(3), samples::lookup("shop/loud", "b.example"));
        }
        let found = ring.since(0).events;
        let quiet = found.iter().filter(|(_, event)| {
            let pod = event.source.as_ref().and_then(|end| end.pod.as_ref());
            pod.is_some_and(|pod| pod.name == "quiet")
        });
        assert_eq!((quiet.count(), found.len()), (4, 12), "loud ones share the rest");
    }

    #[test]
    fn one_source_is_sampled_and_others_are_not_by_its_fault() {
        let rate = SamplingRate {
            per_second: 10,
            burst: 20,
        };
        let mut ring = EventRing::new(RingLimits {
            rate: Some(rate),
            ..RingLimits::default()
        });
        let now = Time::from_millis(5);
        let taken = |ring: &mut EventRing, source, tries: u32| {
            let takes = |_: &u32| ring.takes(source, EventKind::Lookup, now);
            (0..tries).filter(takes).count()
        };
        assert_eq!(taken(&mut ring, pod(1), 100), 20);
        assert_eq!(taken(&mut ring, pod(2), 10), 10);
        assert_eq!(ring.left_out(), 80);
        assert!(ring.takes(pod(1), EventKind::Flow, now), "its flows are another matter");
    }

    #[test]
    fn what_is_allowed_drives_out_nothing_that_was_refused() {
        let mut ring = ring(100, 3);
        let refused = ring.push(pod(1), samples::lookup("shop/web", "a.example"));
        for _ in 0..10 {
            let allowed = Event {
                verdict: EventVerdict::Allowed,
                ..samples::lookup("shop/web", "b.example")
            };
            ring.push(pod(1), allowed);
        }
        let (found, forgotten) = numbers(&ring, 0);
        assert_eq!((found, forgotten), (vec![refused, 9, 10, 11], 7));
    }

    proptest! {
        #[test]
        fn bounds_hold_and_every_event_is_found_or_counted(
            pushes in proptest::collection::vec(0u8..6, 0..300),
            total in 1usize..40,
            per_source in 1usize..12,
            after in 0u64..300,
        ) {
            let mut ring = ring(total, per_source);
            for source in &pushes {
                ring.push(pod(*source), samples::lookup("shop/web", "a.example"));
            }
            let all = ring.since(0);
            prop_assert!(all.events.len() <= total);
            prop_assert_eq!(all.events.len() as u64 + all.forgotten, pushes.len() as u64);
            prop_assert!(all.events.is_sorted_by_key(|(number, _)| *number));
            if let Some((last, _)) = all.events.last() {
                prop_assert_eq!(*last, pushes.len() as u64, "the latest is there");
            }
            for source in 0..6 {
                let of_source = ring.parts.get(&PartKey { source: pod(source), is_allowed: false }).map_or(0, |part| part.events.len());
                prop_assert!(of_source <= per_source);
            }
            let later = ring.since(after);
            prop_assert!(later.events.iter().all(|(number, _)| *number > after));
        }
    }
}
