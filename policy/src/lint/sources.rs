//! Sources that are not what packets come from.

use crate::diagnostic_report::DiagnosticReport;
use crate::peer_selector::{ObjectSelector, PeerSelector};
use crate::policy::{Action, PolicySpec, SubjectKind, Tier};
use crate::zone::Zone;

use super::cluster_context::ClusterContext;
use super::context::LintedSpec;
use super::networks::blocks;
use super::path_of;
use super::peers::written_rule;
use super::selection::Selection;

/// Denials of the Pod's own node, whose packets pass before any ingress rule is asked: the
/// kubelet's probes must not depend on policies.
pub(super) fn own_node_denied(spec: &PolicySpec, report: &mut DiagnosticReport<'_>) {
    if spec.subject_kind == SubjectKind::Nodes {
        return;
    }
    for rule in spec.directions.ingress.rules_that(Action::Deny) {
        let is_host = match &rule.peers {
            PeerSelector::Prefixes(prefixes) => prefixes.iter().any(|(zone, _)| *zone == Zone::Host),
            PeerSelector::Objects(selectors) => selectors
                .iter()
                .any(|selector| matches!(selector, ObjectSelector::Prefix(Zone::Host, _))),
            PeerSelector::Names(_) | PeerSelector::Unresolved => false,
        };
        if is_host && spec.tier == Tier::Network {
            report
                .warning(
                    "own-node-passes",
                    path_of(&rule.origin),
                    "what comes from the Pod's own node passes whatever ingress rules say, so that this denies other nodes at most",
                )
                .suggest("leave it out; where agents run with `--local-host policy`, it is enforced as written");
        }
    }
}

/// Prefixes of sources outside the cluster, for Pods to which other nodes forward.
pub(super) fn behind_services(
    linted: &LintedSpec<'_>,
    cluster: &ClusterContext<'_>,
    selection: &Selection<'_>,
    report: &mut DiagnosticReport<'_>,
) {
    if cluster.masquerading.is_empty() {
        return;
    }
    let mut services = selection.services_before(&linted.pods);
    let found = services.find(|service| {
        let key = (service.namespace.clone(), service.name.clone());
        cluster.masquerading.contains(&key)
    });
    let Some(service) = found else { return };
    for rule in &linted.spec.directions.ingress.rules {
        let Some(written) = written_rule(&linted.node, rule) else {
            continue;
        };
        // Of every address nodes are a part, or in Cilium's kinds known not to be.
        for block in blocks(&written).iter().filter(|block| block.whole.prefix_len() > 0) {
            let reason = format!(
                "what comes in by another node through the Service {}/{} has that node's address, and not the client's, so that this prefix may not match it",
                service.namespace, service.name
            );
            report
                .warning("source-may-be-node", &block.node.path, reason)
                .suggest("give the Service `externalTrafficPolicy: Local`, which keeps clients' addresses");
        }
    }
}
