//! How many events of one source are taken in.

/// How many events of one source are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SamplingRate {
    /// A second, on and on.
    pub per_second: u32,
    /// At once, after a silence.
    pub burst: u32,
}

/// A token bucket in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TokenBucket {
    /// In thousandths of a token.
    level: u64,
    /// When it was filled last, in milliseconds.
    filled: u64,
}

impl TokenBucket {
    pub(crate) fn full(rate: SamplingRate, now: u64) -> Self {
        Self {
            level: u64::from(rate.burst) * 1_000,
            filled: now,
        }
    }

    /// Whether it has all its tokens by now, as a new one has.
    pub(crate) fn is_full(&self, rate: SamplingRate, now: u64) -> bool {
        self.level_at(rate, now) == u64::from(rate.burst) * 1_000
    }

    /// Takes a token, if there is one.
    pub(crate) fn take(&mut self, rate: SamplingRate, now: u64) -> bool {
        self.level = self.level_at(rate, now);
        self.filled = now.max(self.filled);
        match self.level.checked_sub(1_000) {
            Some(left) => {
                self.level = left;
                true
            }
            None => false,
        }
    }

    fn level_at(&self, rate: SamplingRate, now: u64) -> u64 {
        let passed = now.saturating_sub(self.filled);
        let filled = self.level.saturating_add(passed.saturating_mul(rate.per_second.into()));
        filled.min(u64::from(rate.burst) * 1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_so_many_a_second() {
        let rate = SamplingRate {
            per_second: 10,
            burst: 3,
        };
        let mut bucket = TokenBucket::full(rate, 0);
        let mut taken = |now, tries: u32| (0..tries).filter(|_| bucket.take(rate, now)).count();
        assert_eq!(taken(0, 10), 3);
        assert_eq!(taken(99, 10), 0);
        assert_eq!(taken(100, 10), 1);
        assert_eq!(taken(60_000, 10), 3, "no more than a burst is saved up");
        assert_eq!(taken(0, 10), 0, "time that goes back fills nothing");
    }
}
