//! When to look, and when to repair.

use std::time::Duration;

use clock::Time;

/// How often it is asked whether anybody has changed a table.
pub(crate) const LOOK: Duration = Duration::from_millis(100);

/// How often the structure is looked at although nobody seems to have changed anything.
const ANYWAY: Duration = Duration::from_secs(30);

/// Keeps something from taking more than a share of the time, whatever asks for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeShare {
    /// One part in so many.
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

    /// Whether it may be done now.
    pub(crate) fn allows(&self, now: Time) -> bool {
        now >= self.not_before
    }

    /// Notes how long it took.
    pub(crate) fn took(&mut self, from: Time, to: Time) {
        self.not_before = to + to.since(from) * self.parts;
    }
}

/// Whether somebody else has changed a table: by the number of the last transaction, less our own.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ForeignChanges {
    /// The number, and how many transactions were our own by then; `None` before the first look.
    seen: Option<(u32, u32)>,
    looked: Time,
}

impl ForeignChanges {
    /// Whether there is reason to look at the structure: somebody has changed something, or it is
    /// long ago.
    pub(crate) fn is_due(&self, generation: u32, own: u32, now: Time) -> bool {
        let foreign = self
            .seen
            .is_none_or(|(seen, own_then)| generation != seen.wrapping_add(own.wrapping_sub(own_then)));
        foreign || now.since(self.looked) >= ANYWAY
    }

    /// Notes that at this number everything was looked at.
    pub(crate) fn looked(&mut self, generation: u32, own: u32, now: Time) {
        self.seen = Some((generation, own));
        self.looked = now;
    }
}

/// Repairs come at once, unless something goes on damaging: then at pauses that grow.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RepairBackoff {
    /// Repairs, and attempts that failed, that followed each other closely.
    streak: u32,
    last: Time,
}

/// So many in a row are done at once.
const AT_ONCE: u32 = 5;
/// The first pause, and the longest.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(10);
/// After so long without damage a streak is over.
const CALM: Duration = Duration::from_secs(60);

impl RepairBackoff {
    /// Whether it may be repaired now.
    pub(crate) fn allows(&self, now: Time) -> bool {
        now >= self.last + self.pause()
    }

    /// Notes a repair, or an attempt.
    pub(crate) fn repaired(&mut self, now: Time) {
        if now.since(self.last) >= CALM {
            self.streak = 0;
        }
        self.streak = self.streak.saturating_add(1);
        self.last = now;
    }

    /// How long it waits after the last one; zero while there is no reason to.
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
        share.took(at(0), at(10));
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
