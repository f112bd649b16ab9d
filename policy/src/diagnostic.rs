//! What is wrong with a document, and where.

use std::fmt;

use serde::Serialize;

use crate::document::Document;
use crate::extensions;

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

/// The findings about one document while it is walked.
///
/// At most [`MAX_FINDINGS`] are kept. Whether the document is refused is remembered beyond that.
pub(crate) struct DiagnosticReport<'d> {
    document: &'d Document,
    found: Vec<Diagnostic>,
    /// How many more there were.
    left_out: usize,
    refused: bool,
}

impl<'d> DiagnosticReport<'d> {
    pub(crate) fn new(document: &'d Document) -> Self {
        Self {
            document,
            found: Vec::new(),
            left_out: 0,
            refused: false,
        }
    }

    /// The document is refused.
    pub(crate) fn error(&mut self, code: &'static str, path: &str, reason: impl Into<String>) -> Suggest<'_> {
        self.push_at_value(Severity::Error, code, path, reason.into())
    }

    /// As [`error`](Self::error), where the key of the field is wrong and not its value.
    pub(crate) fn wrong_key(&mut self, code: &'static str, path: &str, reason: impl Into<String>) -> Suggest<'_> {
        let position = self.document.key_position(path);
        self.push(Severity::Error, code, path, position, reason.into())
    }

    /// As [`warning`](Self::warning), where the key of the field is doubtful and not its value.
    pub(crate) fn doubtful_key(&mut self, code: &'static str, path: &str, reason: impl Into<String>) -> Suggest<'_> {
        let position = self.document.key_position(path);
        self.push(Severity::Warning, code, path, position, reason.into())
    }

    /// A part of the document is valid and not enforced here.
    pub(crate) fn unenforced(&mut self, path: &str, reason: impl Into<String>) -> Suggest<'_> {
        self.push_at_value(Severity::Unenforced, "not-enforced", path, reason.into())
    }

    /// The document probably means something else than its author thinks.
    pub(crate) fn warning(&mut self, code: &'static str, path: &str, reason: impl Into<String>) -> Suggest<'_> {
        self.push_at_value(Severity::Warning, code, path, reason.into())
    }

    /// Whether some finding is an error.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused
    }

    /// The findings in the order of the file, without the warnings that the author ignores.
    pub(crate) fn finish(self) -> Vec<Diagnostic> {
        let mut found = self.found;
        let ignored = extensions::ignores(self.document);
        found.retain(|it| it.severity != Severity::Warning || !ignored.contains(it.code));
        // Stable, so that findings about one field stay in the order they were made in.
        found.sort_by_key(|diagnostic| diagnostic.position);
        found.extend(left_out(self.left_out));
        found
    }

    fn push_at_value(&mut self, severity: Severity, code: &'static str, path: &str, reason: String) -> Suggest<'_> {
        let position = self.document.position(path);
        self.push(severity, code, path, position, reason)
    }

    fn push(
        &mut self,
        severity: Severity,
        code: &'static str,
        path: &str,
        position: Option<Position>,
        reason: String,
    ) -> Suggest<'_> {
        self.refused |= severity == Severity::Error;
        if self.found.len() >= MAX_FINDINGS {
            self.left_out += 1;
            return Suggest(None);
        }
        self.found.push(Diagnostic {
            severity,
            code,
            path: path.to_owned(),
            position,
            reason,
            suggestion: None,
        });
        Suggest(self.found.last_mut())
    }
}

/// A finding just made, to which a suggestion may be added.
pub(crate) struct Suggest<'r>(Option<&'r mut Diagnostic>);

impl Suggest<'_> {
    /// Says what to write instead.
    pub(crate) fn suggest(self, suggestion: impl Into<String>) {
        if let Some(diagnostic) = self.0 {
            diagnostic.suggestion = Some(suggestion.into());
        }
    }
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
