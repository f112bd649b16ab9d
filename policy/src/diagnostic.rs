//! What is wrong with a document, and where.

use std::fmt;

use serde::Serialize;

/// How much a diagnostic matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The document means something else than its author probably thinks.
    Warning,
    /// Something in the document is valid for its kind but not enforced here; that part fails
    /// closed.
    Unenforced,
    /// The document is refused.
    Error,
}

/// One finding about one document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How much it matters.
    pub severity: Severity,
    /// A stable code, for example `unknown-field`, `bad-pattern`, `not-enforced`.
    /// `docs/policies.md` and `docs/lints.md` list them.
    pub code: &'static str,
    /// The field, for example `spec.egress[0].toFQDNs[1].matchPattern`; empty for the whole
    /// document.
    pub path: String,
    /// Where its value stands in its file, or its key where the value runs over many lines or the
    /// key is what is wrong; where known.
    pub position: Option<Position>,
    /// What is wrong, as a sentence without the path.
    pub reason: String,
    /// What to write instead.
    pub suggestion: Option<String>,
}

/// A stretch of a file. Texts that are read are far shorter than 4 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Position {
    /// The line in which it begins, from 1.
    pub line: u32,
    /// The column in which it begins, in characters, from 1.
    pub column: u32,
    /// How many bytes of the file stand before it.
    pub offset: u32,
    /// How many bytes it has; 0 where only its beginning is known.
    pub length: u32,
}

impl Position {
    /// How many bytes of the file stand before what comes after it.
    pub fn end(self) -> u32 {
        self.offset.saturating_add(self.length)
    }

    /// Whether only its beginning is known.
    pub fn is_empty(self) -> bool {
        self.length == 0
    }
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

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl fmt::Display for Diagnostic {
    /// One line:
    /// `error[bad-pattern] 12:9 spec.egress[0].toFQDNs[1].matchPattern: reason; suggestion`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.severity, self.code)?;
        if let Some(position) = self.position {
            write!(f, " {position}")?;
        }
        if !self.path.is_empty() {
            write!(f, " {}", self.path)?;
        }
        write!(f, ": {}", self.reason)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; {suggestion}"),
            None => Ok(()),
        }
    }
}

/// How many findings about one document or one text are kept: hostile text must not cost more
/// memory in findings than in itself.
pub(crate) const MAX_FINDINGS: usize = 200;

/// Says that `count` findings more are not shown, if there are any.
pub(crate) fn left_out(count: usize) -> Option<Diagnostic> {
    (count > 0).then(|| Diagnostic {
        severity: Severity::Warning,
        code: "more-findings",
        path: String::new(),
        position: None,
        reason: format!("{count} more findings are not shown"),
        suggestion: None,
    })
}

/// Text of the document quoted in a reason, cut to a length that a terminal line bears.
pub(crate) fn quoted(text: &str) -> String {
    const MAX: usize = 80;
    match text.char_indices().nth(MAX) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// The candidate that was probably meant by `written`, if one is close enough.
pub(crate) fn closest<'c>(written: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    // Longer ones are no typing errors, and the distance costs the product of the lengths.
    const MAX_CHARS: usize = 64;
    if written.len() > MAX_CHARS {
        return None;
    }
    let written = written.to_lowercase();
    let allowed = 1 + written.len() / 5;
    candidates
        .into_iter()
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&written, &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}
