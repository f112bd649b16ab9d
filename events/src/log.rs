//! The ring that writers and readers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use clock::Time;
use parking_lot::Mutex;

use crate::event::Event;
use crate::ring::{EventRing, EventSource, RingLimits};

/// The events of this node. Writers hold its lock for as long as it takes to put an event in its
/// place, and readers for as long as it takes to collect references.
#[derive(Debug)]
pub struct EventLog {
    ring: Mutex<EventRing>,
    /// Readers that want to see what is allowed, too.
    watchers: AtomicUsize,
}

/// Reads what is recorded, each event once.
///
/// While it exists, the log [is watched](EventLog::is_watched).
#[derive(Debug)]
pub struct EventReader {
    log: Arc<EventLog>,
    after: u64,
    left_out: u64,
}

/// What was recorded since a reader read last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventBatch {
    /// Numbers and events, in their order.
    pub events: Vec<(u64, Arc<Event>)>,
    /// How many events this reader has missed: recorded and forgotten since, or not recorded
    /// because their source had too many.
    pub lost: u64,
}

impl EventLog {
    /// An empty log.
    pub fn new(limits: RingLimits) -> Self {
        Self {
            ring: Mutex::new(EventRing::new(limits)),
            watchers: AtomicUsize::new(0),
        }
    }

    /// Whether somebody wants to see lookups and flows that are allowed. One load: to be asked on
    /// the hot path.
    #[inline]
    pub fn is_watched(&self) -> bool {
        self.watchers.load(Ordering::Relaxed) > 0
    }

    /// As [`EventRing::takes`].
    pub fn takes(&self, source: EventSource, now: Time) -> bool {
        self.ring.lock().takes(source, now)
    }

    /// Records an event.
    pub fn record(&self, source: EventSource, event: Event) {
        self.ring.lock().push(source, event);
    }

    /// How many events were not recorded since the start, because their source had too many.
    pub fn left_out(&self) -> u64 {
        self.ring.lock().left_out()
    }

    /// What is remembered: with it, how many events are forgotten or were never recorded.
    pub fn remembered(&self) -> EventBatch {
        let ring = self.ring.lock();
        let found = ring.since(0);
        EventBatch {
            events: found.events,
            lost: found.forgotten + ring.left_out(),
        }
    }

    /// A reader that begins with what is remembered.
    pub fn read_all(self: &Arc<Self>) -> EventReader {
        self.reader(0, 0)
    }

    /// A reader that begins with what comes.
    pub fn read_new(self: &Arc<Self>) -> EventReader {
        let (latest, left_out) = {
            let ring = self.ring.lock();
            (ring.latest(), ring.left_out())
        };
        self.reader(latest, left_out)
    }

    fn reader(self: &Arc<Self>, after: u64, left_out: u64) -> EventReader {
        self.watchers.fetch_add(1, Ordering::Relaxed);
        EventReader {
            log: Arc::clone(self),
            after,
            left_out,
        }
    }
}

impl EventReader {
    /// What was recorded since the last call. Never waits.
    pub fn next_batch(&mut self) -> EventBatch {
        let ring = self.log.ring.lock();
        let found = ring.since(self.after);
        let lost = found.forgotten + (ring.left_out() - self.left_out);
        self.after = ring.latest();
        self.left_out = ring.left_out();
        EventBatch {
            events: found.events,
            lost,
        }
    }
}

impl Drop for EventReader {
    fn drop(&mut self) {
        self.log.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::samples;
    use crate::sampler::SamplingRate;

    const POD: EventSource = EventSource::Others;

    #[test]
    fn a_reader_sees_each_event_once_and_is_told_of_those_that_it_missed() {
        let log = Arc::new(EventLog::new(RingLimits {
            total: 100,
            per_source: 2,
            rate: Some(SamplingRate {
                per_second: 1,
                burst: 4,
            }),
        }));
        assert!(!log.is_watched());
        log.record(POD, samples::lookup("shop/web", "before.example"));
        let (mut all, mut new) = (log.read_all(), log.read_new());
        assert!(log.is_watched());
        let seen = |reader: &mut EventReader| {
            let batch = reader.next_batch();
            (
                batch.events.iter().map(|(number, _)| *number).collect::<Vec<_>>(),
                batch.lost,
            )
        };
        assert_eq!(seen(&mut all), (vec![1], 0));
        assert_eq!(seen(&mut new), (vec![], 0));
        for _ in 0..6 {
            if log.takes(POD, Time::from_millis(0)) {
                log.record(POD, samples::lookup("shop/web", "after.example"));
            }
        }
        // Two of six were left out, and two of four forgotten.
        assert_eq!(seen(&mut new), (vec![4, 5], 4));
        assert_eq!(seen(&mut all), (vec![4, 5], 4));
        assert_eq!(seen(&mut all), (vec![], 0));
        drop((all, new));
        assert!(!log.is_watched());
    }
}
