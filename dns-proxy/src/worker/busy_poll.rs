//! Whether to poll for a moment before sleeping.
//!
//! Waking a thread takes some ten microseconds, more on a virtual processor: as long as everything
//! else that a worker does for a lookup. Where one lookup follows the other, a worker is woken just
//! after it went to sleep: a resolver on the same node answers within tens of microseconds, and a
//! client that asks one question after the other sends the next one as soon as it has its answer.
//! There the worker polls for [`SPIN_TIME`] before it sleeps.
//!
//! Polling spends the processor's time on latency, so two conditions bound it:
//! - *Lookups are frequent*: the last [`RECENT`] came within [`RECENT_SPAN`]. At fewer a second
//!   each lookup would pay for the time in which nothing happens. And hardly anything is in flight:
//!   under load one wake-up serves many lookups.
//! - *Polling pays off*: what arrives in the end arrives within [`WORTH`]. After each poll that
//!   took longer, in vain or not, twice as many opportunities are skipped as after the one before,
//!   up to [`MAX_SKIPPED`]. Other threads that are ready to run on the processor go first.

use std::time::{Duration, Instant};

/// How long to poll: as long as a resolver on the node takes that has the answer, its own wake-up
/// included. That is some 40 µs on a virtual machine, and twice that while its host is busy. A time
/// that is just too short is worse than none.
pub(super) const SPIN_TIME: Duration = Duration::from_micros(100);

/// After so many polls (a few microseconds) the worker yields the processor.
pub(super) const POLLS_PER_YIELD: usize = 8;

/// A poll that takes longer costs more than the wake-up that it saves.
const WORTH: Duration = Duration::from_micros(80);

/// Lookups by which their frequency is told. With fewer, those that come at random seem frequent
/// now and then.
const RECENT: usize = 16;

/// Five lookups a millisecond, which one client reaches that asks one after the other.
const RECENT_SPAN: Duration = Duration::from_micros(200 * RECENT as u64);

/// The A and AAAA that a stub resolver asks for at once.
const FEW: usize = 2;

/// At most one opportunity fewer than this is skipped in a row.
const MAX_SKIPPED: u32 = 128;

/// When to poll, by how frequent lookups are and how polling paid off lately.
#[derive(Debug, Default)]
pub(super) struct BusyPoll {
    recent: RecentLookups,
    answers: Backoff,
    queries: Backoff,
}

/// What a worker polls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PollTarget {
    /// The answers to lookups in flight.
    Answer,
    /// The next query of a client that was answered.
    Query,
}

/// When the last lookups came.
#[derive(Debug, Default)]
struct RecentLookups {
    /// A ring; `None` before there were so many.
    came: [Option<Instant>; RECENT],
    /// The place of the oldest.
    oldest: usize,
}

#[derive(Debug, Default)]
struct Backoff {
    /// How many opportunities were skipped after the last poll that did not pay off; 0 after one
    /// that did.
    pause: u32,
    /// How many opportunities are still to be skipped.
    left: u32,
}

impl BusyPoll {
    /// Records that so many lookups have come.
    pub(super) fn came(&mut self, now: Instant, lookups: usize) {
        self.recent.came(now, lookups);
    }

    /// What to poll for, if anything, when there is nothing else to do. `taken` datagrams were
    /// received in the last turn.
    pub(super) fn poll_target(&mut self, now: Instant, taken: usize, in_flight: usize) -> Option<PollTarget> {
        let few = 1..=FEW;
        let target = match in_flight {
            0 if few.contains(&taken) => PollTarget::Query,
            _ if few.contains(&in_flight) => PollTarget::Answer,
            _ => return None,
        };
        (self.recent.are_frequent(now) && self.backoff(target).take()).then_some(target)
    }

    /// Records how long the worker has polled, and whether something arrived.
    pub(super) fn record(&mut self, target: PollTarget, took: Duration, arrived: bool) {
        self.backoff(target).record(arrived && took <= WORTH);
    }

    fn backoff(&mut self, target: PollTarget) -> &mut Backoff {
        match target {
            PollTarget::Answer => &mut self.answers,
            PollTarget::Query => &mut self.queries,
        }
    }
}

impl RecentLookups {
    fn came(&mut self, now: Instant, lookups: usize) {
        for _ in 0..lookups.min(RECENT) {
            self.came[self.oldest] = Some(now);
            self.oldest = (self.oldest + 1) % RECENT;
        }
    }

    fn are_frequent(&self, now: Instant) -> bool {
        self.came[self.oldest].is_some_and(|oldest| now.saturating_duration_since(oldest) <= RECENT_SPAN)
    }
}

impl Backoff {
    fn take(&mut self) -> bool {
        let is_used = self.left == 0;
        self.left = self.left.saturating_sub(1);
        is_used
    }

    fn record(&mut self, paid_off: bool) {
        self.pause = match paid_off {
            true => 0,
            false => (2 * self.pause + 1).min(MAX_SKIPPED - 1),
        };
        self.left = self.pause;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_micros(40);

    /// A worker to which lookups have come at this interval, and the time.
    fn polling_at(interval: Duration) -> (BusyPoll, Instant) {
        let (mut poll, mut now) = (BusyPoll::default(), Instant::now());
        for _ in 0..100 {
            now += interval;
            poll.came(now, 1);
        }
        (poll, now)
    }

    fn busy() -> (BusyPoll, Instant) {
        polling_at(Duration::from_micros(120))
    }

    #[test]
    fn a_worker_polls_where_little_is_in_flight_and_never_under_load() {
        let (mut poll, now) = busy();
        assert_eq!(poll.poll_target(now, 1, 1), Some(PollTarget::Answer));
        assert_eq!(poll.poll_target(now, 0, 2), Some(PollTarget::Answer));
        assert_eq!(poll.poll_target(now, 2, 0), Some(PollTarget::Query));
        for (taken, in_flight) in [(0, 0), (3, 0), (64, 0), (1, 3), (1, 20_000)] {
            assert_eq!(
                poll.poll_target(now, taken, in_flight),
                None,
                "{taken} taken, {in_flight} in flight"
            );
        }
    }

    #[test]
    fn a_worker_sleeps_where_lookups_are_seldom_however_soon_answers_come() {
        for per_second in [1, 50, 500, 3_000] {
            let (mut poll, now) = polling_at(Duration::from_secs(1) / per_second);
            assert_eq!(poll.poll_target(now, 1, 1), None, "{per_second} a second");
            assert_eq!(poll.poll_target(now, 1, 0), None, "{per_second} a second");
        }
        for per_second in [6_000, 20_000] {
            let (mut poll, now) = polling_at(Duration::from_secs(1) / per_second);
            assert_eq!(
                poll.poll_target(now, 1, 1),
                Some(PollTarget::Answer),
                "{per_second} a second"
            );
        }
    }

    #[test]
    fn the_pair_of_a_stub_resolver_and_a_search_list_are_not_frequent() {
        let (mut poll, mut now) = (BusyPoll::default(), Instant::now());
        for _ in 0..100 {
            now += Duration::from_millis(50);
            for _ in 0..5 {
                now += Duration::from_micros(100);
                poll.came(now, 2);
                assert_eq!(poll.poll_target(now, 2, 2), None);
            }
        }
    }

    #[test]
    fn frequent_lookups_are_forgotten_when_they_end() {
        let (mut poll, now) = busy();
        assert_eq!(poll.poll_target(now + Duration::from_millis(3), 1, 1), None);
    }

    /// How often a worker polls for an answer, at so many opportunities, when it arrives after
    /// `took`, or never does.
    fn polls(poll: &mut BusyPoll, now: Instant, opportunities: usize, (took, arrived): (Duration, bool)) -> usize {
        let polls = |_: &usize| {
            let target = poll.poll_target(now, 1, 1);
            if let Some(target) = target {
                poll.record(target, took, arrived);
            }
            target.is_some()
        };
        (0..opportunities).filter(polls).count()
    }

    #[test]
    fn what_never_comes_in_time_or_comes_late_is_polled_for_ever_more_rarely() {
        for outcome in [(SPIN_TIME, false), (WORTH + Duration::from_micros(1), true)] {
            let (mut poll, now) = busy();
            assert_eq!(
                polls(&mut poll, now, 127, outcome),
                7,
                "after 0, 1, 3, 7, 15, 31 and 63 that were left out"
            );
            assert_eq!(polls(&mut poll, now, 12_800, outcome), 100);
            assert_eq!(poll.poll_target(now, 1, 0), Some(PollTarget::Query), "each for itself");
        }
    }

    #[test]
    fn what_comes_in_time_again_is_polled_for_each_time_again() {
        let (mut poll, now) = busy();
        polls(&mut poll, now, 1_000, (SPIN_TIME, false));
        assert!(polls(&mut poll, now, 200, (SOON, true)) > 100);
        assert_eq!(polls(&mut poll, now, 100, (SOON, true)), 100);
    }
}
