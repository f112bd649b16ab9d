//! How long an address stays allowed.

use std::time::Duration;

/// The terms on which addresses are leased: `lease = max(ttl, min_ttl) + grace` (design.md, "Leases").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTerms {
    /// TTLs below this count as this. Default 0: the answer's own TTL.
    pub min_ttl: Duration,
    /// TTLs above this count as this (RFC 2181 §8 allows a cap); default one day.
    pub max_ttl: Duration,
    /// Added on top, for clients that use an address a little longer than its TTL. Default 30 s.
    pub grace: Duration,
}

impl Default for LeaseTerms {
    fn default() -> Self {
        Self {
            min_ttl: Duration::ZERO,
            max_ttl: Duration::from_secs(86_400),
            grace: Duration::from_secs(30),
        }
    }
}

impl LeaseTerms {
    /// The lease of an address whose smallest TTL along the chain is `ttl`.
    pub fn lease(&self, ttl: Duration) -> Duration {
        todo!("{ttl:?}")
    }
}
