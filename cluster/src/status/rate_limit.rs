//! The rate limit of one agent's writes. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Writes that may come at once after a quiet time: a GitOps tool applies a whole repository in a
/// moment. The kubelet's own client is allowed as many.
const BURST: u32 = 100;
/// Between two writes in the long run: 50 a second, also as the kubelet.
const EACH: Duration = Duration::from_millis(20);

/// A bucket of [`BURST`] writes that is filled by one write each [`EACH`].
#[derive(Debug)]
pub(super) struct WriteRateLimit {
    /// When the bucket will be full.
    full_at: Instant,
}

impl WriteRateLimit {
    /// A full bucket.
    pub(super) fn new(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// When the next write may be made; not later than now where it may be made at once.
    pub(super) fn next(&self) -> Instant {
        self.full_at - EACH * (BURST - 1)
    }

    /// Takes one write from the bucket.
    pub(super) fn write(&mut self, now: Instant) {
        self.full_at = self.full_at.max(now) + EACH;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_comes_at_once_and_what_follows_at_its_pace() {
        let start = Instant::now() + Duration::from_secs(3_600);
        let mut pace = WriteRateLimit::new(start);
        let mut now = start;
        for number in 0..300 {
            now = now.max(pace.next());
            pace.write(now);
            if number < BURST {
                assert_eq!(now, start);
            }
        }
        assert_eq!(now - start, EACH * (300 - BURST));
        // After a quiet time there is a burst again, and no larger one.
        let later = now + Duration::from_secs(3_600);
        for _ in 0..BURST {
            assert!(pace.next() <= later);
            pace.write(later);
        }
        assert!(pace.next() > later);
    }
}
