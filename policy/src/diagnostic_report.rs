//! Collects the findings about one document.

use crate::diagnostic::{Diagnostic, MAX_FINDINGS, Position, Severity, left_out};
use crate::document::Document;
use crate::ignore;

/// The findings about one document while it is walked.
///
/// At most [`MAX_FINDINGS`] are kept. Whether the document is refused is remembered beyond that.
pub(crate) struct DiagnosticReport<'d> {
    document: &'d Document,
    found: Vec<Diagnostic>,
    /// How many more there were.
    left_out: usize,
    refused: bool,
    /// What is left of [`MAX_COMPILED`].
    compiled_left: usize,
}

/// How many octets the expressions of one document may take when compiled: a short text may need
/// much.
const MAX_COMPILED: usize = 32 << 20;

impl<'d> DiagnosticReport<'d> {
    pub(crate) fn new(document: &'d Document) -> Self {
        Self {
            document,
            found: Vec::new(),
            left_out: 0,
            refused: false,
            compiled_left: MAX_COMPILED,
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

    /// As [`unenforced`](Self::unenforced), where that depends on the settings of agents, which can
    /// tell the finding by its code.
    pub(crate) fn unenforced_by_default(
        &mut self,
        code: &'static str,
        path: &str,
        reason: impl Into<String>,
    ) -> Suggest<'_> {
        self.push_at_value(Severity::Unenforced, code, path, reason.into())
    }

    /// The document probably means something else than its author thinks.
    pub(crate) fn warning(&mut self, code: &'static str, path: &str, reason: impl Into<String>) -> Suggest<'_> {
        self.push_at_value(Severity::Warning, code, path, reason.into())
    }

    /// Takes so many octets for a compiled expression; false where that is more than is left.
    pub(crate) fn afford(&mut self, octets: usize) -> bool {
        let left = self.compiled_left.checked_sub(octets);
        self.compiled_left = left.unwrap_or(0);
        left.is_some()
    }

    /// Whether some finding is an error.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused
    }

    /// The findings in the order of the file, without the warnings that the author ignores.
    pub(crate) fn finish(self) -> Vec<Diagnostic> {
        let mut found = self.found;
        let ignored = ignore::codes(self.document);
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
