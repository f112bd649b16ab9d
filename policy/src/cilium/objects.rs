//! The L3 selectors that name objects of the cluster → [`ObjectSelector`]s.

use crate::diagnostic_report::DiagnosticReport;
use crate::direction::Direction;
use crate::endpoint::keys;
use crate::labels::{LabelSelector, Requirement};
use crate::peer_selector::{ObjectSelector, PeerSelector, ServiceSelector};
use crate::policy_id::PolicyId;
use crate::prefix;
use crate::selector;
use crate::shape::DocumentNode;
use crate::zone::Zone;

use super::written_list::{Side, WrittenList};

/// Reads `toEndpoints` or `fromEndpoints`.
pub(super) fn endpoints(
    node: &DocumentNode<'_>,
    list: WrittenList,
    policy: &PolicyId,
    report: &mut DiagnosticReport<'_>,
) -> PeerSelector {
    let mut selectors = Vec::new();
    for entry in node.items() {
        if let Some(path) = reserved(&entry) {
            selectors.extend(reserved_peers(&path, list, report));
        } else if let Some(mut selector) = selector::read(&entry, report) {
            default_to_namespace(&mut selector, &policy.namespace);
            selectors.push(ObjectSelector::Pods(selector));
        }
    }
    PeerSelector::Objects(selectors)
}

/// Reads `toServices`.
pub(super) fn services(node: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> PeerSelector {
    let selectors = node.items().filter_map(|entry| service(&entry, report));
    PeerSelector::Objects(selectors.map(ObjectSelector::Services).collect())
}

/// Reads `toNodes` or `fromNodes`.
pub(super) fn nodes(node: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> PeerSelector {
    let selectors = node.items().filter_map(|entry| selector::read(&entry, report));
    PeerSelector::Objects(selectors.map(ObjectSelector::Nodes).collect())
}

/// Reads one entry of `toServices`. As in Cilium, `k8sServiceSelector` wins over `k8sService`, and
/// without a namespace the Services of every namespace are meant.
fn service(entry: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> Option<ServiceSelector> {
    let namespace = |node: &DocumentNode<'_>| {
        let text = node.text("namespace").filter(|namespace| !namespace.is_empty());
        text.map(str::to_owned)
    };
    if let Some(node) = entry.get("k8sServiceSelector") {
        let Some(selector) = node.get("selector") else {
            report.error("missing-field", &node.path, "`selector` is required");
            return None;
        };
        return Some(ServiceSelector {
            namespace: namespace(&node),
            name: None,
            labels: selector::read(&selector, report)?,
        });
    }
    let named = entry.get("k8sService");
    let name = named
        .as_ref()
        .and_then(|node| node.text("serviceName"))
        .unwrap_or_default();
    if name.is_empty() && entry.value.is_object() {
        report
            .warning("no-service", &entry.path, "it names no Service, and matches none")
            .suggest("write `k8sService: {serviceName: …, namespace: …}`");
    }
    Some(ServiceSelector {
        namespace: named.as_ref().and_then(namespace),
        name: Some(name.to_owned()),
        labels: LabelSelector::default(),
    })
}

/// The path of the first key that asks for one of Cilium's own identities (`reserved:host`, …),
/// which no Pod has.
fn reserved(selector: &DocumentNode<'_>) -> Option<String> {
    let is_reserved = |key: &str| key.starts_with("reserved:");
    let labels = selector.get("matchLabels");
    let label = labels.and_then(|labels| {
        let mut fields = labels.fields();
        fields.find_map(|(key, value)| is_reserved(key).then_some(value.path))
    });
    label.or_else(|| {
        let mut expressions = selector.list("matchExpressions").into_iter();
        let expression = expressions.find(|expression| expression.text("key").is_some_and(is_reserved))?;
        Some(format!("{}.key", expression.path))
    })
}

fn reserved_peers(path: &str, list: WrittenList, report: &mut DiagnosticReport<'_>) -> Vec<ObjectSelector> {
    let (effect, peers) = match list.side {
        Side::Allow => ("opens nothing".to_owned(), Vec::new()),
        Side::Deny => (
            format!("denies every {}", list.direction.peer()),
            prefix::everything(Zone::Anywhere),
        ),
    };
    let instead = match list.direction {
        Direction::Egress => "toEntities",
        Direction::Ingress => "fromEntities",
    };
    report
        .unenforced(
            path,
            format!("labels of the source `reserved` are Cilium's own, so this selector {effect}"),
        )
        .suggest(format!("write `{instead}` with the entity that is meant"));
    peers.into_iter().map(ObjectSelector::from).collect()
}

/// As in Cilium, a selector of a namespaced policy that asks for no namespace, neither by name nor
/// by labels, means the policy's own.
fn default_to_namespace(selector: &mut LabelSelector, namespace: &str) {
    let asks = |requirement: &Requirement| {
        requirement.key == keys::NAMESPACE || requirement.key.starts_with(keys::NAMESPACE_LABELS)
    };
    if !namespace.is_empty() && !selector.requirements.iter().any(asks) {
        selector
            .requirements
            .push(Requirement::equals(keys::NAMESPACE, namespace));
    }
}
