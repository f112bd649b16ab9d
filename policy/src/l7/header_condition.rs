//! What an entry of `rules.http` asks of headers, and does to them.

use std::fmt;

use super::http_request::HttpRequest;

/// One entry of `headers`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HeaderCondition {
    /// In lower case.
    pub name: String,
    /// The exact value; `None` where it suffices that the header is there.
    pub value: Option<String>,
}

/// One entry of `headerMatches`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HeaderMatch {
    /// In lower case.
    pub name: String,
    /// The expected value; `None` where it suffices that the header is there.
    pub value: Option<String>,
    /// What is done where the request has another value. `None`: the entry does not match then.
    pub mismatch: Option<HeaderMismatch>,
}

/// What is done with a request whose header is not as expected. It counts as a match in each case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HeaderMismatch {
    /// It is recorded.
    Log,
    /// The expected value is added, as another line.
    Add,
    /// The header is taken out.
    Delete,
    /// The header is set to the expected value.
    Replace,
}

/// A change of the headers of a request, before it is forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HeaderChange<'r> {
    /// A line is added.
    Add {
        /// In lower case.
        name: &'r str,
        /// The value of the line.
        value: &'r str,
    },
    /// Every line with this name is taken out.
    Delete {
        /// In lower case.
        name: &'r str,
    },
    /// Every line with this name gives way to one.
    Replace {
        /// In lower case.
        name: &'r str,
        /// The value of the line.
        value: &'r str,
    },
}

/// Something about a header that is to be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeaderNote<'r> {
    /// In lower case.
    pub name: &'r str,
    /// What was noticed. Values are not recorded: they may be secrets.
    pub kind: HeaderNoteKind,
}

/// What was noticed about a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HeaderNoteKind {
    /// The expected value was not there.
    Missing,
    /// A value that is not the expected one was there.
    Rejected,
}

impl HeaderCondition {
    pub(super) fn holds(&self, request: &HttpRequest<'_>) -> bool {
        let value = request.header(&self.name);
        match &self.value {
            None => value.is_some(),
            Some(wanted) => value.is_some_and(|value| *value == *wanted.as_bytes()),
        }
    }
}

impl HeaderMatch {
    /// What no request has: a header that nobody may send with a value that nothing tells.
    pub(crate) fn impossible(name: String) -> Self {
        Self {
            name,
            // No value of a header holds a line break (RFC 9110 §5.5).
            value: Some("\n".to_owned()),
            mismatch: None,
        }
    }

    /// Whether a request matches, with what is to be changed and recorded.
    pub(super) fn apply<'r>(
        &'r self,
        request: &HttpRequest<'_>,
        changes: &mut Vec<HeaderChange<'r>>,
        notes: &mut Vec<HeaderNote<'r>>,
    ) -> bool {
        let found = request.header(&self.name);
        let is_as_expected = match (&self.value, &found) {
            (None, found) => found.is_some(),
            (Some(wanted), Some(value)) => are_equal(value, wanted.as_bytes()),
            (Some(_), None) => false,
        };
        if is_as_expected {
            return true;
        }
        let name = self.name.as_str();
        let value = self.value.as_deref().unwrap_or_default();
        let mut note = |kind| notes.push(HeaderNote { name, kind });
        match self.mismatch {
            None => return false,
            Some(HeaderMismatch::Log) => note(HeaderNoteKind::Missing),
            Some(HeaderMismatch::Add) => {
                note(HeaderNoteKind::Missing);
                changes.push(HeaderChange::Add { name, value });
            }
            Some(HeaderMismatch::Delete) => {
                if found.is_some() {
                    note(HeaderNoteKind::Rejected);
                    changes.push(HeaderChange::Delete { name });
                }
            }
            Some(HeaderMismatch::Replace) => {
                note(HeaderNoteKind::Missing);
                if found.is_some() {
                    note(HeaderNoteKind::Rejected);
                }
                changes.push(HeaderChange::Replace { name, value });
            }
        }
        true
    }
}

/// Compares in a time that does not tell where values differ: the expected one may be a secret.
fn are_equal(a: &[u8], b: &[u8]) -> bool {
    let differing = a.iter().zip(b).fold(0, |differing, (a, b)| differing | (a ^ b));
    std::hint::black_box(differing) == 0 && a.len() == b.len()
}

/// Without the value, which may be a secret.
impl fmt::Debug for HeaderMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeaderMatch")
            .field("name", &self.name)
            .field("mismatch", &self.mismatch)
            .finish_non_exhaustive()
    }
}
