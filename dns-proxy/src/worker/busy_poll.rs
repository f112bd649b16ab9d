//! Whether to poll for a moment before sleeping.
//!
//! Waking a thread takes some ten microseconds, more on a virtual processor: as long as everything
//! else that a worker does for a lookup. A lightly loaded worker is often woken just after it went
//! to sleep: a resolver on the same node answers within tens of microseconds, and a client that
//! walks its search list asks for the next name as soon as the last one failed. So a worker with
//! hardly anything in flight polls for [`SPIN_TIME`] before it sleeps. Under load it never does:
//! there one wake-up serves many lookups, and what counts is the processor's time.
//!
//! The cost is bounded. Other threads that are ready to run on the processor go first. After each
//! poll in vain twice as many opportunities are skipped as after the one before, up to
//! [`MAX_SKIPPED`]: where nothing ever arrives in time, polling costs less than a microsecond for
//! each lookup.

use std::time::Duration;

/// How long to poll: as long as a resolver on the node takes that has the answer, its own wake-up
/// included. That is some 40 µs on a virtual machine, and twice that while its host is busy. A time
/// that is just too short is worse than none.
pub(super) const SPIN_TIME: Duration = Duration::from_micros(100);

/// After so many polls (a few microseconds) the worker yields the processor.
pub(super) const POLLS_PER_YIELD: usize = 8;

/// The A and AAAA that a stub resolver asks for at once.
const FEW: usize = 2;

/// At most one opportunity fewer than this is skipped in a row.
const MAX_SKIPPED: u32 = 128;

/// When to poll, by how often polling paid off lately.
#[derive(Debug, Default)]
pub(super) struct BusyPoll {
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

#[derive(Debug, Default)]
struct Backoff {
    /// How many opportunities were skipped after the last poll in vain; 0 after a success.
    pause: u32,
    /// How many opportunities are still to be skipped.
    left: u32,
}

impl BusyPoll {
    /// What to poll for, if anything, when there is nothing else to do. `taken` datagrams were
    /// received in the last turn.
    pub(super) fn poll_target(&mut self, taken: usize, in_flight: usize) -> Option<PollTarget> {
        let few = 1..=FEW;
        let target = match in_flight {
            0 if few.contains(&taken) => PollTarget::Query,
            _ if few.contains(&in_flight) => PollTarget::Answer,
            _ => return None,
        };
        self.backoff(target).take().then_some(target)
    }

    /// Records whether something arrived while the worker polled.
    pub(super) fn record(&mut self, target: PollTarget, arrived: bool) {
        self.backoff(target).record(arrived);
    }

    fn backoff(&mut self, target: PollTarget) -> &mut Backoff {
        match target {
            PollTarget::Answer => &mut self.answers,
            PollTarget::Query => &mut self.queries,
        }
    }
}

impl Backoff {
    fn take(&mut self) -> bool {
        let is_used = self.left == 0;
        self.left = self.left.saturating_sub(1);
        is_used
    }

    fn record(&mut self, arrived: bool) {
        self.pause = match arrived {
            true => 0,
            false => (2 * self.pause + 1).min(MAX_SKIPPED - 1),
        };
        self.left = self.pause;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_looks_where_little_is_going_on_and_never_under_load() {
        let mut poll = BusyPoll::default();
        assert_eq!(poll.poll_target(1, 1), Some(PollTarget::Answer));
        assert_eq!(poll.poll_target(0, 2), Some(PollTarget::Answer));
        assert_eq!(poll.poll_target(2, 0), Some(PollTarget::Query));
        for (taken, in_flight) in [(0, 0), (3, 0), (64, 0), (1, 3), (1, 20_000)] {
            assert_eq!(
                poll.poll_target(taken, in_flight),
                None,
                "{taken} taken, {in_flight} in flight"
            );
        }
    }

    /// How often a worker looks for an answer that comes in time, or never does.
    fn looks(poll: &mut BusyPoll, backoff: usize, arrived: bool) -> usize {
        let look = |_: &usize| {
            let target = poll.poll_target(1, 1);
            if let Some(target) = target {
                poll.record(target, arrived);
            }
            target.is_some()
        };
        (0..backoff).filter(look).count()
    }

    #[test]
    fn what_never_comes_in_time_is_looked_for_ever_more_rarely() {
        let mut poll = BusyPoll::default();
        assert_eq!(
            looks(&mut poll, 127, false),
            7,
            "after 0, 1, 3, 7, 15, 31 and 63 that were left out"
        );
        assert_eq!(looks(&mut poll, 12_800, false), 100);
        assert_eq!(poll.poll_target(1, 0), Some(PollTarget::Query), "each for itself");
    }

    #[test]
    fn what_comes_in_time_again_is_looked_for_each_time_again() {
        let mut poll = BusyPoll::default();
        looks(&mut poll, 1_000, false);
        assert!(looks(&mut poll, 200, true) > 100);
        assert_eq!(looks(&mut poll, 100, true), 100);
    }
}
