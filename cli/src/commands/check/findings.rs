//! What `namegate check` prints: the findings in their order, and the summary.

use std::fmt::Write;

use cluster::check::CheckedFiles;
use cluster::{ReadReport, ReportState};
use policy::{Diagnostic, Severity};

/// A diagnostic, with the report that it belongs to.
pub(super) struct CheckFinding<'c> {
    pub(super) report: &'c ReadReport,
    pub(super) diagnostic: &'c Diagnostic,
    /// The text of the report's file, to show the line; `None` when it could not be read.
    pub(super) text: Option<&'c str>,
}

impl CheckFinding<'_> {
    /// What is wrong, where in the object, and what to write instead: in one sentence, for what
    /// shows the place by itself.
    pub(super) fn sentence(&self) -> String {
        let Diagnostic {
            path,
            reason,
            suggestion,
            position,
            ..
        } = self.diagnostic;
        let object = Some(&self.report.object).filter(|object| position.is_none() && !object.is_empty());
        let path = Some(path).filter(|path| !path.is_empty());
        let parts: Vec<&str> = [object, path, Some(reason)]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect();
        let mut text = parts.join(": ");
        if let Some(suggestion) = suggestion {
            // Writing to a String does not fail.
            let _ = write!(text, " ({suggestion})");
        }
        text
    }
}

/// All findings, sorted by file, then by severity with errors first, then by line.
pub(super) fn findings(checked: &CheckedFiles) -> Vec<CheckFinding<'_>> {
    let each = checked.reports.iter().flat_map(|report| {
        let text = report.file.as_ref().and_then(|file| checked.contents.get(file));
        let text = text.and_then(|content| content.as_deref().ok());
        let of = move |diagnostic| CheckFinding {
            report,
            diagnostic,
            text,
        };
        report.diagnostics.iter().map(of)
    });
    let mut findings: Vec<_> = each.collect();
    findings.sort_by_key(|CheckFinding { report, diagnostic, .. }| {
        let worst_first = std::cmp::Reverse(diagnostic.severity);
        (&report.file, worst_first, diagnostic.position)
    });
    findings
}

/// One line with the numbers of files, objects and findings.
pub(super) fn summary(checked: &CheckedFiles) -> String {
    let objects = checked.reports.iter().filter(|it| !it.object.is_empty());
    let (objects, policies) = objects.fold((0, 0), |(objects, policies), report| {
        (objects + 1, policies + usize::from(report.is_policy()))
    });
    let found = |severity| {
        let all = checked.reports.iter().flat_map(|it| &it.diagnostics);
        all.filter(|it| it.severity == severity).count()
    };
    let rejected = checked.reports.iter().filter(|it| it.state == ReportState::Rejected);
    let rejected = rejected.count();
    let mut text = format!(
        "{} read: {}, {} of them policies; {}, {}, {} not enforced",
        counted(checked.contents.len(), "file"),
        counted(objects, "object"),
        policies,
        counted(found(Severity::Error), "error"),
        counted(found(Severity::Warning), "warning"),
        found(Severity::Unenforced),
    );
    if rejected > 0 {
        // Writing to a String does not fail.
        let _ = write!(text, "; {rejected} rejected");
    }
    if checked.foreign > 0 {
        let _ = write!(text, "; {} of other kinds ignored", checked.foreign);
    }
    if checked.passed_over > 0 {
        let _ = write!(text, "; {} passed over that are no objects", checked.passed_over);
    }
    text + "\n"
}

fn counted(count: usize, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}
