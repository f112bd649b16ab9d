//! The `cilium.io/v2` policy objects.
//!
//! Two passes over one document, so that every problem is named at once:
//!
//! 1. [`shape`] holds it against the `schema` of the CRD: unknown fields, wrong types.
//! 2. `spec` and what stands below it read the meaning. What the first pass refused reads as absent there.
//!
//! Of a policy that is refused, `stand_in` reads whom it is about, so that these fail closed.

mod egress;
mod names;
mod objects;
mod peers;
mod schema;
mod service_names;
mod spec;
mod stand_in;
mod to_ports;

#[cfg(test)]
mod tests;

use crate::diagnostic::{Diagnostic, Report, closest};
use crate::document::Document;
use crate::policy::{Policy, PolicyId, PolicyKind};
use crate::shape::{self, Node};

pub use stand_in::StandIn;

pub(crate) use schema::POLICY as POLICY_SHAPE;

/// The namespace of a CiliumNetworkPolicy that names none, as `kubectl` fills it in.
const DEFAULT_NAMESPACE: &str = "default";

/// The annotations that this project gives a meaning to.
const ANNOTATIONS: [&str; 5] = [
    "namegate.io/mode",
    "namegate.io/min-ttl",
    "namegate.io/grace",
    "namegate.io/dns-questions",
    "namegate.io/deny-response",
];

/// Whether a document is a CiliumNetworkPolicy or CiliumClusterwideNetworkPolicy.
pub fn is_policy(document: &Document) -> bool {
    kind(document).is_some()
}

/// What becomes of a policy object.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It stands. Parts that are valid for the kind but not enforced here are reported as
    /// [`Unenforced`](crate::Severity::Unenforced), and fail closed.
    Accepted(Policy),
    /// It cannot stand (some diagnostic is an error); its last good version is to stay in force, or else this stand-in.
    Refused(StandIn),
}

impl Verdict {
    /// The policy, unless it is refused.
    pub fn accepted(self) -> Option<Policy> {
        match self {
            Verdict::Accepted(policy) => Some(policy),
            Verdict::Refused(_) => None,
        }
    }
}

/// Reads and validates a policy object, reporting every problem at once.
pub fn validate(document: &Document) -> (Verdict, Vec<Diagnostic>) {
    let mut report = Report::new(document);
    let Some(kind) = kind(document) else {
        let reason = format!(
            "{} {} is not a policy of cilium.io/v2",
            document.api_version, document.kind
        );
        report.error("wrong-kind", "kind", reason);
        return (Verdict::Refused(StandIn::default()), report.finish());
    };
    let id = PolicyId {
        kind,
        namespace: match kind {
            PolicyKind::CiliumClusterwideNetworkPolicy => String::new(),
            PolicyKind::CiliumNetworkPolicy if document.namespace.is_empty() => DEFAULT_NAMESPACE.to_owned(),
            PolicyKind::CiliumNetworkPolicy => document.namespace.clone(),
        },
        name: document.name.clone(),
    };
    let root = Node::root(&document.value);
    shape::check(&root, &schema::POLICY, &mut report);
    annotations(&root, &mut report);

    let nodes = specs(&root);
    if nodes.is_empty() {
        report
            .error("missing-field", "", "it has neither `spec` nor `specs`")
            .suggest("write a `spec` with an `endpointSelector`");
    }
    let specs = nodes
        .iter()
        .filter_map(|node| spec::read(node, &id, &mut report))
        .collect();
    let verdict = match report.is_refused() {
        false => Verdict::Accepted(Policy { id, specs }),
        true => Verdict::Refused(stand_in::read(document, &root, &id)),
    };
    (verdict, report.finish())
}

/// `spec`, then `specs` in order.
fn specs<'a>(root: &Node<'a>) -> Vec<Node<'a>> {
    root.get("spec").into_iter().chain(root.list("specs")).collect()
}

fn kind(document: &Document) -> Option<PolicyKind> {
    match (document.api_version.as_str(), document.kind.as_str()) {
        ("cilium.io/v2", "CiliumNetworkPolicy") => Some(PolicyKind::CiliumNetworkPolicy),
        ("cilium.io/v2", "CiliumClusterwideNetworkPolicy") => Some(PolicyKind::CiliumClusterwideNetworkPolicy),
        _ => None,
    }
}

fn annotations(root: &Node<'_>, report: &mut Report<'_>) {
    let Some(annotations) = root.get("metadata").and_then(|metadata| metadata.get("annotations")) else {
        return;
    };
    for (key, node) in annotations.fields() {
        if !key.starts_with("namegate.io/") {
            continue;
        }
        if ANNOTATIONS.contains(&key) {
            report.unenforced(&node.path, format!("the annotation {key} has no effect yet"));
            continue;
        }
        let finding = report.warning(
            "unknown-annotation",
            &node.path,
            format!("no annotation {key} is known; it has no effect"),
        );
        if let Some(meant) = closest(key, ANNOTATIONS) {
            finding.suggest(format!("did you mean {meant}?"));
        }
    }
}
