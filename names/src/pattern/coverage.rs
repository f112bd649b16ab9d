//! Which patterns match everything that others match.

use super::Pattern;
use super::label::{PatternLabel, is_plain_label};

impl Pattern {
    /// Whether this pattern certainly matches every name that `other` matches.
    ///
    /// `false` may mean that it cannot be told (`a*b*c.example` and `a*c.example`, for example).
    pub fn covers(&self, other: &Pattern) -> bool {
        if self == other || self.is_every_name() {
            return true;
        }
        if other.is_every_name() {
            return false;
        }
        let mut others = other.parts_from_the_right();
        for part in self.parts_from_the_right() {
            let Some(other) = others.next() else { return false };
            let is_covered = match (part, other) {
                (PatternLabel::OneOrMore, other) => return is_plain(other) && others.all(is_plain),
                (part, other) if part == other => true,
                (_, PatternLabel::OneOrMore) => false,
                (PatternLabel::One, other) => is_plain(other),
                (PatternLabel::Glob(glob), PatternLabel::Exact(label)) => is_plain_label(label) && glob.matches(label),
                _ => false,
            };
            if !is_covered {
                return false;
            }
        }
        others.next().is_none()
    }
}

fn is_plain(part: PatternLabel<'_>) -> bool {
    match part {
        PatternLabel::Exact(label) => is_plain_label(label),
        PatternLabel::One | PatternLabel::OneOrMore | PatternLabel::Glob(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(pattern: &str, other: &str) -> bool {
        let read = |text| Pattern::pattern(text).unwrap();
        read(pattern).covers(&read(other))
    }

    #[test]
    fn a_pattern_covers_another_when_no_name_tells_them_apart() {
        for (other, pattern) in [
            ("a.example", "a.example"),
            ("a.example", "*.example"),
            ("a.example", "*"),
            ("*.example", "**.example"),
            ("a.b.example", "**.example"),
            ("**.b.example", "**.example"),
            ("api-eu.example", "api-*.example"),
            ("api-*.example", "*.example"),
        ] {
            assert!(covers(pattern, other), "{other} {pattern}");
        }
        for (other, pattern) in [
            ("example", "*.example"),
            ("a.b.example", "*.example"),
            ("**.example", "*.example"),
            ("**.example", "**.b.example"),
            ("*.example", "api-*.example"),
            ("*", "**.example"),
            ("a.example", "b.example"),
        ] {
            assert!(!covers(pattern, other), "{other} {pattern}");
        }
    }
}
