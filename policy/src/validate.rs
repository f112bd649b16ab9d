//! One document → one policy, whichever of the kinds it is, or what stands in for it.
//!
//! Two passes over one document, so that every problem is named at once: its fields are held
//! against the schema of its kind, then the meaning is read. What the first pass refused reads as
//! absent in the second.

use crate::diagnostic::Diagnostic;
use crate::diagnostic_report::DiagnosticReport;
use crate::document::Document;
use crate::policy::Policy;
use crate::policy_id::{PolicyId, PolicyKind};
use crate::shape::{DocumentNode, FieldShape};
use crate::{cilium, cluster_network_policy, extensions, network_policy};

pub use crate::cilium::HOST_POLICY;
pub use crate::stand_in::StandIn;

/// The namespace of a policy that needs one and names none, as `kubectl` fills it in.
const DEFAULT_NAMESPACE: &str = "default";

/// What becomes of a policy object.
#[derive(Debug, Clone, PartialEq)]
pub enum Validation {
    /// It stands. Parts that are valid for the kind but not enforced here are reported as
    /// [`Unenforced`](crate::Severity::Unenforced), and fail closed.
    Accepted(Policy),
    /// It cannot stand (some diagnostic is an error); its last good version is to stay in force, or
    /// else this stand-in.
    Refused(StandIn),
}

impl Validation {
    /// The policy, unless it is refused.
    pub fn accepted(self) -> Option<Policy> {
        match self {
            Validation::Accepted(policy) => Some(policy),
            Validation::Refused(_) => None,
        }
    }
}

/// Whether a document is a policy of a kind and version that is understood.
pub fn is_policy(document: &Document) -> bool {
    kind(document).is_some()
}

/// Which policy a document is, or means to be; `None` when it [is none](is_policy).
pub fn id(document: &Document) -> Option<PolicyId> {
    let kind = kind(document)?;
    Some(PolicyId {
        kind,
        namespace: match kind.is_namespaced() {
            false => String::new(),
            true if document.namespace.is_empty() => DEFAULT_NAMESPACE.to_owned(),
            true => document.namespace.clone(),
        },
        name: document.name.clone(),
    })
}

/// Reads and validates a policy object, reporting every problem at once.
pub fn validate(document: &Document) -> (Validation, Vec<Diagnostic>) {
    let mut report = DiagnosticReport::new(document);
    let Some(id) = id(document) else {
        let diagnostics = match foreign_policy(document) {
            Some(diagnostic) => vec![diagnostic],
            None => {
                let reason = format!("{} of {} is not a policy", document.kind, document.api_version);
                report.error("wrong-kind", "kind", reason);
                report.finish()
            }
        };
        return (Validation::Refused(StandIn::default()), diagnostics);
    };
    let root = DocumentNode::root(&document.value);
    let extensions = extensions::read(&root, &mut report);
    if extensions.ignored {
        return ignored(
            document,
            Policy {
                id,
                extensions,
                specs: Vec::new(),
            },
        );
    }
    let specs = match id.kind {
        PolicyKind::CiliumNetworkPolicy | PolicyKind::CiliumClusterwideNetworkPolicy => {
            cilium::read(&root, &id, &mut report)
        }
        PolicyKind::NetworkPolicy => network_policy::read(&root, &id, &mut report),
        PolicyKind::ClusterNetworkPolicy => cluster_network_policy::read(&root, &mut report),
    };
    if !report.is_refused() {
        let policy = Policy { id, extensions, specs };
        return (Validation::Accepted(policy), report.finish());
    }
    let mut findings = DiagnosticReport::new(document);
    let specs = match id.kind {
        PolicyKind::CiliumNetworkPolicy | PolicyKind::CiliumClusterwideNetworkPolicy => {
            cilium::stand_in(document, &root, &id, &mut findings)
        }
        PolicyKind::NetworkPolicy => network_policy::stand_in(document, &root, &id, &mut findings),
        PolicyKind::ClusterNetworkPolicy => cluster_network_policy::stand_in(document, &root, &mut findings),
    };
    let stand_in = StandIn {
        policy: (!specs.is_empty()).then_some(Policy { id, extensions, specs }),
        findings: findings.finish(),
    };
    (Validation::Refused(stand_in), report.finish())
}

/// The code of the finding about a policy that is passed over because it says so.
pub const IGNORED: &str = "ignored";

/// Somebody else's policy: its mistakes are not ours to find, and it closes nobody while it has
/// some.
fn ignored(document: &Document, policy: Policy) -> (Validation, Vec<Diagnostic>) {
    let mut report = DiagnosticReport::new(document);
    let reason = "the policy says that it is not for this agent: it opens and closes nothing here";
    report.warning(IGNORED, "metadata.annotations.namegate.io/mode", reason);
    (Validation::Accepted(policy), report.finish())
}

/// The fields that a kind has.
pub(crate) fn shape_of(kind: PolicyKind) -> &'static FieldShape {
    match kind {
        PolicyKind::CiliumNetworkPolicy | PolicyKind::CiliumClusterwideNetworkPolicy => &cilium::POLICY_SHAPE,
        PolicyKind::NetworkPolicy => &network_policy::POLICY_SHAPE,
        PolicyKind::ClusterNetworkPolicy => &cluster_network_policy::schema::POLICY,
    }
}

/// What to say of an object that calls itself a network policy and is none that is understood: to
/// pass over it in silence would leave open what its author thinks closed. `None` for anything
/// else.
pub fn foreign_policy(document: &Document) -> Option<Diagnostic> {
    let (version, name) = (document.api_version.as_str(), document.kind.as_str());
    if is_policy(document) || !name.ends_with("NetworkPolicy") {
        return None;
    }
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let known = PolicyKind::ALL.into_iter().find(|kind| kind.as_str() == name);
    let (code, suggestion) = match (group, name, known) {
        // Its fields have other names than they have today.
        ("policy.networking.k8s.io", "AdminNetworkPolicy", _) => ("unknown-version", cluster_policy("Admin")),
        ("policy.networking.k8s.io", "BaselineAdminNetworkPolicy", _) => {
            ("unknown-version", cluster_policy("Baseline"))
        }
        // Group and version under which NetworkPolicy was born.
        ("extensions", "NetworkPolicy", Some(kind)) => ("unknown-version", written_as(kind)),
        (group, _, Some(kind)) if kind.api_version().starts_with(&format!("{group}/")) => {
            ("unknown-version", written_as(kind))
        }
        _ => {
            let kinds = PolicyKind::ALL.map(PolicyKind::as_str).join(", ");
            (
                "not-enforced",
                format!("write it as one of {kinds}, or move it out of these files"),
            )
        }
    };
    let mut report = DiagnosticReport::new(document);
    let reason = format!("{name} of {version} is not understood: nothing that it restricts is restricted");
    let path = if code == "unknown-version" {
        "apiVersion"
    } else {
        "kind"
    };
    report.error(code, path, reason).suggest(suggestion);
    report.finish().pop()
}

fn written_as(kind: PolicyKind) -> String {
    format!("write `apiVersion: {}`", kind.api_version())
}

fn cluster_policy(tier: &str) -> String {
    let kind = PolicyKind::ClusterNetworkPolicy;
    format!(
        "write `apiVersion: {}`, `kind: {kind}` and `tier: {tier}`; the action Allow is Accept there, and ports stand under `protocols`",
        kind.api_version(),
        kind = kind.as_str(),
    )
}

fn kind(document: &Document) -> Option<PolicyKind> {
    let is = |kind: &PolicyKind| kind.as_str() == document.kind && kind.is_understood(&document.api_version);
    PolicyKind::ALL.into_iter().find(is)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::parse;

    fn said(api_version: &str, kind: &str) -> (String, String) {
        let text = format!("apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: x}}\n");
        let document = parse(&text).0.remove(0);
        assert!(!is_policy(&document));
        let (verdict, diagnostics) = validate(&document);
        assert_eq!(verdict, Validation::Refused(StandIn::default()));
        let [diagnostic] = diagnostics.as_slice() else {
            panic!("{diagnostics:?}")
        };
        let suggestion = diagnostic.suggestion.clone().unwrap_or_default();
        (diagnostic.code.to_owned(), suggestion)
    }

    #[test]
    fn other_versions_of_the_kinds_are_named_with_what_to_write_instead() {
        for (api_version, kind, expected) in [
            ("extensions/v1beta1", "NetworkPolicy", "networking.k8s.io/v1"),
            ("networking.k8s.io/v2", "NetworkPolicy", "networking.k8s.io/v1"),
            ("cilium.io/v1", "CiliumNetworkPolicy", "cilium.io/v2"),
            (
                "policy.networking.k8s.io/v1alpha1",
                "ClusterNetworkPolicy",
                "policy.networking.k8s.io/v1beta1",
            ),
            (
                "policy.networking.k8s.io/v1alpha1",
                "AdminNetworkPolicy",
                "`tier: Admin`",
            ),
            (
                "policy.networking.k8s.io/v1alpha1",
                "BaselineAdminNetworkPolicy",
                "`tier: Baseline`",
            ),
        ] {
            let (code, suggestion) = said(api_version, kind);
            assert_eq!(code, "unknown-version", "{api_version} {kind}");
            assert!(suggestion.contains(expected), "{suggestion}");
        }
    }

    #[test]
    fn both_versions_of_a_cluster_network_policy_mean_the_same() {
        let read = |version: &str| {
            let text = format!(
                "apiVersion: policy.networking.k8s.io/{version}\nkind: ClusterNetworkPolicy\nmetadata: {{name: x}}\nspec: {{tier: Admin, priority: 1, \
                 subject: {{namespaces: {{}}}}, egress: [{{action: Deny, to: [{{networks: [192.0.2.0/24]}}]}}]}}\n"
            );
            validate(&parse(&text).0.remove(0)).0.accepted().unwrap()
        };
        assert_eq!(read("v1beta1"), read("v1alpha2"));
    }

    #[test]
    fn what_calls_itself_a_network_policy_is_never_passed_over() {
        assert_eq!(said("projectcalico.org/v3", "GlobalNetworkPolicy").0, "not-enforced");
        assert_eq!(said("cilium.io/v2", "NetworkPolicy").0, "not-enforced");
        assert_eq!(said("cilium.io/v2", "CiliumNode").0, "wrong-kind");
    }
}
