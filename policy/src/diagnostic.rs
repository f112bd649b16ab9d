//! What is wrong with a document, and where.

use std::fmt;

use serde::Serialize;

/// How much a diagnostic matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The document means something else than its author probably thinks.
    Warning,
    /// Something in the document is valid for its kind but not enforced here; that part fails closed.
    Unenforced,
    /// The document is refused.
    Error,
}

/// One finding about one document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How much it matters.
    pub severity: Severity,
    /// A stable code, for example `unknown-field`, `bad-pattern`, `not-enforced`, `empty-selector`.
    pub code: &'static str,
    /// The field, for example `spec.egress[0].toFQDNs[1].matchPattern`; empty for the whole document.
    pub path: String,
    /// One-based line and column of the field in its file, where known.
    pub position: Option<Position>,
    /// What is wrong, as a sentence without the path.
    pub reason: String,
    /// What to write instead.
    pub suggestion: Option<String>,
}

/// A place in a file, both one-based.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Warning => "warning",
            Severity::Unenforced => "not enforced",
            Severity::Error => "error",
        })
    }
}
