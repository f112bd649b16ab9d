//! One label of a pattern, as a condition on one label of a name.

use crate::name::is_label_octet;

use super::ONE_OR_MORE_LABELS;

/// What one label of a pattern matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PatternLabel<'a> {
    /// Exactly this label.
    Exact(&'a str),
    /// Any one plain label.
    One,
    /// One or more plain labels. Only the leftmost label of a pattern is this.
    OneOrMore,
    /// One plain label that the glob matches.
    Glob(Glob<'a>),
}

impl<'a> PatternLabel<'a> {
    /// Reads a label of a canonical text.
    pub(super) fn read(label: &'a str) -> Self {
        match (label, label.find('*'), label.rfind('*')) {
            ("*", ..) => PatternLabel::One,
            (ONE_OR_MORE_LABELS, ..) => PatternLabel::OneOrMore,
            (_, Some(first), Some(last)) => PatternLabel::Glob(Glob {
                prefix: &label[..first],
                middle: label.get(first + 1..last).unwrap_or(""),
                suffix: &label[last + 1..],
            }),
            _ => PatternLabel::Exact(label),
        }
    }
}

/// A label with stars and other characters: `prefix*suffix`, or `prefix*middle*suffix`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Glob<'a> {
    /// What stands before the first star.
    pub(crate) prefix: &'a str,
    /// What stands between the first star and the last, stars included; empty when there is one
    /// star.
    pub(crate) middle: &'a str,
    /// What stands after the last star.
    pub(crate) suffix: &'a str,
}

impl Glob<'_> {
    /// Whether it matches a plain label.
    pub(crate) fn matches(&self, label: &str) -> bool {
        label
            .strip_prefix(self.prefix)
            .and_then(|rest| rest.strip_suffix(self.suffix))
            .is_some_and(|inner| contains_in_order(inner, self.middle))
    }
}

/// Whether the literals between the stars of `middle` occur in `text` in their order, without
/// overlap.
pub(crate) fn contains_in_order(text: &str, middle: &str) -> bool {
    let mut rest = text;
    middle.split('*').all(|piece| match rest.find(piece) {
        // Taking the first occurrence leaves the most room for the pieces after it.
        Some(at) => {
            rest = &rest[at + piece.len()..];
            true
        }
        None => false,
    })
}

/// Whether a star may stand for this label of a name.
#[inline]
pub(crate) fn is_plain_label(label: &str) -> bool {
    label.bytes().all(is_label_octet)
}
