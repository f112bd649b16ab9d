//! Whom policies select, and policies and rules without effect.

use std::sync::Arc;

use crate::diagnostic::closest;
use crate::diagnostic_report::DiagnosticReport;
use crate::document::Document;
use crate::endpoint::keys;
use crate::inventory::{InventoryPod, PodIndex};
use crate::labels::{LabelSelector, Operator, Requirement};
use crate::policy::{Action, Policy, PolicyRule, PolicySpec};
use crate::policy_id::PolicyKind;
use crate::ports::PortSet;
use crate::shape::DocumentNode;

use super::cluster_context::ClusterContext;
use super::containment::everywhere;
use super::context::LintedSpec;
use super::specs;

/// Warns of a valid policy that neither closes, opens nor denies anything.
pub(super) fn without_effect(document: &Document, policy: &Policy, report: &mut DiagnosticReport<'_>) {
    let does_nothing = |spec: &PolicySpec| !spec.directions.egress.says_anything();
    let speaks_of_ingress = |(node, _): (DocumentNode<'_>, _)| {
        let lists = ["ingress", "ingressDeny"];
        lists.iter().any(|field| !node.list(field).is_empty())
    };
    if policy.specs.is_empty()
        || !policy.specs.iter().all(does_nothing)
        || specs(document, policy).any(speaks_of_ingress)
    {
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

/// Warns of a clusterwide policy that closes every Pod, because that includes the cluster's own
/// services.
pub(super) fn selects_all(
    spec: &DocumentNode<'_>,
    kind: PolicyKind,
    meaning: &PolicySpec,
    report: &mut DiagnosticReport<'_>,
) {
    let denies_all = |rule: &PolicyRule| everywhere(&rule.peers) && rule.ports == PortSet::All;
    if !meaning.directions.egress.closes && !meaning.directions.egress.rules_that(Action::Deny).any(denies_all) {
        return;
    }
    let suggestion = match kind {
        // Closing a whole namespace is what an empty selector is usually for.
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

/// Whether a label selector has no requirements.
pub(super) fn is_empty_selector(node: &DocumentNode<'_>) -> bool {
    let labels = node.get("matchLabels");
    node.value.is_object()
        && labels.is_none_or(|labels| labels.fields().next().is_none())
        && node.list("matchExpressions").is_empty()
}

/// Warns of empty lists and empty deny rules of Cilium's kinds, which look as if they closed or
/// denied something. (In a NetworkPolicy, an empty list does close.)
pub(super) fn empty_rules(spec: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) {
    if spec.get("endpointSelector").is_none() {
        return;
    }
    for list in ["egress", "egressDeny"] {
        if let Some(node) = spec.get(list).filter(DocumentNode::is_empty_list) {
            report
                .warning(
                    "empty-rule-list",
                    &node.path,
                    "an empty list has no effect: it does not close egress",
                )
                .suggest("write `egress: [{}]` to close egress, or leave it out");
        }
    }
    for rule in spec.list("egressDeny") {
        if rule.fields().next().is_none() {
            report
                .warning("empty-deny-rule", &rule.path, "an empty rule denies nothing")
                .suggest("write `toEntities: [all]` to deny everything");
        }
    }
}

/// Warns of a policy that selects no Pod in the files.
pub(super) fn selects_none(linted: &LintedSpec<'_>, cluster: &ClusterContext<'_>, report: &mut DiagnosticReport<'_>) {
    if !linted.pods.is_empty() {
        return;
    }
    let Some(suggestion) = no_pods(&linted.spec.subject, &cluster.inventory.pods) else {
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

/// What to change in a selector that matches no Pod; `None` when it matches one. `None`, too, when
/// the files hold no Pod of the namespaces that it asks for, because the Pods may be kept
/// elsewhere; unless there is a namespace of a similar name.
pub(super) fn no_pods(selector: &LabelSelector, pods: &PodIndex) -> Option<String> {
    let matching = |requirements: &[&Requirement]| -> Vec<&Arc<InventoryPod>> {
        let requirements = requirements.iter().map(|it| (*it).clone()).collect();
        let selector = LabelSelector { requirements };
        pods.selected(&selector).collect()
    };
    let all: Vec<&Requirement> = selector.requirements.iter().collect();
    let of_namespaces: Vec<&Requirement> = all.iter().copied().filter(|it| is_of_namespace(it)).collect();
    if pods.is_empty() || !matching(&all).is_empty() {
        return None;
    }
    let is_known = !matching(&of_namespaces).is_empty();
    let mut without_one = None;
    for wrong in &all {
        let others: Vec<&Requirement> = all.iter().copied().filter(|it| it != wrong).collect();
        let near = matching(&others);
        if near.is_empty() {
            continue;
        }
        let key = &wrong.key;
        if let Some(meant) = similar_value(wrong, &near) {
            return Some(meant);
        }
        let count = near.len();
        let pods = if count == 1 { "Pod" } else { "Pods" };
        without_one.get_or_insert_with(|| format!("without what it asks of `{key}`, it would select {count} {pods}"));
    }
    if is_known {
        return Some(without_one.unwrap_or_else(|| "compare it with the labels of the Pods".to_owned()));
    }
    // Where no Pod has the other labels either, the loop above cannot find a misspelt namespace.
    let every: Vec<_> = pods.iter().collect();
    of_namespaces
        .iter()
        .find_map(|wrong| similar_value(wrong, &every).filter(|_| matching(&[*wrong]).is_empty()))
}

/// A suggestion where some Pod has a value that is similar to the one that is asked for.
fn similar_value(wrong: &Requirement, pods: &[&Arc<InventoryPod>]) -> Option<String> {
    let Operator::In(wanted) = &wrong.operator else {
        return None;
    };
    let values = pods
        .iter()
        .filter_map(|pod| pod.labels().get(&wrong.key))
        .map(String::as_str);
    let mut meant = wanted
        .iter()
        .filter_map(|wanted| Some((wanted, closest(wanted, values.clone())?)));
    let (wanted, meant) = meant.next()?;
    Some(format!(
        "did you mean {meant:?} instead of {wanted:?} for `{}`?",
        wrong.key
    ))
}

fn is_of_namespace(requirement: &Requirement) -> bool {
    requirement.key == keys::NAMESPACE || requirement.key.starts_with(keys::NAMESPACE_LABELS)
}
