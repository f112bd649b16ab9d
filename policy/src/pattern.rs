//! Name patterns: what `matchName` and `matchPattern` mean (semantics.md, "Names and patterns").

use std::fmt;

use thiserror::Error;

use crate::name::{Name, NameError};

/// One validated `matchName` or `matchPattern`.
///
/// Two patterns are equal when they match the same names by construction (`A.example.` and
/// `a.example`), so a pattern may serve as the identity of a selector.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern {
    // The canonical text (lower case, trailing dot); the parsed form is the implementer's choice.
    text: std::sync::Arc<str>,
}

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PatternError {
    /// The text is empty.
    #[error("it is empty")]
    Empty,
    /// The text breaks a rule that names follow too.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl Pattern {
    /// A `matchName`: exactly this name.
    pub fn name(text: &str) -> Result<Self, PatternError> {
        todo!("{text}")
    }

    /// A `matchPattern`, with stars.
    pub fn pattern(text: &str) -> Result<Self, PatternError> {
        todo!("{text}")
    }

    /// Whether the pattern matches `name`. Cost: the length of the name.
    ///
    /// [`NameIndex`](crate::NameIndex) answers the same for many patterns at once.
    pub fn matches(&self, name: &Name) -> bool {
        todo!("{name}")
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Pattern {
    /// Without the trailing dot, as people write patterns.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            self.text
                .strip_suffix('.')
                .filter(|t| !t.is_empty())
                .unwrap_or(&self.text),
        )
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
