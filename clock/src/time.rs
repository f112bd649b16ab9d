//! Time as data.

use std::ops::Add;
use std::time::Duration;

/// A moment: milliseconds of the machine's boot-time clock (`CLOCK_BOOTTIME`).
///
/// Boot time never jumps, goes on during suspend, and is shared by processes, so that a restarted
/// agent reads the moments that its predecessor wrote. Kernel set timeouts end with a reboot, and
/// so does this clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(u64);

impl Time {
    /// From milliseconds since boot.
    #[inline]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since boot.
    #[inline]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// How long from `earlier` to `self`; zero when `earlier` is later.
    #[inline]
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    /// Saturates; sub-millisecond parts are dropped.
    #[inline]
    fn add(self, duration: Duration) -> Time {
        Time(
            self.0
                .saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
        )
    }
}

/// A moment of the wall clock: milliseconds since the beginning of 1970 (UTC), leap seconds left
/// out.
///
/// For people and for files. The wall clock jumps when somebody sets it, so nothing ends by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WallTime(u64);

impl WallTime {
    /// From milliseconds since 1970.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// So long before; the beginning of 1970 where that is later.
    pub fn before(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
        )
    }
}
