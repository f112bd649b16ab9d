//! How long the supervisor waits before it starts a worker again.

use std::time::Duration;

/// A worker that was ready for this long before it died resets the back-off.
const STABLE: Duration = Duration::from_secs(1);
/// The pause after the second death in a row. It doubles with each further death.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(30);

/// An exponential back-off between workers. There is no pause after the first death.
#[derive(Debug, Default)]
pub(crate) struct RestartBackoff {
    next: Duration,
}

impl RestartBackoff {
    /// The pause after the death of a worker. `ready_for` is how long it was ready, `None` if
    /// never.
    pub(crate) fn after(&mut self, ready_for: Option<Duration>) -> Duration {
        if ready_for.is_some_and(|time| time >= STABLE) {
            self.next = Duration::ZERO;
        }
        let pause = self.next;
        self.next = (pause * 2).clamp(FIRST, LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_while_workers_die_at_their_start() {
        let mut backoff = RestartBackoff::default();
        let pauses: Vec<u128> = (0..12).map(|_| backoff.after(None).as_millis()).collect();
        assert_eq!(pauses[..5], [0, 100, 200, 400, 800]);
        assert_eq!(pauses[10..], [30_000, 30_000]);
    }

    #[test]
    fn a_worker_that_was_ready_for_a_while_is_started_again_at_once() {
        let mut backoff = RestartBackoff::default();
        for _ in 0..6 {
            backoff.after(None);
        }
        assert_eq!(backoff.after(Some(STABLE)), Duration::ZERO);
        assert_eq!(backoff.after(Some(STABLE / 2)), FIRST, "ready, and dead in a moment");
        assert_eq!(backoff.after(Some(STABLE)), Duration::ZERO);
    }
}
