//! How long a learned address stays allowed.

use std::time::Duration;

/// How the TTL of an answer becomes the length of a lease:
/// `lease = max(min(ttl, max_ttl), min_ttl) + grace`.
///
/// ```
/// use std::time::Duration;
/// use fqdn_cache::LeaseTiming;
///
/// let timing = LeaseTiming { grace: Duration::from_secs(30), ..LeaseTiming::default() };
/// assert_eq!(timing.lease(Duration::from_secs(300)), Duration::from_secs(330));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTiming {
    /// TTLs below this count as this. It wins over a smaller `max_ttl`. Default 0: the answer's own
    /// TTL.
    pub min_ttl: Duration,
    /// TTLs above this count as this (RFC 2181 §8 allows a cap); default one day.
    pub max_ttl: Duration,
    /// Added to the TTL, for clients that use an address a little longer. Default 30 s.
    pub grace: Duration,
}

impl Default for LeaseTiming {
    fn default() -> Self {
        Self {
            min_ttl: Duration::ZERO,
            max_ttl: Duration::from_secs(86_400),
            grace: Duration::from_secs(30),
        }
    }
}

impl LeaseTiming {
    /// The lease of an address whose smallest TTL along the chain is `ttl`.
    pub fn lease(&self, ttl: Duration) -> Duration {
        ttl.min(self.max_ttl).max(self.min_ttl).saturating_add(self.grace)
    }

    /// The longest possible lease.
    pub fn longest(&self) -> Duration {
        self.lease(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_lease_is_the_ttl_within_its_bounds_and_the_grace() {
        let terms = LeaseTiming {
            min_ttl: secs(60),
            max_ttl: secs(3_600),
            grace: secs(30),
        };
        assert_eq!(terms.lease(secs(0)), secs(90));
        assert_eq!(terms.lease(secs(60)), secs(90));
        assert_eq!(terms.lease(secs(300)), secs(330));
        assert_eq!(terms.lease(secs(86_400)), secs(3_630));
        assert_eq!(terms.longest(), secs(3_630));
    }

    #[test]
    fn the_least_ttl_wins_over_the_greatest() {
        let terms = LeaseTiming {
            min_ttl: secs(60),
            max_ttl: secs(10),
            grace: secs(0),
        };
        assert_eq!(terms.lease(secs(5)), secs(60));
        assert_eq!(terms.lease(secs(500)), secs(60));
    }

    #[test]
    fn extreme_terms_saturate() {
        let terms = LeaseTiming {
            max_ttl: Duration::MAX,
            grace: Duration::MAX,
            ..LeaseTiming::default()
        };
        assert_eq!(terms.lease(Duration::MAX), Duration::MAX);
    }
}
