//! When to compare the kernel with what it should hold, and when to repair.

use std::time::Duration;

use clock::Time;

/// How often the kernel is asked whether anybody has changed a table: damage is found within this
/// time, and repaired in some 50 ms more.
pub(crate) const LOOK: Duration = Duration::from_millis(200);

/// How often the structure is compared although nobody seems to have changed anything.
const ANYWAY: Duration = Duration::from_secs(30);

/// Limits the processor time that an activity takes to a share of all time, however often it is
/// asked for. Not the time that it waits for a processor: on a busy machine damage would stay for
/// as many times as long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeShare {
    /// The share is one part in so many.
    parts: u32,
    not_before: Time,
}

impl TimeShare {
    pub(crate) fn one_in(parts: u32) -> Self {
        Self {
            parts,
            not_before: Time::default(),
        }
    }

    /// Whether the activity may begin now.
    pub(crate) fn allows(&self, now: Time) -> bool {
        now >= self.not_before
    }

    /// Notes when the activity ended, and how much processor time it took.
    pub(crate) fn took(&mut self, end: Time, cost: Duration) {
        self.not_before = end + cost * self.parts;
    }
}

/// Tells whether somebody else has changed a table, by the number of the kernel's last transaction
/// less our own.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ForeignChanges {
    /// The number and how many transactions had been our own by then; `None` before the first look.
    seen: Option<(u32, u32)>,
    looked: Time,
}

impl ForeignChanges {
    /// Whether the structure should be compared, because somebody has changed something or the last
    /// time is long ago.
    pub(crate) fn is_due(&self, generation: u32, own: u32, now: Time) -> bool {
        let foreign = self
            .seen
            .is_none_or(|(seen, own_then)| generation != seen.wrapping_add(own.wrapping_sub(own_then)));
        foreign || now.since(self.looked) >= ANYWAY
    }

    /// Notes that the structure was compared at this number.
    pub(crate) fn looked(&mut self, generation: u32, own: u32, now: Time) {
        self.seen = Some((generation, own));
        self.looked = now;
    }
}

/// Repairs are made at once. When something goes on damaging, they pause, and the pauses grow.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RepairBackoff {
    /// The number of repairs and failed attempts in close succession.
    streak: u32,
    last: Time,
}

/// So many in a row are made without a pause.
const AT_ONCE: u32 = 5;
/// The first pause and the longest one.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(10);
/// After so long without damage a streak is over.
const CALM: Duration = Duration::from_secs(60);

impl RepairBackoff {
    /// Whether a repair may be made now.
    pub(crate) fn allows(&self, now: Time) -> bool {
        now >= self.last + self.pause()
    }

    /// Notes a repair or a failed attempt.
    pub(crate) fn repaired(&mut self, now: Time) {
        if now.since(self.last) >= CALM {
            self.streak = 0;
        }
        self.streak = self.streak.saturating_add(1);
        self.last = now;
    }

    /// How long to wait after the last repair; zero at first.
    pub(crate) fn pause(&self) -> Duration {
        match self.streak.checked_sub(AT_ONCE) {
            None => Duration::ZERO,
            Some(more) => (SHORTEST * 2u32.saturating_pow(more.min(8))).min(LONGEST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_millis(100_000 + millis)
    }

    #[test]
    fn our_own_transactions_are_no_changes() {
        let mut changes = ForeignChanges::default();
        assert!(changes.is_due(7, 0, at(0)), "nothing was seen yet");
        changes.looked(u32::MAX, u32::MAX, at(0));
        assert!(!changes.is_due(u32::MAX, u32::MAX, at(100)));
        assert!(!changes.is_due(2, 2, at(100)), "numbers begin anew");
        assert!(changes.is_due(3, 2, at(100)), "one was somebody else's");
        assert!(changes.is_due(2, 2, at(30_000)), "long ago");
    }

    #[test]
    fn what_takes_long_is_done_less_often() {
        let mut share = TimeShare::one_in(20);
        assert!(share.allows(at(0)));
        share.took(at(10), Duration::from_millis(10));
        assert!(!share.allows(at(209)));
        assert!(share.allows(at(210)));
    }

    #[test]
    fn repairs_come_at_once_until_something_goes_on_damaging() {
        let mut backoff = RepairBackoff::default();
        for repair in 0..5 {
            assert!(backoff.allows(at(repair)), "{repair}");
            backoff.repaired(at(repair));
        }
        assert!(!backoff.allows(at(1_003)));
        assert!(backoff.allows(at(1_004)));
        for _ in 0..20 {
            backoff.repaired(at(2_000));
        }
        assert!(!backoff.allows(at(11_999)));
        assert!(backoff.allows(at(12_000)), "it never waits longer than that");
        backoff.repaired(at(80_000));
        assert!(backoff.allows(at(80_000)), "after a calm minute it begins anew");
    }
}
