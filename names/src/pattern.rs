//! Name patterns: what `matchName` and `matchPattern` mean (docs/policies.md, "Names and
//! patterns").

mod coverage;
mod label;
#[cfg(test)]
pub(crate) mod samples;

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::name::{MAX_NAME_CHARS, Name, NameError, check_label};

pub(crate) use self::label::{Glob, PatternLabel, contains_in_order, is_plain_label};

/// One validated `matchName` or `matchPattern`.
///
/// Two patterns are equal when they match the same names by construction (`A.example.` and
/// `a.example`), so a pattern may serve as the identity of a selector.
///
/// ```
/// use names::{Name, Pattern};
///
/// let matches = |pattern: &str, name: &str| {
///     Pattern::pattern(pattern).unwrap().matches(&Name::parse(name).unwrap())
/// };
/// assert!(matches("*.example.com", "a.example.com"));
/// assert!(!matches("*.example.com", "a.b.example.com"), "a star stands for one label");
/// assert!(matches("**.example.com", "a.b.example.com"), "and two for one or more");
/// assert!(!matches("**.example.com", "example.com"));
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern {
    /// The canonical text: lower case, trailing dot, no two stars in a row except in a leading
    /// `**.`, and `*.` for what matches every name. Its labels are read as [`PatternLabel`]s
    /// wherever they are needed.
    text: Arc<str>,
}

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PatternError {
    /// The text is empty.
    #[error("it is empty")]
    Empty,
    /// A character that no pattern may hold.
    #[error("the character {0:?} is not one of a-z, 0-9, '-', '_', '.' and '*'")]
    Character(char),
    /// The text breaks a rule that names follow too.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl Pattern {
    /// A `matchName`: exactly this name. The root is not one.
    pub fn name(text: &str) -> Result<Self, PatternError> {
        match text {
            "" => Err(PatternError::Empty),
            "." => Err(NameError::EmptyLabel.into()),
            _ => Ok(Self {
                text: Arc::from(Name::parse(text)?.as_str()),
            }),
        }
    }

    /// A `matchPattern`, with stars.
    #[expect(
        clippy::self_named_constructors,
        reason = "named, like `name`, after the field that is read"
    )]
    pub fn pattern(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if let Some(stranger) = text.chars().find(|&c| !is_pattern_char(c)) {
            return Err(PatternError::Character(stranger));
        }
        let body = text.strip_suffix('.').unwrap_or(text);
        if body.len() > MAX_NAME_CHARS {
            return Err(NameError::TooLong(body.len()).into());
        }
        if is_all_stars(body) {
            return Ok(Self {
                text: Arc::from(EVERY_NAME),
            });
        }
        let mut canonical = String::with_capacity(body.len() + 1);
        for (position, label) in body.split('.').enumerate() {
            if position == 0 && is_all_stars(label) && label.len() > 1 {
                canonical.push_str(ONE_OR_MORE_LABELS);
            } else {
                push_canonical_label(&mut canonical, label)?;
            }
            canonical.push('.');
        }
        Ok(Self {
            text: Arc::from(canonical),
        })
    }

    /// Whether the pattern matches `name`. Cost: the length of the name, times the stars inside a
    /// label.
    ///
    /// [`NameIndex`](crate::NameIndex) answers the same for many patterns at once.
    pub fn matches(&self, name: &Name) -> bool {
        if self.is_every_name() {
            return true;
        }
        let mut labels = name.labels_from_the_right();
        for part in self.parts_from_the_right() {
            let matches = match (part, labels.next()) {
                (PatternLabel::OneOrMore, Some(next)) => return is_plain_label(next) && labels.all(is_plain_label),
                (PatternLabel::Exact(text), Some(label)) => label == text,
                (PatternLabel::One, Some(label)) => is_plain_label(label),
                (PatternLabel::Glob(glob), Some(label)) => is_plain_label(label) && glob.matches(label),
                (_, None) => false,
            };
            if !matches {
                return false;
            }
        }
        labels.next().is_none()
    }

    /// The canonical text.
    #[inline]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it matches every name, the root and names with unusual octets too.
    #[inline]
    pub fn is_every_name(&self) -> bool {
        *self.text == *EVERY_NAME
    }

    /// The labels as conditions, rightmost first. Meaningless for
    /// [`is_every_name`](Self::is_every_name).
    pub(crate) fn parts_from_the_right(&self) -> impl Iterator<Item = PatternLabel<'_>> {
        self.text.trim_end_matches('.').rsplit('.').map(PatternLabel::read)
    }
}

impl fmt::Display for Pattern {
    /// Without the trailing dot, as people write patterns.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text.strip_suffix('.').unwrap_or(&self.text))
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const EVERY_NAME: &str = "*.";
const ONE_OR_MORE_LABELS: &str = "**";

fn is_pattern_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '*')
}

fn is_all_stars(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|c| c == b'*')
}

/// Folds case and makes one star of a run. Stars can stand for nothing, so they do not count for
/// the length, except that a label of stars alone is not empty.
fn push_canonical_label(canonical: &mut String, label: &str) -> Result<(), NameError> {
    if !is_all_stars(label) {
        let stars = label.bytes().filter(|&c| c == b'*').count();
        check_label(label, label.len() - stars)?;
    }
    let mut after_star = false;
    for c in label.chars() {
        if c != '*' || !after_star {
            canonical.push(c.to_ascii_lowercase());
        }
        after_star = c == '*';
    }
    Ok(())
}

#[cfg(test)]
mod tests;
