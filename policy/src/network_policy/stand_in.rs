//! Of a refused policy: whom it selects, closed.

use crate::diagnostic_report::DiagnosticReport;
use crate::direction::PerDirection;
use crate::document::Document;
use crate::labels::LabelSelector;
use crate::policy::{DirectionSpec, PolicySpec, Tier};
use crate::policy_id::PolicyId;
use crate::selector;
use crate::shape::DocumentNode;
use crate::stand_in::{cannot_close, closed, misspelt};

use super::{Governs, own_namespace, schema};

const SELECTOR: &str = "podSelector";

/// Reads no more than whom it selects and whether it is about egress.
pub(crate) fn read(
    document: &Document,
    root: &DocumentNode<'_>,
    id: &PolicyId,
    report: &mut DiagnosticReport<'_>,
) -> Vec<PolicySpec> {
    let Some(spec) = root.get("spec").filter(|spec| spec.value.is_object()) else {
        cannot_close(root.get("spec").map_or("", |_| "spec"), SELECTOR, report);
        return Vec::new();
    };
    // A field of unknown meaning beside `spec` may be a part of it that was indented too little.
    let astray = misspelt(root, &schema::POLICY).any(|meant| meant.is_none());
    if !meant(document, &spec) && !astray {
        return Vec::new();
    }
    let Some(subject) = subject(document, &spec, id) else {
        cannot_close(&spec.path, SELECTOR, report);
        return Vec::new();
    };
    let place = match spec.get(SELECTOR) {
        Some(node) => node.path,
        None => spec.path,
    };
    closed(&place, "only what other policies allow is let through", report);
    vec![PolicySpec {
        subject,
        tier: Tier::Network,
        directions: PerDirection::of_egress(DirectionSpec {
            closes: true,
            rules: Vec::new(),
        }),
    }]
}

/// Where there is no `podSelector` it means every Pod, unless some field may be a misspelt one.
fn subject(document: &Document, spec: &DocumentNode<'_>, id: &PolicyId) -> Option<LabelSelector> {
    let mut subject = match spec.get(SELECTOR) {
        Some(node) => selector::read_whole(&node, "", &mut DiagnosticReport::new(document))?,
        None => {
            let in_doubt = |meant: Option<&str>| meant.is_none_or(|meant| meant == SELECTOR);
            if misspelt(spec, &schema::SPEC).any(in_doubt) {
                return None;
            }
            LabelSelector::default()
        }
    };
    subject.requirements.push(own_namespace(id));
    Some(subject)
}

/// Whether the policy may have been meant to close egress.
fn meant(document: &Document, spec: &DocumentNode<'_>) -> bool {
    if let Some(types) = spec.get("policyTypes").filter(|types| !types.is_empty_list()) {
        let mut report = DiagnosticReport::new(document);
        let governs = Governs::read(spec, &mut report);
        let all_are_texts = types.value.is_array() && types.items().all(|item| item.value.is_string());
        return governs.egress || report.is_refused() || !all_are_texts;
    }
    let has_rules = spec.is_null("egress") || spec.get("egress").is_some_and(|rules| !rules.is_empty_list());
    let is_egress = |meant: Option<&str>| meant.is_none_or(|meant| matches!(meant, "egress" | "policyTypes"));
    has_rules || misspelt(spec, &schema::SPEC).any(is_egress)
}
