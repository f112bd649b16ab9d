//! What was found while an object was read.

use std::fmt;
use std::path::{Path, PathBuf};

use api::ReportRow;
use policy::{Diagnostic, Severity};
use serde::Serialize;

/// How a file's or an object's reading went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReadReport {
    /// The file, where the source is a directory.
    pub file: Option<PathBuf>,
    /// Kind, namespace and name as `kind namespace/name`; empty when the whole file is meant.
    pub object: String,
    /// Whether the object is in force.
    pub state: ReportState,
    /// What was found, most severe first.
    pub diagnostics: Vec<Diagnostic>,
}

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReportState {
    /// In force as written.
    Accepted,
    /// In force; parts of it are not enforced here and fail closed.
    Partial,
    /// Refused, and its last good version stays in force.
    KeptLastGood,
    /// Refused, and there is no good version to keep. The findings say whether something stands in
    /// for it.
    Rejected,
}

impl ReadReport {
    /// A report with its diagnostics in order: most severe first, then as they stand in the file.
    pub fn new(file: Option<&Path>, object: String, state: ReportState, diagnostics: Vec<Diagnostic>) -> Self {
        let mut report = Self {
            file: file.map(Path::to_owned),
            object,
            state,
            diagnostics,
        };
        report.sort();
        report
    }

    /// Brings diagnostics that were added into order.
    pub fn sort(&mut self) {
        self.diagnostics
            .sort_by_key(|it| (std::cmp::Reverse(it.severity), it.position));
    }

    /// Whether it is about a policy, of whichever kind, and not about a file or another object.
    pub fn is_policy(&self) -> bool {
        let kind = self.object.split(' ').next().unwrap_or_default();
        kind.ends_with("Policy")
    }

    /// The most severe finding.
    pub fn worst(&self) -> Option<Severity> {
        self.diagnostics.iter().map(|it| it.severity).max()
    }

    /// One finding of this report in one line: `file:line:column: severity[code] field: reason`.
    /// What is not known is left out; without a position, the object is named.
    pub fn headline(&self, diagnostic: &Diagnostic) -> String {
        let mut line = String::new();
        let mut part = |text: &dyn fmt::Display| line.push_str(&format!("{text}: "));
        let severity = format!("{}[{}]", diagnostic.severity, diagnostic.code);
        match (&self.file, diagnostic.position) {
            (Some(file), Some(at)) => part(&format_args!("{}:{}:{}", file.display(), at.line, at.column)),
            (Some(file), None) => part(&file.display()),
            (None, _) => {}
        }
        let object = (diagnostic.position.is_none() && !self.object.is_empty()).then_some(&self.object);
        let path = (!diagnostic.path.is_empty()).then_some(&diagnostic.path);
        match (object, path) {
            (None, None) => part(&severity),
            (Some(it), None) | (None, Some(it)) => part(&format_args!("{severity} {it}")),
            (Some(object), Some(path)) => part(&format_args!("{severity} {object}: {path}")),
        }
        line + &diagnostic.reason
    }
}

impl ReportState {
    /// The state in one word, as `namegate status` shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            ReportState::Accepted => "accepted",
            ReportState::Partial => "partial",
            ReportState::KeptLastGood => "kept-last-good",
            ReportState::Rejected => "rejected",
        }
    }
}

impl From<&ReadReport> for ReportRow {
    fn from(report: &ReadReport) -> Self {
        let finding = |diagnostic| {
            let headline = report.headline(diagnostic);
            match &diagnostic.suggestion {
                Some(suggestion) => format!("{headline} ({suggestion})"),
                None => headline,
            }
        };
        Self {
            file: report.file.as_ref().map(|file| file.display().to_string()),
            object: report.object.clone(),
            state: report.state.as_str().into(),
            findings: report.diagnostics.iter().map(finding).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use policy::diagnostic::Position;

    use super::*;

    fn finding(severity: Severity, position: Option<(u32, u32)>) -> Diagnostic {
        Diagnostic {
            severity,
            code: "test",
            path: "spec.egress[0]".into(),
            position: position.map(|(line, column)| Position {
                line,
                column,
                offset: 0,
                length: 0,
            }),
            reason: "it is wrong".into(),
            suggestion: None,
        }
    }

    #[test]
    fn findings_are_lines_that_say_where_how_bad_and_what_to_do() {
        let mut error = finding(Severity::Error, Some((7, 5)));
        error.suggestion = Some("write it right".into());
        let report = ReadReport::new(
            Some(Path::new("objects/a.yaml")),
            "CiliumNetworkPolicy shop/api".into(),
            ReportState::KeptLastGood,
            vec![finding(Severity::Warning, None), error],
        );
        let row = ReportRow::from(&report);
        assert_eq!(row.file.as_deref(), Some("objects/a.yaml"));
        assert_eq!(row.state, "kept-last-good");
        assert_eq!(
            row.findings,
            [
                "objects/a.yaml:7:5: error[test] spec.egress[0]: it is wrong (write it right)",
                "objects/a.yaml: warning[test] CiliumNetworkPolicy shop/api: spec.egress[0]: it is wrong",
            ]
        );
    }
}
