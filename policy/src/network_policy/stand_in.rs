//! Of a refused policy: whom it selects, closed.

use crate::diagnostic::closest;
use crate::diagnostic_report::DiagnosticReport;
use crate::direction::{Direction, PerDirection};
use crate::document::Document;
use crate::labels::LabelSelector;
use crate::policy::PolicySpec;
use crate::policy_id::PolicyId;
use crate::selector;
use crate::shape::DocumentNode;
use crate::stand_in::{cannot_close, closed, misspelt};

use super::{EGRESS, INGRESS, own_namespace, policy_spec, schema};

const SELECTOR: &str = "podSelector";

/// Reads no more than whom it selects and which directions it is about.
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
    let is_closed = PerDirection::from_fn(|direction| astray || is_meant(&spec, direction));
    if !is_closed.egress && !is_closed.ingress {
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
    closed(
        &place,
        is_closed,
        "only what other policies allow is let through",
        report,
    );
    vec![policy_spec(subject, is_closed, PerDirection::default())]
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

/// Whether the policy may have been meant to close a direction.
fn is_meant(spec: &DocumentNode<'_>, direction: Direction) -> bool {
    if let Some(types) = spec.get("policyTypes").filter(|types| !types.is_empty_list()) {
        let may_be = |written: DocumentNode<'_>| may_list(&written, direction);
        return match types.value.is_array() {
            true => types.items().any(may_be),
            false => may_be(types),
        };
    }
    let field = direction.as_str();
    let is_its = |meant: Option<&str>| meant.is_none_or(|meant| meant == field || meant == "policyTypes");
    // Without `policyTypes` every policy governs ingress.
    direction == Direction::Ingress
        || spec.is_null(field)
        || spec.get(field).is_some_and(|rules| !rules.is_empty_list())
        || misspelt(spec, &schema::SPEC).any(is_its)
}

/// Whether an entry of `policyTypes` may mean a direction: one that is not close to either may mean
/// both.
fn may_list(entry: &DocumentNode<'_>, direction: Direction) -> bool {
    let meant = entry.value.as_str().and_then(|text| match text {
        INGRESS => Some(Direction::Ingress),
        EGRESS => Some(Direction::Egress),
        other => match closest(other, [INGRESS, EGRESS]) {
            Some(INGRESS) => Some(Direction::Ingress),
            Some(_) => Some(Direction::Egress),
            None => None,
        },
    });
    meant.is_none_or(|meant| meant == direction)
}
