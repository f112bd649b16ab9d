//! How often something was seen, and when.

use std::time::{Duration, UNIX_EPOCH};

use clock::{Time, WallTime};

/// How often something was seen, and when first and last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) count: u64,
    first: Time,
    last: Time,
}

impl Seen {
    pub(super) fn once(now: Time) -> Self {
        Self {
            count: 1,
            first: now,
            last: now,
        }
    }

    pub(super) fn again(self, now: Time) -> Self {
        Self {
            count: self.count + 1,
            last: now,
            ..self
        }
    }

    #[cfg(test)]
    pub(super) fn first(self) -> Time {
        self.first
    }

    pub(super) fn last(self) -> Time {
        self.last
    }

    /// In milliseconds.
    pub(super) fn last_ago(self, now: Time) -> u64 {
        ago(now, self.last)
    }

    /// In milliseconds.
    pub(super) fn first_ago(self, now: Time) -> u64 {
        ago(now, self.first)
    }

    pub(super) fn last_text(self, now: Time, wall: WallTime) -> String {
        absolute(wall, ago(now, self.last))
    }

    pub(super) fn first_text(self, now: Time, wall: WallTime) -> String {
        absolute(wall, ago(now, self.first))
    }
}

/// In milliseconds.
fn ago(now: Time, then: Time) -> u64 {
    u64::try_from(now.since(then).as_millis()).unwrap_or(u64::MAX)
}

/// The moment so many milliseconds ago, as [`wall_text`] writes it.
fn absolute(wall: WallTime, ago: u64) -> String {
    wall_text(wall.before(Duration::from_millis(ago)))
}

/// A moment as RFC 3339 writes it, in UTC, with milliseconds.
pub fn wall_text(at: WallTime) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(at.as_millis())).to_string()
}
