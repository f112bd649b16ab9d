//! One peer → the objects and prefixes that it selects.

use crate::diagnostic_report::DiagnosticReport;
use crate::endpoint::keys;
use crate::labels::LabelSelector;
use crate::peer_selector::ObjectSelector;
use crate::policy_id::PolicyId;
use crate::prefix;
use crate::selector;
use crate::shape::DocumentNode;
use crate::zone::Zone;

use super::own_namespace;

pub(super) fn read(peer: &DocumentNode<'_>, id: &PolicyId, report: &mut DiagnosticReport<'_>) -> Vec<ObjectSelector> {
    if !peer.value.is_object() {
        return Vec::new();
    }
    let (pods, namespaces) = (peer.get("podSelector"), peer.get("namespaceSelector"));
    match peer.get("ipBlock") {
        Some(block) if pods.is_none() && namespaces.is_none() => ip_block(&block, report),
        Some(_) => {
            report
                .error(
                    "two-selectors",
                    &peer.path,
                    "`ipBlock` and a selector stand in one peer",
                )
                .suggest("write one peer for each");
            Vec::new()
        }
        None if pods.is_none() && namespaces.is_none() => {
            report
                .error("missing-field", &peer.path, "it selects nothing")
                .suggest("write `podSelector`, `namespaceSelector` or `ipBlock`; leave the list out for every peer");
            Vec::new()
        }
        None => {
            let selector = objects(pods, namespaces, id, report);
            selector.map(ObjectSelector::Pods).into_iter().collect()
        }
    }
}

/// Pods of the namespaces that are selected; of the policy's own, where `namespaceSelector` is
/// absent.
fn objects(
    pods: Option<DocumentNode<'_>>,
    namespaces: Option<DocumentNode<'_>>,
    id: &PolicyId,
    report: &mut DiagnosticReport<'_>,
) -> Option<LabelSelector> {
    let mut selector = LabelSelector::default();
    match namespaces {
        Some(node) => selector = selector::read_bare(&node, keys::NAMESPACE_LABELS, report)?,
        None => selector.requirements.push(own_namespace(id)),
    }
    if let Some(node) = pods {
        selector
            .requirements
            .extend(selector::read_bare(&node, "", report)?.requirements);
    }
    Some(selector)
}

/// A prefix with holes, wherever its addresses are: inside the cluster too.
fn ip_block(block: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> Vec<ObjectSelector> {
    let Some(node) = block.get("cidr") else {
        if block.value.is_object() {
            report.error("missing-field", &block.path, "`cidr` is required");
        }
        return Vec::new();
    };
    let Some(whole) = prefix::read(&node, report) else {
        return Vec::new();
    };
    let holes = prefix::exceptions(block, Some(whole), report);
    if holes.contains(&whole) {
        let path = format!("{}.except", block.path);
        report.error("bad-except", &path, format!("nothing of {whole} is left"));
    }
    let left = prefix::without(whole, &holes).into_iter();
    left.map(|prefix| ObjectSelector::Prefix(Zone::Anywhere, prefix))
        .collect()
}
