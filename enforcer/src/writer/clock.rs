//! The clock that leases are counted on.

use fqdn_cache::Time;
use rustix::time::{ClockId, clock_gettime};

/// Now, as `CLOCK_BOOTTIME` says.
pub(super) fn now() -> Time {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    Time::from_millis(seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000))
}
