//! Whom policies select, and rules without effect.

use std::sync::Arc;

use crate::diagnostic::{Report, closest};
use crate::inventory::InventoryPod;
use crate::labels::{LabelSelector, Operator, Requirement};
use crate::policy::PolicyKind;
use crate::shape::Node;

use super::around::Around;
use super::together::Placed;

/// A policy of the whole cluster that is about every Pod, those of the cluster's own services included.
pub(super) fn selects_all(spec: &Node<'_>, kind: PolicyKind, report: &mut Report<'_>) {
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
        let reason = "it selects every Pod of every namespace, kube-system's too";
        report
            .warning("selector-selects-all", &node.path, reason)
            .suggest(suggestion);
    }
}

/// Whether a label selector asks for nothing.
pub(super) fn is_empty_selector(node: &Node<'_>) -> bool {
    let labels = node.get("matchLabels");
    node.value.is_object()
        && labels.is_none_or(|labels| labels.fields().next().is_none())
        && node.list("matchExpressions").is_empty()
}

/// Lists and rules that have no effect although they look as if they did. (In a NetworkPolicy, an empty list closes.)
pub(super) fn empty_rules(spec: &Node<'_>, report: &mut Report<'_>) {
    if spec.get("endpointSelector").is_none() {
        return;
    }
    for list in ["egress", "egressDeny"] {
        if let Some(node) = spec.get(list).filter(Node::is_empty_list) {
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

/// A policy that is about no Pod.
pub(super) fn selects_none(placed: &Placed<'_>, around: &Around<'_>, report: &mut Report<'_>) {
    let pods = &around.inventory.pods;
    if pods.is_empty() || !placed.pods.is_empty() {
        return;
    }
    let fields = ["endpointSelector", "podSelector", "subject"];
    let path = fields
        .iter()
        .find_map(|field| placed.node.get(field))
        .map(|node| node.path);
    let finding = report.warning(
        "selector-matches-nothing",
        path.as_deref().unwrap_or(&placed.node.path),
        "no Pod in these files is selected, so the policy has no effect on them",
    );
    finding.suggest(nearest(&placed.spec.subject, pods));
}

/// What to change in a selector that matches no Pod.
pub(super) fn nearest(selector: &LabelSelector, pods: &[Arc<InventoryPod>]) -> String {
    let others_hold = |wrong: &Requirement, pod: &&Arc<InventoryPod>| {
        let others = selector.requirements.iter().filter(|it| *it != wrong).cloned();
        let others = LabelSelector {
            requirements: others.collect(),
        };
        others.matches(&pod.labels)
    };
    for wrong in &selector.requirements {
        let near: Vec<_> = pods.iter().filter(|pod| others_hold(wrong, pod)).collect();
        if near.is_empty() {
            continue;
        }
        let key = &wrong.key;
        if let Operator::In(wanted) = &wrong.operator {
            let values = near.iter().filter_map(|pod| pod.labels.get(key)).map(String::as_str);
            let meant = wanted
                .iter()
                .find_map(|wanted| Some((wanted, closest(wanted, values.clone())?)));
            if let Some((wanted, meant)) = meant {
                return format!("did you mean {meant:?} instead of {wanted:?} for `{key}`?");
            }
        }
        let count = near.len();
        let pods = if count == 1 { "Pod" } else { "Pods" };
        return format!("without what it asks of `{key}`, it would select {count} {pods}");
    }
    "compare it with the labels and namespaces of the Pods".to_owned()
}
