//! What the writer counts.

use std::sync::atomic::AtomicU64;

/// The writer's counters and gauges, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriterStats {
    /// Netlink transactions committed.
    pub transactions: u64,
    /// Netlink transactions that failed.
    pub failures: u64,
    /// Elements added or renewed.
    pub elements_written: u64,
    /// Elements that should be live in the kernel.
    pub elements: u64,
    /// Elements that the learned sets may hold in all.
    pub capacity: u64,
    /// Elements that were evicted from a full set before the end of their lease.
    pub evictions: u64,
    /// How many rulesets were installed.
    pub installs: u64,
    /// Times that the heartbeat had lapsed in fail-mode open, so that lookups passed the agent
    /// unobserved.
    pub gaps: u64,
}

/// The counters behind [`WriterStats`].
#[derive(Debug, Default)]
pub(super) struct WriterCounters {
    pub(super) transactions: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) elements_written: AtomicU64,
    pub(super) evictions: AtomicU64,
    pub(super) installs: AtomicU64,
}
