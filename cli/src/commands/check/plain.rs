//! Renders findings for editors, pipelines and `grep`: a line
//! `file:line:column: severity[code] path: reason`, then the excerpt and the suggestion.

use std::fmt::Write;

use cluster::check::CheckedFiles;

use crate::commands::table::printable;

use super::excerpt::Excerpt;
use super::findings::{CheckFinding, findings, summary};

pub(super) fn render(checked: &CheckedFiles) -> String {
    let mut text: String = findings(checked).iter().map(finding).collect();
    if !text.is_empty() {
        text += "\n";
    }
    text + &summary(checked)
}

fn finding(finding: &CheckFinding<'_>) -> String {
    let CheckFinding {
        report,
        diagnostic,
        text: source,
    } = finding;
    let mut text = printable(report.headline(diagnostic)) + "\n";
    let excerpt = source
        .zip(diagnostic.position)
        .and_then(|(source, at)| Excerpt::of(source, at));
    // Writing to a String does not fail.
    if let Some(excerpt) = excerpt {
        let line = excerpt.line();
        let number = line.number.to_string();
        let gutter = " ".repeat(number.len());
        let indent = " ".repeat(excerpt.mark.start);
        let mark = "^".repeat(excerpt.mark.len());
        let _ = writeln!(text, "{}", format!("  {number} | {}", line.text).trim_end());
        let _ = writeln!(text, "  {gutter} | {indent}{mark}");
    }
    if let Some(suggestion) = &diagnostic.suggestion {
        let _ = writeln!(text, "  help: {}", printable(suggestion.clone()));
    }
    text
}
