//! How long to wait before a worker that died is started again.

use std::time::Duration;

/// A worker that was ready for so long before it died does not count as one that cannot live.
const A_WHILE: Duration = Duration::from_secs(1);
/// The pause after the second death in a row; each further one waits twice as long.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause: after that what made workers die is looked at by people, and may be over.
const LONGEST: Duration = Duration::from_secs(30);

/// The pauses between workers. The first death costs none.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    /// The pause after a worker that died; `ready_for`: how long it had been ready, if it was.
    pub(super) fn after(&mut self, ready_for: Option<Duration>) -> Duration {
        if ready_for.is_some_and(|time| time >= A_WHILE) {
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
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..12).map(|_| backoff.after(None).as_millis()).collect();
        assert_eq!(pauses[..5], [0, 100, 200, 400, 800]);
        assert_eq!(pauses[10..], [30_000, 30_000]);
    }

    #[test]
    fn a_worker_that_was_ready_for_a_while_is_started_again_at_once() {
        let mut backoff = Backoff::default();
        for _ in 0..6 {
            backoff.after(None);
        }
        assert_eq!(backoff.after(Some(A_WHILE)), Duration::ZERO);
        assert_eq!(backoff.after(Some(A_WHILE / 2)), FIRST, "ready, and dead in a moment");
        assert_eq!(backoff.after(Some(A_WHILE)), Duration::ZERO);
    }
}
