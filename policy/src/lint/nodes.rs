//! Policies that select nodes themselves.

use crate::diagnostic_report::DiagnosticReport;
use crate::peer_selector::{ObjectSelector, PeerSelector};
use crate::policy::{Action, PolicyRule, PolicySpec, SubjectKind};
use crate::shape::DocumentNode;
use crate::zone::Zone;

use super::cluster_context::ClusterContext;
use super::path_of;

/// Findings about one spec by itself.
pub(super) fn of_one(node: &DocumentNode<'_>, spec: &PolicySpec, report: &mut DiagnosticReport<'_>) {
    if spec.subject_kind != SubjectKind::Nodes {
        return;
    }
    refuses_probes(node, spec, report);
    let egress = &spec.directions.egress;
    for rule in &egress.rules {
        if matches!(rule.peers, PeerSelector::Names(_)) {
            report
                .warning(
                    "node-names",
                    path_of(&rule.origin),
                    "lookups of a node are not intercepted: what it asks its resolver teaches nobody, and opens nothing",
                )
                .suggest("have the node ask an address that the agent serves with `--listen`, or write the addresses");
        }
    }
}

/// A node that may not reach its own Pods: the kubelet's probes come from there, and Pods whose
/// probes fail are killed.
fn refuses_probes(node: &DocumentNode<'_>, spec: &PolicySpec, report: &mut DiagnosticReport<'_>) {
    let egress = &spec.directions.egress;
    if !egress.closes || egress.rules_that(Action::Allow).any(may_reach_pods) {
        return;
    }
    report
        .warning(
            "probes-refused",
            &format!("{}.nodeSelector", node.path),
            "it closes egress of the node and lets it reach no Pod, so that the kubelet's probes of its own Pods fail",
        )
        .suggest("add a rule with `toEntities: [cluster]`, or one with `toEndpoints` for the Pods that have probes");
}

fn may_reach_pods(rule: &PolicyRule) -> bool {
    let has_pods = |zone: Zone| !matches!(zone, Zone::World | Zone::Host);
    match &rule.peers {
        PeerSelector::Prefixes(prefixes) => prefixes.iter().any(|(zone, _)| has_pods(*zone)),
        PeerSelector::Objects(selectors) => selectors.iter().any(|selector| match selector {
            ObjectSelector::Pods(_) | ObjectSelector::Services(_) => true,
            ObjectSelector::Prefix(zone, _) => has_pods(*zone),
            ObjectSelector::Nodes(_)
            | ObjectSelector::RemoteNodes
            | ObjectSelector::ApiServer
            | ObjectSelector::CidrGroups(_) => false,
        }),
        PeerSelector::Names(_) | PeerSelector::Unresolved => false,
    }
}

/// A spec that selects none of the nodes there are.
pub(super) fn selects_none(
    node: &DocumentNode<'_>,
    spec: &PolicySpec,
    cluster: &ClusterContext<'_>,
    report: &mut DiagnosticReport<'_>,
) {
    let nodes = &cluster.inventory.nodes;
    let is_none = !nodes.is_empty() && !nodes.values().any(|node| spec.subject.matches(&node.labels));
    if spec.subject_kind == SubjectKind::Nodes && is_none {
        report
            .warning(
                "selector-matches-nothing",
                &format!("{}.nodeSelector", node.path),
                "no Node in these files is selected, so the policy has no effect on them",
            )
            .suggest("compare it with the labels of the Nodes");
    }
}
