//! `matchName` and `matchPattern`, in `toFQDNs` and in `rules.dns`.

use names::Pattern;

use crate::diagnostic::quoted;
use crate::diagnostic_report::DiagnosticReport;
use crate::shape::DocumentNode;
use crate::spelling;

/// Whether one entry may carry both `matchName` and `matchPattern`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameWithPattern {
    /// In `rules.dns` it may, and the entry matches what either matches.
    Allowed,
    /// In `toFQDNs` it may not.
    Refused,
}

/// The patterns of one entry; none for `{}`, which matches nothing.
pub(super) fn patterns(
    entry: &DocumentNode<'_>,
    both: NameWithPattern,
    report: &mut DiagnosticReport<'_>,
) -> Vec<Pattern> {
    let (name, pattern) = (entry.get("matchName"), entry.get("matchPattern"));
    if both == NameWithPattern::Refused && name.is_some() && pattern.is_some() {
        report
            .error(
                "name-and-pattern",
                &entry.path,
                "`matchName` and `matchPattern` stand in one entry",
            )
            .suggest("write two entries");
        return Vec::new();
    }
    let mut patterns = Vec::new();
    if let Some((node, text)) = name.and_then(|node| node.value.as_str().map(|text| (node, text))) {
        match Pattern::name(text) {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => {
                let finding = report.error(
                    "bad-name",
                    &node.path,
                    format!("{} is not a name: {error}", quoted(text)),
                );
                if text.contains('*') {
                    finding.suggest("write `matchPattern` for a name with stars");
                } else if let Some(meant) = spelling::meant(text) {
                    finding.suggest(meant);
                }
            }
        }
    }
    if let Some((node, text)) = pattern.and_then(|node| node.value.as_str().map(|text| (node, text))) {
        match Pattern::pattern(text) {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => {
                let finding = report.error(
                    "bad-pattern",
                    &node.path,
                    format!("{} is not a pattern: {error}", quoted(text)),
                );
                if let Some(meant) = spelling::meant(text) {
                    finding.suggest(meant);
                }
            }
        }
    }
    patterns
}
