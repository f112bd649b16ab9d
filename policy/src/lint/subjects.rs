//! Whom policies select, and rules without effect.

use std::collections::BTreeSet;

use crate::diagnostic::closest;
use crate::diagnostic_report::DiagnosticReport;
use crate::direction::Direction;
use crate::endpoint::keys;
use crate::labels::{LabelSelector, Operator, Requirement};
use crate::policy::{Action, DirectionSpec, Policy, PolicyRule, PolicySpec};
use crate::policy_id::PolicyKind;
use crate::ports::PortSet;
use crate::shape::DocumentNode;

use super::containment::everywhere;
use super::context::LintedSpec;
use super::selection::{LintedPods, Selection};

/// A policy that is valid, and does nothing at all.
pub(super) fn without_effect(policy: &Policy, report: &mut DiagnosticReport<'_>) {
    let does_nothing = |spec: &PolicySpec| !spec.directions.iter().any(|(_, spec)| spec.says_anything());
    if policy.specs.is_empty() || !policy.specs.iter().all(does_nothing) {
        return;
    }
    report
        .warning(
            "no-effect",
            "spec",
            "it closes nothing, and no rule of it opens or denies anything",
        )
        .suggest("write the rules that are meant, or take the policy out");
}

/// A policy of the whole cluster that closes every Pod, those of the cluster's own services
/// included.
pub(super) fn selects_all(
    spec: &DocumentNode<'_>,
    kind: PolicyKind,
    meaning: &PolicySpec,
    report: &mut DiagnosticReport<'_>,
) {
    let denies_all = |rule: &PolicyRule| everywhere(&rule.peers) && rule.ports == PortSet::All;
    let closes = |spec: &DirectionSpec| spec.closes || spec.rules_that(Action::Deny).any(denies_all);
    if !meaning.directions.iter().any(|(_, spec)| closes(spec)) {
        return;
    }
    let suggestion = match kind {
        // To close a whole namespace is what policies with empty selectors are for.
        PolicyKind::CiliumNetworkPolicy | PolicyKind::NetworkPolicy => return,
        PolicyKind::CiliumClusterwideNetworkPolicy => {
            "select by `k8s:io.kubernetes.pod.namespace`, or exclude namespaces with a `NotIn` expression"
        }
        PolicyKind::ClusterNetworkPolicy => {
            "select namespaces by `kubernetes.io/metadata.name`, or exclude some with a `NotIn` expression"
        }
    };
    let selects_all = match spec.get("subject") {
        None => spec.get("endpointSelector").filter(is_empty_selector),
        Some(subject) => {
            let of_namespaces = subject.get("namespaces").filter(is_empty_selector);
            let of_pods = subject.get("pods").filter(|pods| {
                let is_empty = |field| pods.get(field).is_none_or(|node| is_empty_selector(&node));
                is_empty("namespaceSelector") && is_empty("podSelector")
            });
            of_namespaces.or(of_pods)
        }
    };
    if let Some(node) = selects_all {
        let reason = "it closes every Pod of every namespace, kube-system's too";
        report
            .warning("selector-selects-all", &node.path, reason)
            .suggest(suggestion);
    }
}

/// Whether a label selector asks for nothing.
pub(super) fn is_empty_selector(node: &DocumentNode<'_>) -> bool {
    let labels = node.get("matchLabels");
    node.value.is_object()
        && labels.is_none_or(|labels| labels.fields().next().is_none())
        && node.list("matchExpressions").is_empty()
}

/// Lists and rules that have no effect although they look as if they did. (In a NetworkPolicy, an
/// empty list closes.)
pub(super) fn empty_rules(spec: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) {
    if !["endpointSelector", "nodeSelector"]
        .iter()
        .any(|field| spec.get(field).is_some())
    {
        return;
    }
    for (direction, lists, everything) in [
        (Direction::Egress, ["egress", "egressDeny"], "toEntities"),
        (Direction::Ingress, ["ingress", "ingressDeny"], "fromEntities"),
    ] {
        for list in lists {
            if let Some(node) = spec.get(list).filter(DocumentNode::is_empty_list) {
                report
                    .warning(
                        "empty-rule-list",
                        &node.path,
                        format!("an empty list has no effect: it does not close {direction}"),
                    )
                    .suggest(format!(
                        "write `{direction}: [{{}}]` to close {direction}, or leave it out"
                    ));
            }
        }
        for rule in spec.list(lists[1]) {
            if rule.fields().next().is_none() {
                report
                    .warning("empty-deny-rule", &rule.path, "an empty rule denies nothing")
                    .suggest(format!("write `{everything}: [all]` to deny everything"));
            }
        }
    }
}

/// A policy that is about no Pod.
pub(super) fn selects_none(linted: &LintedSpec<'_>, selection: &Selection<'_>, report: &mut DiagnosticReport<'_>) {
    if !linted.pods.is_empty() {
        return;
    }
    let Some(suggestion) = no_pods(&linted.spec.subject, selection.pods()) else {
        return;
    };
    let fields = ["endpointSelector", "podSelector", "subject"];
    let path = fields
        .iter()
        .find_map(|field| linted.node.get(field))
        .map(|node| node.path);
    report
        .warning(
            "selector-matches-nothing",
            path.as_deref().unwrap_or(&linted.node.path),
            "no Pod in these files is selected, so the policy has no effect on them",
        )
        .suggest(suggestion);
}

/// What to change in a selector that matches no Pod, if it is none. Where the files hold no Pod of
/// the namespaces that are meant, nothing can be said, unless one of a similar name is there.
pub(super) fn no_pods(selector: &LabelSelector, pods: &LintedPods<'_>) -> Option<String> {
    let all: Vec<&Requirement> = selector.requirements.iter().collect();
    let of_namespaces: Vec<&Requirement> = all.iter().copied().filter(|it| is_of_namespace(it)).collect();
    if pods.is_empty() || pods.any(&all) {
        return None;
    }
    let is_known = pods.any(&of_namespaces);
    let mut in_the_way = None;
    for wrong in &all {
        let others: Vec<&Requirement> = all.iter().copied().filter(|it| it != wrong).collect();
        let count = pods.count(&others);
        if count == 0 {
            continue;
        }
        let key = &wrong.key;
        if let Some(meant) = similar_value(wrong, &pods.values(key, &others)) {
            return Some(meant);
        }
        let pods = if count == 1 { "Pod" } else { "Pods" };
        in_the_way.get_or_insert_with(|| format!("without what it asks of `{key}`, it would select {count} {pods}"));
    }
    if is_known {
        return Some(in_the_way.unwrap_or_else(|| "compare it with the labels of the Pods".to_owned()));
    }
    // A misspelt namespace may hide behind labels that no Pod has either.
    let mut unknown = of_namespaces.iter().filter(|wrong| !pods.any(&[*wrong]));
    unknown.find_map(|wrong| similar_value(wrong, &pods.values(&wrong.key, &[])))
}

/// The value that was probably meant, of those that Pods have.
fn similar_value(wrong: &Requirement, values: &BTreeSet<&str>) -> Option<String> {
    let Operator::In(wanted) = &wrong.operator else {
        return None;
    };
    let mut meant = wanted
        .iter()
        .filter_map(|wanted| Some((wanted, closest(wanted, values.iter().copied())?)));
    let (wanted, meant) = meant.next()?;
    Some(format!(
        "did you mean {meant:?} instead of {wanted:?} for `{}`?",
        wrong.key
    ))
}

fn is_of_namespace(requirement: &Requirement) -> bool {
    requirement.key == keys::NAMESPACE || requirement.key.starts_with(keys::NAMESPACE_LABELS)
}
