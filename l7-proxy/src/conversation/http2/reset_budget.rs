//! How many requests a client may take back.

use clock::Time;

/// So many a client may take back at once.
const BURST: u32 = 200;
/// So many more each second. Who gives up on calls gives up on some of them.
const EACH_SECOND: u32 = 100;

/// Counts requests that a client resets before their response has begun. Each costs the server the
/// begin of an answer that nobody reads, and the next may follow at once, whatever the limit of
/// streams (rapid reset, CVE-2023-44487).
#[derive(Debug)]
pub(super) struct ResetBudget {
    left: u32,
    filled: Time,
}

impl ResetBudget {
    pub(super) fn new(now: Time) -> Self {
        Self {
            left: BURST,
            filled: now,
        }
    }

    /// Takes one, if one is left.
    pub(super) fn takes(&mut self, now: Time) -> bool {
        let millis = u64::try_from(now.since(self.filled).as_millis()).unwrap_or(u64::MAX);
        let earned = millis.saturating_mul(u64::from(EACH_SECOND)) / 1000;
        if earned > 0 {
            self.filled = now;
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(earned).min(BURST);
        }
        let is_left = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_left
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_budget_is_spent_and_fills_again() {
        let begin = Time::from_millis(1000);
        let mut budget = ResetBudget::new(begin);
        let taken = (0..1000).filter(|_| budget.takes(begin)).count();
        assert_eq!(taken, 200);
        let later = begin + Duration::from_secs(1);
        let taken = (0..1000).filter(|_| budget.takes(later)).count();
        assert_eq!(taken, 100);
    }
}
