//! The one place that reads clocks.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::{Time, WallTime};

/// Now, on `CLOCK_BOOTTIME`.
#[inline]
pub fn now() -> Time {
    let now = clock_gettime(ClockId::Boottime);
    // Boot time is never negative and its sub-second part is below 10⁹ (clock_gettime(2)).
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let millis = u64::try_from(now.tv_nsec / 1_000_000).unwrap_or(0);
    Time::from_millis(seconds * 1_000 + millis)
}

/// Now, on the wall clock.
#[inline]
pub fn wall_now() -> WallTime {
    let now = clock_gettime(ClockId::Realtime);
    // A clock that is set to before 1970 shows its beginning.
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let millis = u64::try_from(now.tv_nsec / 1_000_000).unwrap_or(0);
    WallTime::from_millis(seconds * 1_000 + millis)
}

/// How much processor time the calling thread has had so far, that of its system calls included.
/// Unlike [`now`] it says what something cost on a machine that is busy with other work.
pub fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // Both parts are in bounds, as above.
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// Which boot [`now`] counts from; empty where the kernel does not say.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_owned()
}
