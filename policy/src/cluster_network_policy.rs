//! `policy.networking.k8s.io/v1beta1` ClusterNetworkPolicy (and `v1alpha2`, which has the same
//! fields).
//!
//! What an entry of a newer version of the API looks like to this one, unknown or empty, is dealt
//! with as the API asks for: the rule fails closed. In an Accept rule it matches nothing; a Deny
//! rule and a Pass rule deny everything.

mod domain_names;
mod one_of;
mod peers;
mod protocols;
mod rule;
pub(crate) mod schema;
mod stand_in;
mod subject;

#[cfg(test)]
mod tests;

use crate::diagnostic::quoted;
use crate::diagnostic_report::DiagnosticReport;
use crate::direction::PerDirection;
use crate::policy::{DirectionSpec, PolicySpec, SubjectKind, Tier};
use crate::shape::{self, DocumentNode};

pub(crate) use stand_in::read as stand_in;

/// As the CRD has it, for rules, peers, protocols, networks and names.
const MAX_ITEMS: usize = 25;

/// The only spec of a policy object.
pub(crate) fn read(root: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> Vec<PolicySpec> {
    shape::check(root, &schema::POLICY, report);
    let Some(spec) = root.get("spec") else {
        report
            .error("missing-field", "", "`spec` is required")
            .suggest("write a `spec` with `tier`, `priority` and `subject`");
        return Vec::new();
    };
    let tier = tier(&spec, report);
    let subject = subject::read(&spec, report);
    let directions = PerDirection::from_fn(|direction| {
        let written = items(&spec, direction.as_str(), report);
        let rules = written
            .iter()
            .flat_map(|node| rule::read(node, direction, report))
            .collect();
        DirectionSpec { closes: false, rules }
    });
    let spec = tier.zip(subject).map(|(tier, subject)| PolicySpec {
        subject_kind: SubjectKind::Pods,
        subject,
        tier,
        directions,
    });
    spec.into_iter().collect()
}

fn tier(spec: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> Option<Tier> {
    let priority = priority(spec, report);
    let Some(node) = spec.get("tier") else {
        missing(spec, "tier", "write Admin or Baseline", report);
        return None;
    };
    match node.value.as_str()? {
        "Admin" => priority.map(|priority| Tier::Admin { priority }),
        "Baseline" => priority.map(|priority| Tier::Baseline { priority }),
        other => {
            report.error(
                "bad-value",
                &node.path,
                format!("{} is not Admin or Baseline", quoted(other)),
            );
            None
        }
    }
}

fn priority(spec: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> Option<u16> {
    const MAX: u16 = 1000;
    let Some(node) = spec.get("priority") else {
        missing(
            spec,
            "priority",
            "write a number from 0, which decides first, to 1000",
            report,
        );
        return None;
    };
    let number = node.value.as_u64().and_then(|number| u16::try_from(number).ok());
    let priority = number.filter(|number| *number <= MAX);
    if priority.is_none() && (node.value.is_i64() || node.value.is_u64()) {
        report.error(
            "bad-value",
            &node.path,
            format!("{} is not from 0 to {MAX}", node.value),
        );
    }
    priority
}

fn missing(parent: &DocumentNode<'_>, field: &str, suggestion: &str, report: &mut DiagnosticReport<'_>) {
    if parent.value.is_object() {
        report
            .error("missing-field", &parent.path, format!("`{field}` is required"))
            .suggest(suggestion);
    }
}

/// The items under `field`, if they are not too many.
fn items<'a>(node: &DocumentNode<'a>, field: &str, report: &mut DiagnosticReport<'_>) -> Vec<DocumentNode<'a>> {
    let items = node.list(field);
    if items.len() > MAX_ITEMS {
        let reason = format!("it has {} entries, and at most {MAX_ITEMS} are allowed", items.len());
        report.error("too-many", &format!("{}.{field}", node.path), reason);
        return Vec::new();
    }
    items
}

/// The items under `field`, of which there must be one where the field is.
fn some_items<'a>(node: &DocumentNode<'a>, field: &str, report: &mut DiagnosticReport<'_>) -> Vec<DocumentNode<'a>> {
    if let Some(list) = node.get(field).filter(DocumentNode::is_empty_list) {
        report.error("empty-list", &list.path, "it must have at least one entry");
    }
    items(node, field, report)
}
