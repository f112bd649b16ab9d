//! Bounds of numbers and durations, and why these.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use clap::builder::TypedValueParser;

use super::rejected::UnusableValue;

/// A parser of values within `bounds`; `why` is told to whom oversteps them.
pub(super) fn within<T>(
    parser: impl TypedValueParser<Value = T>,
    bounds: RangeInclusive<T>,
    why: &'static str,
) -> impl TypedValueParser<Value = T>
where
    T: PartialOrd + fmt::Display + Clone + Send + Sync + 'static,
{
    parser.try_map(move |value| match bounds.contains(&value) {
        true => Ok(value),
        false => {
            let (low, high) = (bounds.start(), bounds.end());
            let reason = format!("it must lie between {low} and {high} ({why})");
            Err(UnusableValue::new(value, reason))
        }
    })
}

/// A parser of durations within `bounds`.
pub(super) fn duration_within(
    bounds: RangeInclusive<Duration>,
    why: &'static str,
) -> impl TypedValueParser<Value = Duration> {
    let (low, high) = bounds.into_inner();
    let parser = |text: &str| humantime::parse_duration(text).map(HumanDuration);
    within(parser, HumanDuration(low)..=HumanDuration(high), why).map(|HumanDuration(value)| value)
}

/// A parser of durations up to a day.
pub(super) fn duration_within_day(why: &'static str) -> impl TypedValueParser<Value = Duration> {
    duration_within(Duration::ZERO..=Duration::from_secs(86_400), why)
}

/// A duration that is shown as people write it.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(super) struct HumanDuration(pub(super) Duration);

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}
