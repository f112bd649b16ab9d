//! How often something was seen, and when.

use std::time::{Duration, UNIX_EPOCH};

use api::Sightings;
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

    /// As a row tells it, at this moment.
    pub(super) fn shown(self, now: Time, wall: WallTime) -> Sightings {
        let [last_seen_ms_ago, first_seen_ms_ago] = [self.last, self.first].map(|then| ago(now, then));
        Sightings {
            last_seen: absolute(wall, last_seen_ms_ago),
            first_seen: absolute(wall, first_seen_ms_ago),
            last_seen_ms_ago,
            first_seen_ms_ago,
            count: self.count,
        }
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
