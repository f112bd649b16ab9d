//! Of a refused policy: whom it selects, with everything denied in its place.

use crate::diagnostic_report::DiagnosticReport;
use crate::direction::{Direction, PerDirection};
use crate::document::Document;
use crate::labels::LabelSelector;
use crate::policy::{DirectionSpec, PolicySpec, SubjectKind, Tier};
use crate::shape::{self, DocumentNode};
use crate::stand_in::{cannot_close, closed, deny_everything, misspelt};

use super::{priority, schema, subject};

/// Reads no more than whom it selects, where it stands, and whether it may deny.
///
/// A policy that only accepts closes nothing, so that there is nothing to close while it is
/// refused.
pub(crate) fn read(document: &Document, root: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> Vec<PolicySpec> {
    let Some(spec) = root.get("spec").filter(|spec| spec.value.is_object()) else {
        cannot_close(root.get("spec").map_or("", |_| "spec"), "subject", report);
        return Vec::new();
    };
    // A field of unknown meaning beside `spec` may be a part of it that was indented too little.
    let astray = misspelt(root, &schema::POLICY).any(|meant| meant.is_none());
    let is_closed = PerDirection::from_fn(|direction| astray || may_deny(&spec, direction));
    if !is_closed.egress && !is_closed.ingress {
        return Vec::new();
    }
    let Some(subject) = subject(document, &spec) else {
        cannot_close(&spec.path, "subject", report);
        return Vec::new();
    };
    // Where its place cannot be told, it is the first.
    let priority = priority(&spec, &mut DiagnosticReport::new(document)).unwrap_or_default();
    let (tier, extent) = match spec.text("tier") {
        Some("Baseline") => (
            Tier::Baseline { priority },
            "only what policies before it allow is let through, those of the other tiers among them",
        ),
        _ => (
            Tier::Admin { priority },
            "only what policies of tier Admin before it accept is let through",
        ),
    };
    closed(&format!("{}.subject", spec.path), is_closed, extent, report);
    vec![PolicySpec {
        subject_kind: SubjectKind::Pods,
        subject,
        tier,
        directions: is_closed.map(|direction, is_closed| DirectionSpec {
            closes: false,
            rules: match is_closed {
                true => vec![deny_everything(format!("{}.{direction}", spec.path))],
                false => Vec::new(),
            },
        }),
    }]
}

/// Whom the policy selects, where not the least of it is in doubt.
fn subject(document: &Document, spec: &DocumentNode<'_>) -> Option<LabelSelector> {
    let mut report = DiagnosticReport::new(document);
    if let Some(node) = spec.get("subject") {
        shape::check(&node, &schema::SUBJECT, &mut report);
    }
    let subject = subject::read(spec, &mut report)?;
    (!report.is_refused()).then_some(subject)
}

/// Whether some rule of a direction may deny, or pass by what would: all but those that clearly
/// accept.
fn may_deny(spec: &DocumentNode<'_>, direction: Direction) -> bool {
    let field = direction.as_str();
    let accepts = |rule: DocumentNode<'_>| matches!(rule.text("action"), Some("Accept" | "Allow"));
    let rules = spec.get(field);
    let denies = rules.is_some_and(|rules| !rules.value.is_array() || !rules.items().all(accepts));
    let is_its = |meant: Option<&str>| meant.is_none_or(|meant| meant == field);
    denies || misspelt(spec, &schema::SPEC).any(is_its)
}
