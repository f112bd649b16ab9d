//! What stands in for a refused policy of Cilium's kinds: whom it selects is closed.

use crate::diagnostic_report::DiagnosticReport;
use crate::direction::{Direction, PerDirection};
use crate::document::Document;
use crate::labels::LabelSelector;
use crate::policy::{DirectionSpec, PolicySpec, SubjectKind, Tier};
use crate::policy_id::PolicyId;
use crate::selector;
use crate::shape::{self, DocumentNode, FieldShape};
use crate::stand_in::{cannot_close, closed, deny_everything, misspelt};

use super::schema;
use super::spec::{ENDPOINT_SELECTOR, NODE_SELECTOR, endpoints, has_no_rule, written_default_deny};
use super::written_list::WrittenList;

/// Reads of each spec only whom it selects and which directions it is about, since the rest may be
/// what is wrong.
pub(crate) fn read(
    document: &Document,
    root: &DocumentNode<'_>,
    id: &PolicyId,
    report: &mut DiagnosticReport<'_>,
) -> Vec<PolicySpec> {
    // An unknown field beside `spec` may be a part of it that was indented too little.
    let has_stray_field = misspelt(root, &schema::POLICY).any(|meant| meant.is_none());
    let mut specs = Vec::new();
    for node in super::specs(root) {
        // A node that is closed whole cannot be reached to mend it.
        let is_of_nodes = node.get(NODE_SELECTOR).is_some() && node.get(ENDPOINT_SELECTOR).is_none();
        if is_of_nodes {
            continue;
        }
        let Some(subject) = subject(document, &node, id) else {
            cannot_close(&node.path, ENDPOINT_SELECTOR, report);
            continue;
        };
        let intended = PerDirection::from_fn(|direction| {
            let Intention { closes, denies } = intention(document, &node, direction);
            Intention {
                closes: closes || has_stray_field,
                denies,
            }
        });
        if !intended.iter().any(|(_, intention)| intention.closes) {
            continue;
        }
        let denying: Vec<String> = intended
            .iter()
            .filter(|(_, intention)| intention.denies)
            .map(|(direction, _)| format!("`{}`", deny_field(direction)))
            .collect();
        let extent = match denying.is_empty() {
            true => "only what other policies allow is let through".to_owned(),
            false => format!(
                "nothing is let through, since what its {} denies is not known",
                denying.join(" and ")
            ),
        };
        let is_closed = intended.map(|_, intention| intention.closes);
        closed(
            &format!("{}.{ENDPOINT_SELECTOR}", node.path),
            is_closed,
            &extent,
            report,
        );
        specs.push(PolicySpec {
            subject_kind: SubjectKind::Pods,
            subject,
            tier: Tier::Network,
            directions: intended.map(|direction, intention| DirectionSpec {
                closes: intention.closes,
                rules: match intention.denies {
                    true => vec![deny_everything(format!("{}.{}", node.path, deny_field(direction)))],
                    false => Vec::new(),
                },
            }),
        });
    }
    let unreadable_list = root.get("specs").filter(|specs| !specs.value.is_array());
    if unreadable_list.is_some() || super::specs(root).is_empty() {
        cannot_close(unreadable_list.map_or("", |_| "specs"), ENDPOINT_SELECTOR, report);
    }
    specs
}

/// Whom a spec selects; `None` when any part of the selector is in doubt, because the rest of it
/// would select more endpoints than were meant.
fn subject(document: &Document, spec: &DocumentNode<'_>, id: &PolicyId) -> Option<LabelSelector> {
    let node = spec.get(ENDPOINT_SELECTOR)?;
    let mut report = DiagnosticReport::new(document);
    shape::check(&node, &selector::SHAPE, &mut report);
    let subject = endpoints(&node, id, &mut report)?;
    (!report.is_refused()).then_some(subject)
}

fn deny_field(direction: Direction) -> &'static str {
    let [_, deny] = WrittenList::fields(direction);
    deny
}

/// What a spec may have been meant to do in one direction.
#[derive(Debug, Clone, Copy)]
struct Intention {
    /// It closes the direction.
    closes: bool,
    /// It has denying rules.
    denies: bool,
}

/// In doubt a spec was meant to close.
fn intention(document: &Document, spec: &DocumentNode<'_>, direction: Direction) -> Intention {
    let fields = WrittenList::fields(direction);
    let [allow, deny] = fields;
    let has_rules = |field| spec.get(field).is_some_and(|rules| !rules.is_empty_list());
    let is_null = fields.iter().any(|field| spec.is_null(field));
    // A spec without rules may have been meant to close, unless it speaks of the other direction
    // only.
    let is_silent = has_no_rule(spec) && (speaks_of(spec, direction) || !speaks_of(spec, direction.other()));
    let guessed = guess(spec, &schema::RULE, direction);
    let denies = has_rules(deny) || guessed == Some(GuessedField::Deny);
    let closes = denies
        || guessed.is_some()
        || has_doubtful_default_deny(document, spec, direction)
        || written_default_deny(spec, direction).unwrap_or_else(|| is_null || is_silent || has_rules(allow));
    Intention { closes, denies }
}

/// Whether anything in a spec is about a direction.
fn speaks_of(spec: &DocumentNode<'_>, direction: Direction) -> bool {
    let default_deny = spec.get("enableDefaultDeny");
    let is_in = |node: &DocumentNode<'_>, field: &str| node.value.get(field).is_some();
    WrittenList::fields(direction).iter().any(|field| is_in(spec, field))
        || default_deny.is_some_and(|node| is_in(&node, direction.as_str()))
}

/// Whether what `enableDefaultDeny` says of a direction cannot be told.
fn has_doubtful_default_deny(document: &Document, spec: &DocumentNode<'_>, direction: Direction) -> bool {
    let Some(node) = spec.get("enableDefaultDeny") else {
        return false;
    };
    // The other direction's value is not in doubt here, whatever it is.
    let mut value = node.value.clone();
    if let Some(fields) = value.as_object_mut() {
        fields.remove(direction.other().as_str());
    }
    let of_direction = DocumentNode {
        value: &value,
        path: node.path.clone(),
    };
    let mut report = DiagnosticReport::new(document);
    shape::check(&of_direction, &schema::DEFAULT_DENY, &mut report);
    report.is_refused()
}

/// What an unknown field may have been meant to be, the graver one last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum GuessedField {
    Allow,
    Deny,
}

/// The gravest guess of all unknown fields; `None` when there are none, or each is a misspelling of
/// a field that does not speak of this direction.
fn guess(node: &DocumentNode<'_>, shape: &FieldShape, direction: Direction) -> Option<GuessedField> {
    let [allow, deny] = WrittenList::fields(direction);
    misspelt(node, shape)
        .filter_map(|meant| match meant {
            Some(meant) if meant == deny => Some(GuessedField::Deny),
            Some(meant) if meant == allow || meant == "enableDefaultDeny" => Some(GuessedField::Allow),
            None => Some(GuessedField::Allow),
            Some(_) => None,
        })
        .max()
}
