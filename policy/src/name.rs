//! DNS names, in the one form that everything here compares them in.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

/// The longest name that a policy may write, in characters, without the trailing dot (semantics.md).
pub const MAX_NAME_CHARS: usize = 255;

/// A DNS name: lower case, with its trailing dot, in presentation form.
///
/// Octets outside printable ASCII, and any dot or backslash inside a label, are written as `\DDD`
/// (RFC 4343 §2.1), so that a `.` in the text is always a label border and such a label can match
/// no pattern. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// Two dots in a row, or a leading dot.
    #[error("it has an empty label (two dots in a row, or a dot at the start)")]
    EmptyLabel,
    /// Longer than [`MAX_NAME_CHARS`].
    #[error("it has {0} characters, and a name has at most {MAX_NAME_CHARS}")]
    TooLong(usize),
    /// A label of more than 63 octets (RFC 1035 §2.3.4).
    #[error("the label {0:?} has more than 63 characters")]
    LabelTooLong(String),
    /// A character that no policy name may hold.
    #[error("the character {0:?} is not one of a-z, 0-9, '-', '_' and '.'")]
    Character(char),
}

impl Name {
    /// Reads a name as a person writes it: any case, with or without the trailing dot.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        todo!("{text}")
    }

    /// Builds a name from the labels of a wire-format name, leftmost first, without the root.
    ///
    /// Never fails: whatever a packet may hold has an escaped form.
    pub fn from_wire_labels<'a>(labels: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let _ = labels.into_iter().count();
        todo!()
    }

    /// The root, `.`.
    pub fn root() -> Self {
        Self(Arc::from("."))
    }

    /// The name with its trailing dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The labels, rightmost (the top-level domain) first; none for the root.
    pub fn labels_from_the_right(&self) -> impl Iterator<Item = &str> {
        self.0
            .trim_end_matches('.')
            .rsplit('.')
            .filter(|label| !label.is_empty())
    }

    /// Whether this name is `zone` or lies below it.
    pub fn is_within(&self, zone: &Name) -> bool {
        todo!("{zone}")
    }
}

impl fmt::Display for Name {
    /// Without the trailing dot, as people write names; the root is `.`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.strip_suffix('.') {
            Some("") | None => f.write_str("."),
            Some(name) => f.write_str(name),
        }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
