//! One `spec`: whom it selects, which directions it closes, and its rules.

use crate::diagnostic_report::DiagnosticReport;
use crate::direction::{Direction, PerDirection};
use crate::endpoint::keys;
use crate::labels::{LabelSelector, Operator, Requirement};
use crate::policy::{DirectionSpec, PolicyRule, PolicySpec, SubjectKind, Tier};
use crate::policy_id::{PolicyId, PolicyKind};
use crate::selector;
use crate::shape::DocumentNode;
use crate::stand_in::misspelt;

use super::rule;
use super::schema;
use super::written_list::WrittenList;

/// The fields that say whom a spec selects.
pub(super) const ENDPOINT_SELECTOR: &str = "endpointSelector";
pub(super) const NODE_SELECTOR: &str = "nodeSelector";

/// Reads one spec; `None` when its subject cannot be told, which is reported as an error.
pub(super) fn read(spec: &DocumentNode<'_>, id: &PolicyId, report: &mut DiagnosticReport<'_>) -> Option<PolicySpec> {
    let subject_kind = subject_kind(spec);
    let subject = subject(spec, subject_kind, id, report);
    if subject.is_some()
        && has_no_rule(spec)
        && !Direction::BOTH.iter().any(|direction| {
            let is_null = WrittenList::fields(*direction).iter().any(|field| spec.is_null(field));
            is_null || written_default_deny(spec, *direction) == Some(true)
        })
    {
        report
            .error(
                "no-rules",
                &spec.path,
                "it has no rule in any direction: it would close nobody, and Cilium refuses it",
            )
            .suggest(
                "write `egress: [{}]` to close egress, `ingress: [{}]` to close ingress, list what is to be let through, or take the policy out",
            );
    }
    let directions = PerDirection::from_fn(|direction| DirectionSpec {
        closes: closes(spec, direction),
        rules: rules(spec, direction, id, report),
    });
    if subject_kind == SubjectKind::Nodes && subject.is_some() {
        of_nodes(spec, &directions, report);
    }
    Some(PolicySpec {
        subject_kind,
        subject: subject?,
        tier: Tier::Network,
        directions,
    })
}

/// The code of the finding about a policy of nodes, which agents do not enforce yet.
pub const HOST_POLICY: &str = "host-policy";

/// What is to be said of a spec that selects nodes.
fn of_nodes(spec: &DocumentNode<'_>, directions: &PerDirection<DirectionSpec>, report: &mut DiagnosticReport<'_>) {
    let path = format!("{}.{NODE_SELECTOR}", spec.path);
    report
        .unenforced_by_default(
            HOST_POLICY,
            &path,
            "nodes themselves are not governed yet: nothing of this is in force",
        )
        .suggest("keep it for Cilium, or write an `endpointSelector` for Pods");
    let rules = directions.iter().flat_map(|(_, direction)| &direction.rules);
    for inspected in rules.flat_map(|rule| &rule.inspected) {
        let reason = "connections of a node are not looked into, so this opens nothing";
        report.unenforced(&inspected.path, reason);
    }
}

/// What a spec selects. Where it has both selectors it is refused.
fn subject_kind(spec: &DocumentNode<'_>) -> SubjectKind {
    match spec.get(NODE_SELECTOR) {
        Some(_) => SubjectKind::Nodes,
        None => SubjectKind::Pods,
    }
}

/// The rules of one direction, allowances first.
fn rules(
    spec: &DocumentNode<'_>,
    direction: Direction,
    id: &PolicyId,
    report: &mut DiagnosticReport<'_>,
) -> Vec<PolicyRule> {
    let mut rules = Vec::new();
    for list in WrittenList::of(direction) {
        let written = spec.list(list.field());
        rules.extend(written.iter().filter_map(|node| rule::read(node, list, id, report)));
    }
    rules
}

/// Whether a spec closes a direction, as in Cilium: `enableDefaultDeny` decides where it is
/// written, and otherwise whether there are rules for that direction. An empty list counts as
/// absent ("if omitted or empty, this rule does not apply at egress").
fn closes(spec: &DocumentNode<'_>, direction: Direction) -> bool {
    let has_rules = || {
        WrittenList::fields(direction)
            .iter()
            .any(|field| !spec.list(field).is_empty())
    };
    written_default_deny(spec, direction).unwrap_or_else(has_rules)
}

/// `enableDefaultDeny` of one direction, where it is written.
pub(super) fn written_default_deny(spec: &DocumentNode<'_>, direction: Direction) -> Option<bool> {
    let field = spec.get("enableDefaultDeny")?.get(direction.as_str())?;
    field.value.as_bool()
}

/// Whether a spec has no rules in any direction, and no field that may be a misspelt list of rules.
pub(super) fn has_no_rule(spec: &DocumentNode<'_>) -> bool {
    let has_rules = |field: &&str| spec.get(field).is_some_and(|rules| !rules.is_empty_list());
    spec.value.is_object()
        && !Direction::BOTH
            .into_iter()
            .flat_map(WrittenList::fields)
            .any(|field| has_rules(&field))
        && misspelt(spec, &schema::RULE).next().is_none()
}

fn subject(
    spec: &DocumentNode<'_>,
    kind: SubjectKind,
    id: &PolicyId,
    report: &mut DiagnosticReport<'_>,
) -> Option<LabelSelector> {
    let of_endpoints = spec.get(ENDPOINT_SELECTOR);
    if let (SubjectKind::Nodes, Some(node)) = (kind, spec.get(NODE_SELECTOR)) {
        if id.kind != PolicyKind::CiliumClusterwideNetworkPolicy {
            report
                .error(
                    "node-selector",
                    &node.path,
                    "a CiliumNetworkPolicy is of one namespace, and nodes are in none",
                )
                .suggest("write a CiliumClusterwideNetworkPolicy, or an `endpointSelector`");
            return None;
        }
        if of_endpoints.is_some() {
            report
                .error(
                    "node-selector",
                    &node.path,
                    "`nodeSelector` and `endpointSelector` stand in one spec, and it can select one of both only",
                )
                .suggest("write two specs (`specs`), one for nodes and one for Pods");
            return None;
        }
        return selector::read(&node, report);
    }
    let Some(node) = of_endpoints else {
        report
            .error("missing-field", &spec.path, "`endpointSelector` is required")
            .suggest("write `endpointSelector: {}` to select every Pod");
        return None;
    };
    endpoints(&node, id, report)
}

/// The endpoints that an `endpointSelector` selects; `None` when it is wrong.
pub(super) fn endpoints(
    node: &DocumentNode<'_>,
    id: &PolicyId,
    report: &mut DiagnosticReport<'_>,
) -> Option<LabelSelector> {
    let mut selector = selector::read_of_endpoints(node, report)?;
    let asks_for_reserved = |requirement: &Requirement| {
        requirement.is_of_reserved() && matches!(requirement.operator, Operator::In(_) | Operator::Exists)
    };
    if selector.requirements.iter().any(asks_for_reserved) {
        report.unenforced(
            &node.path,
            "labels of the source `reserved` are those of endpoints of Cilium's own, so this selects no Pod",
        );
    }
    if id.kind == PolicyKind::CiliumNetworkPolicy {
        bind_to_namespace(&mut selector, &id.namespace, &node.path, report);
    }
    Some(selector)
}

/// Binds a selector to the policy's own namespace. As in Cilium, a namespace that the selector asks
/// for is dropped.
fn bind_to_namespace(selector: &mut LabelSelector, namespace: &str, path: &str, report: &mut DiagnosticReport<'_>) {
    let own = Requirement::equals(keys::NAMESPACE, namespace);
    let (written, others): (Vec<_>, Vec<_>) = std::mem::take(&mut selector.requirements)
        .into_iter()
        .partition(|requirement| requirement.key == keys::NAMESPACE);
    if written.iter().any(|requirement| *requirement != own) {
        let reason = format!(
            "a CiliumNetworkPolicy selects in its own namespace ({namespace}) only; what the selector says of {} is ignored",
            keys::NAMESPACE
        );
        report
            .warning("foreign-namespace", path, reason)
            .suggest("put the policy into the namespace it is meant for, or write a CiliumClusterwideNetworkPolicy");
    }
    selector.requirements = others;
    selector.requirements.push(own);
}
