//! One document → one object, and everything that is to be said of it.

use std::sync::Arc;

use policy::document::Document;
use policy::validate::{StandIn, Validation};
use policy::{Diagnostic, Severity, cidr_group, document, lint, validate};
use serde::Deserialize;

use crate::object::{Object, ObjectKey};
use crate::report::ReportState;
use crate::slim::{BadValue, DEFAULT_NAMESPACE, SlimKind, WireObject};

/// What a file holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ParsedFile {
    /// The objects that Namegate acts on or refuses, in the file's order.
    pub objects: Vec<ParsedDocument>,
    /// What is wrong with the file itself: text that is not YAML, documents that are no objects.
    pub faults: Vec<Diagnostic>,
    /// `kind namespace/name` of objects that Namegate has no use for.
    pub foreign: Vec<String>,
}

/// What one document says.
#[derive(Debug, Clone, PartialEq)]
pub struct ParsedDocument {
    /// `kind namespace/name`.
    pub label: String,
    /// Which object it is; `None` for a kind that is refused as such.
    pub key: Option<ObjectKey>,
    /// The object, unless it is refused.
    pub object: Option<Object>,
    /// Of a policy that is refused: what stands in for it while no earlier version is known.
    pub stand_in: StandIn,
    /// What was found.
    pub diagnostics: Vec<Diagnostic>,
    /// The document itself as JSON: what [`reread`] takes. `None` of an object of Kubernetes
    /// itself, which holds all that is read of it.
    pub source: Option<Arc<str>>,
}

impl ParsedDocument {
    /// What becomes of the object as written, when no earlier version is known.
    pub fn state(&self) -> ReportState {
        match &self.object {
            None => ReportState::Rejected,
            Some(_) if self.diagnostics.iter().any(|it| it.severity == Severity::Unenforced) => ReportState::Partial,
            Some(_) => ReportState::Accepted,
        }
    }
}

/// Reads the text of a file.
pub fn read_file(text: &str) -> ParsedFile {
    read_documents(text, &mut |_, _| ())
}

/// As [`read_file`]. `visit` is given each document of an object that Namegate acts on or refuses,
/// and what it says.
pub(crate) fn read_documents(text: &str, visit: &mut dyn FnMut(Document, &ParsedDocument)) -> ParsedFile {
    let mut file = ParsedFile::default();
    let faults = document::parse_each(text, &mut |document| match read(&document) {
        Some(reading) => {
            visit(document, &reading);
            file.objects.push(reading);
        }
        None => file.foreign.push(label(&document)),
    });
    ParsedFile { faults, ..file }
}

/// Reads a [`ParsedDocument::source`] again; `None` when it is no object that can be in force.
pub fn reread(source: &str) -> Option<(ObjectKey, Object)> {
    let document = Document::from_value(serde_json::from_str(source).ok()?).ok()?;
    let reading = read(&document)?;
    reading.key.zip(reading.object)
}

/// Reads an object of Kubernetes itself, as it was written by this program.
pub(crate) fn reread_slim(source: &str) -> Option<Object> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct KindOfObject<'a> {
        api_version: &'a str,
        kind: &'a str,
    }
    let KindOfObject { api_version, kind } = serde_json::from_str(source).ok()?;
    if !is_slim(api_version, kind) {
        return None;
    }
    read_wire(kind, serde_json::from_str(source).ok()?)?.object
}

fn is_slim(api_version: &str, kind: &str) -> bool {
    matches!(
        (api_version, kind),
        ("v1", "Pod" | "Namespace" | "Node" | "Service")
            | ("discovery.k8s.io/v1", "EndpointSlice")
            | (
                "multicluster.x-k8s.io/v1beta1" | "multicluster.x-k8s.io/v1alpha1",
                "ServiceImport"
            )
    )
}

/// The label of a [`ParsedDocument::source`].
pub(crate) fn label_of(source: &str) -> Option<String> {
    let document = Document::from_value(serde_json::from_str(source).ok()?).ok()?;
    Some(label(&document))
}

/// Reads one document; `None` for a kind that says nothing about egress.
pub fn read(document: &Document) -> Option<ParsedDocument> {
    let (group, kind) = (document.api_version.as_str(), document.kind.as_str());
    Some(match (group, kind) {
        _ if is_slim(group, kind) => core(document),
        _ if cidr_group::is_cidr_group(document) => cidr_group_of(document),
        _ if validate::is_policy(document) => policy(document),
        (group, "Pod" | "Namespace" | "Node" | "Service") if !group.contains('/') => refused_kind(
            document,
            Diagnostic {
                severity: Severity::Error,
                code: "unknown-version",
                path: "kind".into(),
                position: document.position("kind"),
                reason: format!("there is no {kind} in apiVersion {group:?}"),
                suggestion: Some("write `apiVersion: v1`".into()),
            },
        ),
        _ => refused_kind(document, validate::foreign_policy(document)?),
    })
}

/// Reads an object of Kubernetes itself that comes from no file; `None` for other kinds.
pub(crate) fn read_wire(kind: &str, wire: WireObject) -> Option<ParsedDocument> {
    let mut bad = Vec::new();
    let object = slim(kind, wire, &mut bad)?;
    Some(converted(object, bad, None))
}

/// Reads an object of Kubernetes itself.
fn core(document: &Document) -> ParsedDocument {
    let mut bad = Vec::new();
    let read = document.read::<WireObject>();
    match read.map(|wire| slim(&document.kind, wire, &mut bad)) {
        Ok(Some(object)) => converted(object, bad, Some(document)),
        // Not reached: the caller knows the kind.
        Ok(None) => refused(document, Vec::new()),
        Err(diagnostic) => refused(document, vec![diagnostic]),
    }
}

fn refused(document: &Document, diagnostics: Vec<Diagnostic>) -> ParsedDocument {
    ParsedDocument {
        label: label(document),
        key: key_of(document),
        object: None,
        stand_in: StandIn::default(),
        diagnostics,
        source: None,
    }
}

fn slim(kind: &str, wire: WireObject, bad: &mut Vec<BadValue>) -> Option<Object> {
    Some(match kind {
        "Pod" => Object::Pod(Arc::new(SlimKind::from_wire(wire, bad))),
        "Namespace" => Object::Namespace(Arc::new(SlimKind::from_wire(wire, bad))),
        "Node" => Object::Node(Arc::new(SlimKind::from_wire(wire, bad))),
        "Service" => Object::Service(Arc::new(SlimKind::from_wire(wire, bad))),
        "EndpointSlice" => Object::EndpointSlice(Arc::new(SlimKind::from_wire(wire, bad))),
        "ServiceImport" => Object::ServiceImport(Arc::new(SlimKind::from_wire(wire, bad))),
        _ => return None,
    })
}

/// `document` is `None` for an object that comes from no file.
fn converted(object: Object, bad: Vec<BadValue>, document: Option<&Document>) -> ParsedDocument {
    let key = object.key();
    let diagnostics = bad.into_iter().map(|bad| Diagnostic {
        severity: Severity::Error,
        code: "bad-address",
        position: document.and_then(|document| document.position(&bad.path)),
        reason: format!("{:?} is not {}", bad.value, bad.wanted),
        suggestion: Some(format!("write it as in {}", bad.example)),
        path: bad.path,
    });
    let diagnostics: Vec<Diagnostic> = diagnostics.collect();
    ParsedDocument {
        label: key.to_string(),
        key: Some(key),
        object: diagnostics.is_empty().then_some(object),
        stand_in: StandIn::default(),
        diagnostics,
        source: None,
    }
}

fn cidr_group_of(document: &Document) -> ParsedDocument {
    let (group, diagnostics) = cidr_group::read(document);
    let key = ObjectKey::CidrGroup(document.name.clone());
    ParsedDocument {
        label: key.to_string(),
        key: Some(key),
        object: group.map(|group| Object::CidrGroup(Box::new(group))),
        stand_in: StandIn::default(),
        diagnostics,
        source: Some(source(document)),
    }
}

fn policy(document: &Document) -> ParsedDocument {
    let (verdict, mut diagnostics) = validate::validate(document);
    let (policy, stand_in) = match verdict {
        Validation::Accepted(policy) => (Some(policy), StandIn::default()),
        Validation::Refused(stand_in) => (None, stand_in),
    };
    if let Some(policy) = &policy {
        diagnostics.extend(lint::lint(document, policy));
    }
    let key = match &policy {
        Some(policy) => Some(ObjectKey::Policy(policy.id.clone())),
        None => key_of(document),
    };
    ParsedDocument {
        label: key.as_ref().map_or_else(|| label(document), ObjectKey::to_string),
        key,
        object: policy.map(|policy| Object::Policy(Box::new(policy))),
        stand_in,
        diagnostics,
        source: Some(source(document)),
    }
}

fn refused_kind(document: &Document, diagnostic: Diagnostic) -> ParsedDocument {
    ParsedDocument {
        label: label(document),
        key: None,
        object: None,
        stand_in: StandIn::default(),
        diagnostics: vec![diagnostic],
        source: Some(source(document)),
    }
}

fn source(document: &Document) -> Arc<str> {
    document.value.to_string().into()
}

/// Which object a document means to be, although its content is refused.
fn key_of(document: &Document) -> Option<ObjectKey> {
    let name = document.name.clone();
    Some(match document.kind.as_str() {
        "Pod" => ObjectKey::Pod(namespace_of(document), name),
        "Namespace" => ObjectKey::Namespace(name),
        "Node" => ObjectKey::Node(name),
        "Service" => ObjectKey::Service(namespace_of(document), name),
        "CiliumCIDRGroup" => ObjectKey::CidrGroup(name),
        "EndpointSlice" => ObjectKey::EndpointSlice(namespace_of(document), name),
        "ServiceImport" => ObjectKey::ServiceImport(namespace_of(document), name),
        _ => return validate::id(document).map(ObjectKey::Policy),
    })
}

fn namespace_of(document: &Document) -> String {
    match document.namespace.as_str() {
        "" => DEFAULT_NAMESPACE.into(),
        namespace => namespace.into(),
    }
}

fn label(document: &Document) -> String {
    match (document.namespace.as_str(), key_of(document)) {
        (_, Some(key)) => key.to_string(),
        ("", None) => format!("{} {}", document.kind, document.name),
        (namespace, None) => format!("{} {namespace}/{}", document.kind, document.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(text: &str) -> ParsedDocument {
        let mut file = read_file(text);
        assert_eq!(file.faults, []);
        assert_eq!(file.objects.len(), 1, "{file:?}");
        file.objects.remove(0)
    }

    #[test]
    fn a_pod_without_namespace_is_in_default() {
        let reading = only("apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nstatus: {podIPs: [{ip: 10.0.0.1}]}\n");
        assert_eq!(reading.key, Some(ObjectKey::Pod("default".into(), "web".into())));
        assert_eq!(reading.label, "Pod default/web");
        assert_eq!(reading.state(), ReportState::Accepted);
        let Some(Object::Pod(pod)) = reading.object else {
            panic!()
        };
        assert_eq!(&**pod.namespace(), "default");
    }

    #[test]
    fn a_pod_that_has_ended_holds_no_addresses() {
        for phase in ["Succeeded", "Failed"] {
            let reading = only(&format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: job}}\nstatus: {{phase: {phase}, podIP: 10.0.0.1, podIPs: [{{ip: 10.0.0.1}}]}}\n"
            ));
            let Some(Object::Pod(pod)) = reading.object else {
                panic!()
            };
            assert!(pod.addresses.as_slice().is_empty());
        }
    }

    #[test]
    fn an_address_that_is_none_refuses_the_object_and_says_where() {
        let reading =
            only("apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nstatus:\n  podIPs:\n  - ip: 10.0.0.300\n");
        assert_eq!(reading.state(), ReportState::Rejected);
        assert_eq!(reading.key, Some(ObjectKey::Pod("default".into(), "web".into())));
        assert_eq!(reading.diagnostics[0].path, "status.podIPs[0].ip");
        assert_eq!(reading.diagnostics[0].position.unwrap().line, 6);
        let reading = only("apiVersion: v1\nkind: Node\nmetadata: {name: n}\nspec: {podCIDRs: [10.0.0.0]}\n");
        assert_eq!(reading.diagnostics[0].path, "spec.podCIDRs[0]");
    }

    #[test]
    fn backends_must_be_addresses_unless_the_slice_holds_names() {
        let slice = |of: &str, address: &str| {
            only(&format!(
                "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s}}\naddressType: {of}\nendpoints: [{{addresses: [{address}]}}]\n"
            ))
        };
        let reading = slice("IPv4", "10.0.0.1");
        assert_eq!(reading.state(), ReportState::Accepted);
        assert_eq!(reading.label, "EndpointSlice default/s");
        assert_eq!(slice("FQDN", "db.example").state(), ReportState::Accepted);
        let reading = slice("IPv6", "db.example");
        assert_eq!(reading.state(), ReportState::Rejected);
        assert_eq!(reading.diagnostics[0].path, "endpoints[0].addresses[0]");
    }

    #[test]
    fn a_headless_service_is_fine() {
        let reading =
            only("apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {clusterIP: None, clusterIPs: [None]}\n");
        assert_eq!(reading.state(), ReportState::Accepted);
    }

    #[test]
    fn a_field_of_the_wrong_type_refuses_the_object_but_names_it() {
        let reading = only("apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: a}\nspec: {containers: 7}\n");
        assert_eq!(reading.state(), ReportState::Rejected);
        assert_eq!(reading.key, Some(ObjectKey::Pod("a".into(), "web".into())));
    }

    #[test]
    fn policies_of_every_kind_are_read() {
        for (group, kind, spec, label) in [
            (
                "cilium.io/v2",
                "CiliumNetworkPolicy",
                "{endpointSelector: {}, egress: [{}]}",
                "CiliumNetworkPolicy default/x",
            ),
            (
                "cilium.io/v2",
                "CiliumClusterwideNetworkPolicy",
                "{endpointSelector: {matchLabels: {a: b}}, egress: [{}]}",
                "CiliumClusterwideNetworkPolicy x",
            ),
            (
                "networking.k8s.io/v1",
                "NetworkPolicy",
                "{podSelector: {}, policyTypes: [Egress]}",
                "NetworkPolicy default/x",
            ),
            (
                "policy.networking.k8s.io/v1alpha2",
                "ClusterNetworkPolicy",
                "{tier: Admin, priority: 1, subject: {namespaces: {}}}",
                "ClusterNetworkPolicy x",
            ),
        ] {
            let of = |spec: &str| {
                only(&format!(
                    "apiVersion: {group}\nkind: {kind}\nmetadata: {{name: x}}\nspec: {spec}\n"
                ))
            };
            let good = of(spec);
            assert_eq!(
                (good.state(), good.label.as_str()),
                (ReportState::Accepted, label),
                "{:?}",
                good.diagnostics
            );
            let bad = of("{endpointSelector: 7, podSelector: 7, tier: 7}");
            assert_eq!((bad.state(), bad.label.as_str()), (ReportState::Rejected, label));
            assert_eq!(bad.key, good.key, "so that the last good version stays in force");
        }
    }

    #[test]
    fn policies_that_are_not_understood_are_errors() {
        for (group, kind, code) in [
            (
                "policy.networking.k8s.io/v1alpha1",
                "AdminNetworkPolicy",
                "unknown-version",
            ),
            ("projectcalico.org/v3", "GlobalNetworkPolicy", "not-enforced"),
            ("cilium.io/v1", "CiliumNetworkPolicy", "unknown-version"),
        ] {
            let reading = only(&format!("apiVersion: {group}\nkind: {kind}\nmetadata: {{name: x}}\n"));
            assert_eq!(reading.state(), ReportState::Rejected);
            assert_eq!(reading.diagnostics[0].severity, Severity::Error);
            assert_eq!(reading.diagnostics[0].code, code);
        }
    }

    #[test]
    fn kinds_that_say_nothing_about_egress_are_passed_over() {
        let file = read_file(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d, namespace: n}\n---\n\
             apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: s}\n",
        );
        assert_eq!(file.objects, []);
        assert_eq!(file.foreign, ["Deployment n/d", "Service default/s"]);
    }
}
