//! Numbers with their defaults, their bounds, and why these.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::rejected::{RejectedOption, rejected};

/// A number with its default, its bounds, and why these.
pub(super) struct OptionBounds<T> {
    pub(super) option: &'static str,
    pub(super) default: T,
    bounds: RangeInclusive<T>,
    why: &'static str,
}

/// The value given, or the default; refused with the bounds when it lies outside them.
pub(super) fn within<T: PartialOrd + fmt::Display>(
    bound: OptionBounds<T>,
    given: Option<T>,
) -> Result<T, RejectedOption> {
    let value = given.unwrap_or(bound.default);
    if bound.bounds.contains(&value) {
        return Ok(value);
    }
    let (low, high) = bound.bounds.into_inner();
    let reason = format!("it must lie between {low} and {high} ({})", bound.why);
    Err(rejected(bound.option, value, reason))
}

pub(super) const SET_CAPACITY: OptionBounds<u32> = OptionBounds {
    option: "set-capacity",
    default: 65_536,
    bounds: 1..=8_388_608,
    why: "the kernel keeps room for twice as many, about 150 bytes each",
};
pub(super) const MAX_NAMES: OptionBounds<usize> = OptionBounds {
    option: "max-names",
    default: 100_000,
    bounds: 1..=10_000_000,
    why: "each takes some hundred bytes of memory",
};
pub(super) const MAX_ADDRESSES: OptionBounds<usize> = OptionBounds {
    option: "max-addresses-per-name",
    default: 1_000,
    bounds: 1..=100_000,
    why: "one answer holds at most about 4,000 addresses",
};
pub(super) const COMMIT_DEADLINE: OptionBounds<HumanDuration> = OptionBounds {
    option: "commit-deadline",
    default: HumanDuration(Duration::from_secs(1)),
    bounds: HumanDuration(Duration::from_millis(10))..=HumanDuration(Duration::from_secs(5)),
    why: "another agent's transaction can hold the kernel up for 80ms, and clients ask again after 5s",
};
pub(super) const DNS_CACHE: OptionBounds<usize> = OptionBounds {
    option: "dns-cache",
    default: 0,
    bounds: 0..=10_000_000,
    why: "each answer takes some 500 bytes of memory",
};
pub(super) const DNS_CACHE_STALE: OptionBounds<HumanDuration> = OptionBounds {
    option: "dns-cache-stale",
    default: HumanDuration(Duration::from_secs(86_400)),
    bounds: HumanDuration(Duration::ZERO)..=HumanDuration(Duration::from_secs(259_200)),
    why: "RFC 8767 section 5 suggests one to three days at most",
};
pub(super) const MIN_TTL: OptionBounds<HumanDuration> = OptionBounds {
    option: "min-ttl",
    default: HumanDuration(Duration::ZERO),
    bounds: HumanDuration(Duration::ZERO)..=HumanDuration(Duration::from_secs(86_400)),
    why: "a longer one keeps addresses open that the name has left",
};
/// RFC 2181 §8 allows a cap.
pub(super) const MAX_TTL: OptionBounds<HumanDuration> = OptionBounds {
    option: "max-ttl",
    default: HumanDuration(Duration::from_secs(86_400)),
    bounds: HumanDuration(Duration::from_secs(1))..=HumanDuration(Duration::from_secs(604_800)),
    why: "RFC 8767 §4 recommends to cap at seven days",
};
pub(super) const GRACE: OptionBounds<HumanDuration> = OptionBounds {
    option: "grace",
    default: HumanDuration(Duration::from_secs(30)),
    bounds: HumanDuration(Duration::ZERO)..=HumanDuration(Duration::from_secs(86_400)),
    why: "a longer one keeps addresses open that the name has left",
};
pub(super) const TPROXY_PORT: OptionBounds<u16> = OptionBounds {
    option: "tproxy-port",
    default: 15353,
    bounds: 1..=u16::MAX,
    why: "0 is no port",
};
pub(super) const TPROXY_TABLE: OptionBounds<u32> = OptionBounds {
    option: "tproxy-table",
    default: 5353,
    bounds: 1..=u32::MAX,
    why: "0 names no table",
};

/// A duration that is shown as people write it.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(super) struct HumanDuration(pub(super) Duration);

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}
