//! What stands in for a refused policy of Cilium's kinds: whom it selects is closed.

use crate::diagnostic_report::DiagnosticReport;
use crate::direction::PerDirection;
use crate::document::Document;
use crate::labels::LabelSelector;
use crate::policy::{DirectionSpec, PolicySpec, Tier};
use crate::policy_id::PolicyId;
use crate::selector;
use crate::shape::{self, DocumentNode, FieldShape};
use crate::stand_in::{cannot_close, closed, deny_everything, misspelt};

use super::schema;
use super::spec::{endpoints, has_no_rule, written_default_deny};

const SELECTOR: &str = "endpointSelector";

/// Reads of each spec only whom it selects and whether it is about egress, since the rest may be
/// what is wrong.
pub(crate) fn read(
    document: &Document,
    root: &DocumentNode<'_>,
    id: &PolicyId,
    report: &mut DiagnosticReport<'_>,
) -> Vec<PolicySpec> {
    // An unknown field beside `spec` may be a part of it that was indented too little.
    let has_stray_field = guess(root, &schema::POLICY).is_some();
    let mut specs = Vec::new();
    for node in super::specs(root) {
        let is_of_nodes = node.get("nodeSelector").is_some() && node.get(SELECTOR).is_none();
        if is_of_nodes {
            continue;
        }
        let Some(subject) = subject(document, &node, id) else {
            cannot_close(&node.path, SELECTOR, report);
            continue;
        };
        let Intention { closes, denies } = intention(document, &node);
        if !closes && !has_stray_field {
            continue;
        }
        let extent = match denies {
            false => "only what other policies allow is let through",
            true => "nothing is let through, since what its `egressDeny` denies is not known",
        };
        closed(&format!("{}.{SELECTOR}", node.path), extent, report);
        specs.push(PolicySpec {
            subject,
            tier: Tier::Network,
            directions: PerDirection::of_egress(DirectionSpec {
                closes: true,
                rules: if denies {
                    vec![deny_everything(format!("{}.egressDeny", node.path))]
                } else {
                    Vec::new()
                },
            }),
        });
    }
    let unreadable_list = root.get("specs").filter(|specs| !specs.value.is_array());
    if unreadable_list.is_some() || super::specs(root).is_empty() {
        cannot_close(unreadable_list.map_or("", |_| "specs"), SELECTOR, report);
    }
    specs
}

/// Whom a spec selects; `None` when any part of the selector is in doubt, because the rest of it
/// would select more endpoints than were meant.
fn subject(document: &Document, spec: &DocumentNode<'_>, id: &PolicyId) -> Option<LabelSelector> {
    let node = spec.get(SELECTOR)?;
    let mut report = DiagnosticReport::new(document);
    shape::check(&node, &selector::SHAPE, &mut report);
    let subject = endpoints(&node, id, &mut report)?;
    (!report.is_refused()).then_some(subject)
}

/// What a spec may have been meant to do.
struct Intention {
    /// It closes egress.
    closes: bool,
    /// It has denying rules.
    denies: bool,
}

/// In doubt a spec was meant to close.
fn intention(document: &Document, spec: &DocumentNode<'_>) -> Intention {
    let has_rules = |field| spec.get(field).is_some_and(|rules| !rules.is_empty_list());
    let is_null = ["egress", "egressDeny"].iter().any(|field| spec.is_null(field));
    // A spec without rules may have been meant to close egress, unless it speaks of ingress only.
    let speaks_of = |fields: [&str; 2]| fields.iter().any(|field| spec.value.get(field).is_some());
    let is_silent =
        has_no_rule(spec) && (speaks_of(["egress", "egressDeny"]) || !speaks_of(["ingress", "ingressDeny"]));
    let guessed = guess(spec, &schema::RULE);
    let denies = has_rules("egressDeny") || guessed == Some(GuessedField::Deny);
    let default_deny = spec.get("enableDefaultDeny");
    let doubtful = default_deny.as_ref().is_some_and(|node| {
        let mut report = DiagnosticReport::new(document);
        shape::check(node, &schema::DEFAULT_DENY, &mut report);
        report.is_refused()
    });
    let closes = denies
        || doubtful
        || guessed.is_some()
        || written_default_deny(spec).unwrap_or_else(|| is_null || is_silent || has_rules("egress"));
    Intention { closes, denies }
}

/// What an unknown field may have been meant to be, the graver one last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum GuessedField {
    Egress,
    Deny,
}

/// The gravest guess of all unknown fields; `None` when there are none, or each is a misspelling of
/// a field that does not speak of egress.
fn guess(node: &DocumentNode<'_>, shape: &FieldShape) -> Option<GuessedField> {
    misspelt(node, shape)
        .filter_map(|meant| match meant {
            Some("egressDeny") => Some(GuessedField::Deny),
            Some("egress" | "enableDefaultDeny") | None => Some(GuessedField::Egress),
            Some(_) => None,
        })
        .max()
}
