//! The ring that writers and readers share.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use clock::Time;
use parking_lot::Mutex;

use crate::event::{Event, EventKind};
use crate::ring::{EventRing, EventSource, RingLimits};

/// The events of this node. Writers hold its lock for as long as it takes to put an event in its
/// place, and readers for as long as it takes to collect references.
#[derive(Debug)]
pub struct EventLog {
    ring: Mutex<EventRing>,
    watchers: Watchers,
}

/// Readers that want to see what is allowed, too, by kind.
#[derive(Debug, Default)]
struct Watchers {
    /// In the order of [`EventKind::ALL`].
    counts: [AtomicUsize; EventKind::ALL.len()],
    hook: Mutex<Option<WatchHook>>,
}

/// What is told of the first watcher of a kind that comes, and of the last that goes.
struct WatchHook(Box<dyn Fn(EventKind, bool) + Send>);

/// Reads what is recorded, each event once.
///
/// While it exists, the log [is watched](EventLog::is_watched) for the kinds that it was made with.
#[derive(Debug)]
pub struct EventReader {
    log: Arc<EventLog>,
    watched: Vec<EventKind>,
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

/// Totals of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordedTotals {
    /// Events that are remembered.
    pub remembered: usize,
    /// Events that are remembered at the most.
    pub capacity: usize,
    /// Events that were recorded since the start.
    pub recorded: u64,
}

impl EventLog {
    /// An empty log.
    pub fn new(limits: RingLimits) -> Self {
        Self {
            ring: Mutex::new(EventRing::new(limits)),
            watchers: Watchers::default(),
        }
    }

    /// Whether somebody wants to see what is allowed of this kind. One load: to be asked on the hot
    /// path.
    #[inline]
    pub fn is_watched(&self, kind: EventKind) -> bool {
        self.watchers.of(kind).load(Ordering::Relaxed) > 0
    }

    /// Has `hook` told when a kind begins to be [watched](Self::is_watched), and when it ends to
    /// be; and at once of each kind that is. One at a time: a hook replaces the one before. It must
    /// not use this log.
    pub fn on_watch(&self, hook: impl Fn(EventKind, bool) + Send + 'static) {
        let mut current = self.watchers.hook.lock();
        let watched = EventKind::ALL.into_iter().filter(|kind| self.is_watched(*kind));
        watched.for_each(|kind| hook(kind, true));
        *current = Some(WatchHook(Box::new(hook)));
    }

    /// As [`EventRing::takes`].
    #[inline]
    pub fn takes(&self, source: EventSource, kind: EventKind, now: Time) -> bool {
        self.ring.lock().takes(source, kind, now)
    }

    /// As [`EventRing::leave_out`].
    pub fn leave_out(&self, count: u64) {
        self.ring.lock().leave_out(count);
    }

    /// Records an event.
    pub fn record(&self, source: EventSource, event: Event) {
        self.ring.lock().push(source, event);
    }

    /// How many events were not recorded since the start, because their source had too many.
    pub fn left_out(&self) -> u64 {
        self.ring.lock().left_out()
    }

    /// How much is remembered, and was recorded.
    pub fn totals(&self) -> RecordedTotals {
        let ring = self.ring.lock();
        RecordedTotals {
            remembered: ring.len(),
            capacity: ring.capacity(),
            recorded: ring.latest(),
        }
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

    /// A reader that begins with what is remembered, and watches these kinds.
    pub fn read_all(self: &Arc<Self>, watched: impl IntoIterator<Item = EventKind>) -> EventReader {
        self.reader(0, 0, watched)
    }

    /// A reader that begins with what comes, and watches these kinds.
    pub fn read_new(self: &Arc<Self>, watched: impl IntoIterator<Item = EventKind>) -> EventReader {
        self.read_after(u64::MAX, watched)
    }

    /// A reader that begins after the event with this number, and watches these kinds. A number
    /// that this log has not reached is of another one, and the reader begins with what comes.
    pub fn read_after(self: &Arc<Self>, after: u64, watched: impl IntoIterator<Item = EventKind>) -> EventReader {
        let (latest, left_out) = {
            let ring = self.ring.lock();
            (ring.latest(), ring.left_out())
        };
        self.reader(after.min(latest), left_out, watched)
    }

    fn reader(
        self: &Arc<Self>,
        after: u64,
        left_out: u64,
        watched: impl IntoIterator<Item = EventKind>,
    ) -> EventReader {
        let watched: Vec<EventKind> = watched.into_iter().collect();
        self.watchers.come(&watched);
        EventReader {
            log: Arc::clone(self),
            watched,
            after,
            left_out,
        }
    }
}

impl Watchers {
    #[inline]
    fn of(&self, kind: EventKind) -> &AtomicUsize {
        let [lookups, flows, requests, policies, agent] = &self.counts;
        match kind {
            EventKind::Lookup => lookups,
            EventKind::Flow => flows,
            EventKind::Request => requests,
            EventKind::Policy => policies,
            EventKind::Agent => agent,
        }
    }

    /// The lock keeps what the hook is told in the order in which it happened.
    fn come(&self, kinds: &[EventKind]) {
        let hook = self.hook.lock();
        for kind in kinds {
            if self.of(*kind).fetch_add(1, Ordering::Relaxed) == 0
                && let Some(WatchHook(hook)) = &*hook
            {
                hook(*kind, true);
            }
        }
    }

    fn go(&self, kinds: &[EventKind]) {
        let hook = self.hook.lock();
        for kind in kinds {
            if self.of(*kind).fetch_sub(1, Ordering::Relaxed) == 1
                && let Some(WatchHook(hook)) = &*hook
            {
                hook(*kind, false);
            }
        }
    }
}

impl fmt::Debug for WatchHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchHook").finish_non_exhaustive()
    }
}

impl EventReader {
    /// The number of the last event that it has read or missed.
    pub fn position(&self) -> u64 {
        self.after
    }

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
        self.log.watchers.go(&self.watched);
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
        log.record(POD, samples::lookup("shop/web", "before.example"));
        let (mut all, mut new) = (log.read_all([]), log.read_new([EventKind::Lookup]));
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
            if log.takes(POD, EventKind::Lookup, Time::from_millis(0)) {
                log.record(POD, samples::lookup("shop/web", "after.example"));
            }
        }
        // Two of six were left out, and two of four forgotten.
        assert_eq!(seen(&mut new), (vec![4, 5], 4));
        assert_eq!(seen(&mut all), (vec![4, 5], 4));
        assert_eq!(seen(&mut all), (vec![], 0));
    }

    #[test]
    fn a_reader_goes_on_where_another_ended_and_with_what_comes_in_another_log() {
        let log = Arc::new(EventLog::new(RingLimits::default()));
        let record = || log.record(POD, samples::lookup("shop/web", "a.example"));
        record();
        let mut first = log.read_all([]);
        first.next_batch();
        record();
        let numbers = |reader: &mut EventReader| {
            let batch = reader.next_batch();
            batch.events.iter().map(|(number, _)| *number).collect::<Vec<_>>()
        };
        assert_eq!(first.position(), 1);
        assert_eq!(numbers(&mut log.read_after(first.position(), [])), [2]);
        let mut of_another = log.read_after(900, []);
        record();
        assert_eq!(numbers(&mut of_another), [3]);
    }

    #[test]
    fn a_kind_is_watched_as_long_as_one_reader_wants_it() {
        let log = Arc::new(EventLog::new(RingLimits::default()));
        let before = log.read_new([EventKind::Lookup]);
        let (sender, told) = std::sync::mpsc::channel();
        log.on_watch(move |kind, is_watched| sender.send((kind, is_watched)).unwrap());
        let told = || told.try_iter().collect::<Vec<_>>();
        assert_eq!(told(), [(EventKind::Lookup, true)], "it was watched before");
        let flows = [0, 1].map(|_| log.read_all([EventKind::Flow]));
        assert_eq!(told(), [(EventKind::Flow, true)]);
        assert!(log.is_watched(EventKind::Flow) && !log.is_watched(EventKind::Request));
        let [first, second] = flows;
        drop(first);
        assert!(told().is_empty() && log.is_watched(EventKind::Flow));
        drop((second, before));
        assert_eq!(told(), [(EventKind::Flow, false), (EventKind::Lookup, false)]);
        assert!(!EventKind::ALL.iter().any(|kind| log.is_watched(*kind)));
    }
}
