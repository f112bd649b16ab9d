//! Whom a policy is for, and the peers that are selected in the same way.

use crate::diagnostic_report::DiagnosticReport;
use crate::endpoint::keys;
use crate::labels::LabelSelector;
use crate::selector;
use crate::shape::DocumentNode;

/// `None` when it cannot be told; an error says why.
pub(super) fn read(spec: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> Option<LabelSelector> {
    let Some(subject) = spec.get("subject") else {
        super::missing(
            spec,
            "subject",
            "write `subject: {namespaces: {}}` to select every Pod",
            report,
        );
        return None;
    };
    match (subject.get("namespaces"), subject.get("pods")) {
        (Some(node), None) => namespaces(&node, report),
        (None, Some(node)) => pods(&node, report),
        (None, None) => {
            super::missing(&subject, "namespaces` or `pods", "write one of them", report);
            None
        }
        (Some(_), Some(_)) => {
            report
                .error(
                    "two-selectors",
                    &subject.path,
                    "`namespaces` and `pods` stand in one subject",
                )
                .suggest("write `pods` alone: it selects namespaces too");
            None
        }
    }
}

/// Every Pod of the namespaces that are selected.
pub(super) fn namespaces(node: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> Option<LabelSelector> {
    selector::read_bare(node, keys::NAMESPACE_LABELS, report)
}

/// The Pods that are selected, of the namespaces that are selected: every one, where there is no
/// `namespaceSelector`.
pub(super) fn pods(node: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> Option<LabelSelector> {
    let namespaces = match node.get("namespaceSelector") {
        Some(node) => namespaces(&node, report),
        None => Some(LabelSelector::default()),
    };
    let Some(pods) = node.get("podSelector") else {
        super::missing(
            node,
            "podSelector",
            "write `podSelector: {}` to select every Pod",
            report,
        );
        return None;
    };
    let pods = selector::read_bare(&pods, "", report);
    let mut selector = namespaces?;
    selector.requirements.extend(pods?.requirements);
    Some(selector)
}
