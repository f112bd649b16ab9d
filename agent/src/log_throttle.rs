//! Keeps what a client can bring about at will from filling the log.

use std::sync::atomic::{AtomicU64, Ordering};

use clock::Time;

/// The pause between two lines of one kind, in milliseconds.
const PAUSE: u64 = 1_000;

/// Lets one occurrence through each second, and counts the others. The metrics count them all.
#[derive(Debug, Default)]
pub struct Throttle {
    /// Milliseconds of [`Time`] before which nothing passes.
    next: AtomicU64,
    suppressed: AtomicU64,
}

impl Throttle {
    /// Whether this occurrence passes; if so, how many did not since the last that did.
    pub fn pass(&self, now: Time) -> Option<u64> {
        let now = now.as_millis();
        let next = self.next.load(Ordering::Relaxed);
        // Of several threads that find the pause over, one wins.
        let swap = |next| {
            self.next
                .compare_exchange(next, now + PAUSE, Ordering::Relaxed, Ordering::Relaxed)
        };
        if now >= next && swap(next).is_ok() {
            return Some(self.suppressed.swap(0, Ordering::Relaxed));
        }
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_passes_each_second_and_says_how_many_did_not() {
        let throttle = Throttle::default();
        let at = |millis| throttle.pass(Time::from_millis(millis));
        assert_eq!(at(5_000), Some(0));
        assert_eq!((at(5_001), at(5_999)), (None, None));
        assert_eq!(at(6_000), Some(2));
        assert_eq!(at(6_500), None);
    }
}
