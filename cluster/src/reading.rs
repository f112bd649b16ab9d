//! One document → one object, and everything that is to be said of it.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use policy::document::Document;
use policy::validate::{StandIn, Validation};
use policy::{Diagnostic, Severity, cidr_group, document, lint, validate};
use serde::de::DeserializeOwned;

use crate::object::{Object, ObjectKey};
use crate::report::ReportState;

/// The namespace of an object that needs one and names none, as `kubectl apply` without a context
/// has it.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";

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
    /// The document itself as JSON: what [`reread`] takes.
    pub source: Arc<str>,
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
    let (documents, faults) = document::parse(text);
    let mut file = ParsedFile {
        faults,
        ..ParsedFile::default()
    };
    for document in documents {
        match read(&document) {
            Some(reading) => {
                visit(document, &reading);
                file.objects.push(reading);
            }
            None => file.foreign.push(label(&document)),
        }
    }
    file
}

/// Reads a [`ParsedDocument::source`] again; `None` when it is no object that can be in force.
pub fn reread(source: &str) -> Option<(ObjectKey, Object)> {
    let document = Document::from_value(serde_json::from_str(source).ok()?).ok()?;
    let reading = read(&document)?;
    reading.key.zip(reading.object)
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
        ("v1", "Pod") => core(document, pod),
        ("v1", "Namespace") => core(document, namespace),
        ("v1", "Node") => core(document, node),
        ("v1", "Service") => core(document, service),
        ("discovery.k8s.io/v1", "EndpointSlice") => core(document, endpoint_slice),
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

/// Reads an object of Kubernetes itself that comes from no file, out of JSON and without a document
/// in between. `None` where that takes one: for other kinds, and to say what is wrong.
pub(crate) fn read_core(kind: &str, json: &Arc<str>) -> Option<ParsedDocument> {
    match kind {
        "Pod" => core_of_json(json, pod),
        "Namespace" => core_of_json(json, namespace),
        "Node" => core_of_json(json, node),
        "Service" => core_of_json(json, service),
        "EndpointSlice" => core_of_json(json, endpoint_slice),
        _ => None,
    }
}

/// Which object an object of Kubernetes itself is, and the object.
type Converted = (ObjectKey, Object);

fn core_of_json<T: DeserializeOwned>(
    json: &Arc<str>,
    convert: fn(T, &mut Findings<'_>) -> Converted,
) -> Option<ParsedDocument> {
    let mut findings = Findings::default();
    let (key, object) = convert(serde_json::from_str(json).ok()?, &mut findings);
    Some(converted(key, object, findings.found, Arc::clone(json)))
}

/// Reads an object of Kubernetes itself.
fn core<T: DeserializeOwned>(document: &Document, convert: fn(T, &mut Findings<'_>) -> Converted) -> ParsedDocument {
    match document.read::<T>() {
        Ok(object) => {
            let mut findings = Findings {
                document: Some(document),
                found: Vec::new(),
            };
            let (key, object) = convert(object, &mut findings);
            converted(key, object, findings.found, source(document))
        }
        Err(diagnostic) => ParsedDocument {
            label: label(document),
            key: key_of(document),
            object: None,
            stand_in: StandIn::default(),
            diagnostics: vec![diagnostic],
            source: source(document),
        },
    }
}

fn converted(key: ObjectKey, object: Object, diagnostics: Vec<Diagnostic>, source: Arc<str>) -> ParsedDocument {
    let refused = diagnostics.iter().any(|it| it.severity == Severity::Error);
    ParsedDocument {
        label: key.to_string(),
        key: Some(key),
        object: (!refused).then_some(object),
        stand_in: StandIn::default(),
        diagnostics,
        source,
    }
}

fn pod(mut pod: Pod, findings: &mut Findings<'_>) -> Converted {
    let namespace = settle_namespace(&mut pod.metadata);
    if let Some(status) = &mut pod.status {
        // A pod that has ended keeps its `podIPs` in its status, but the address may be another
        // pod's by now.
        if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            status.pod_ip = None;
            status.pod_ips = None;
        }
        findings.check::<IpAddr>(status.pod_ip.as_deref(), || "status.podIP".into());
        for (index, ip) in status.pod_ips.iter().flatten().enumerate() {
            findings.check::<IpAddr>(Some(&ip.ip), || format!("status.podIPs[{index}].ip"));
        }
    }
    (
        ObjectKey::Pod(namespace, name_of(&pod.metadata)),
        Object::Pod(Box::new(pod)),
    )
}

fn namespace(namespace: Namespace, _: &mut Findings<'_>) -> Converted {
    (
        ObjectKey::Namespace(name_of(&namespace.metadata)),
        Object::Namespace(Box::new(namespace)),
    )
}

fn node(node: Node, findings: &mut Findings<'_>) -> Converted {
    if let Some(spec) = &node.spec {
        findings.check::<IpNet>(spec.pod_cidr.as_deref(), || "spec.podCIDR".into());
        for (index, cidr) in spec.pod_cidrs.iter().flatten().enumerate() {
            findings.check::<IpNet>(Some(cidr), || format!("spec.podCIDRs[{index}]"));
        }
    }
    let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    for (index, address) in addresses.enumerate() {
        if matches!(address.type_.as_str(), "InternalIP" | "ExternalIP") {
            findings.check::<IpAddr>(Some(&address.address), || format!("status.addresses[{index}].address"));
        }
    }
    (ObjectKey::Node(name_of(&node.metadata)), Object::Node(Box::new(node)))
}

fn service(mut service: Service, findings: &mut Findings<'_>) -> Converted {
    let namespace = settle_namespace(&mut service.metadata);
    if let Some(spec) = &service.spec {
        // "None" and "" are the words for "no address" (headless services; not yet allocated).
        let address = |ip: &&str| !matches!(*ip, "None" | "");
        let cluster_ip = spec.cluster_ip.as_deref().filter(address);
        findings.check::<IpAddr>(cluster_ip, || "spec.clusterIP".into());
        for (index, ip) in spec.cluster_ips.iter().flatten().enumerate() {
            let ip = Some(ip.as_str()).filter(address);
            findings.check::<IpAddr>(ip, || format!("spec.clusterIPs[{index}]"));
        }
    }
    (
        ObjectKey::Service(namespace, name_of(&service.metadata)),
        Object::Service(Box::new(service)),
    )
}

fn endpoint_slice(mut slice: EndpointSlice, findings: &mut Findings<'_>) -> Converted {
    let namespace = settle_namespace(&mut slice.metadata);
    // The third type holds names, which are nobody's address.
    if slice.address_type != "FQDN" {
        for (index, endpoint) in slice.endpoints.iter().flatten().enumerate() {
            for (place, address) in endpoint.addresses.iter().enumerate() {
                findings.check::<IpAddr>(Some(address), || format!("endpoints[{index}].addresses[{place}]"));
            }
        }
    }
    (
        ObjectKey::EndpointSlice(namespace, name_of(&slice.metadata)),
        Object::EndpointSlice(Box::new(slice)),
    )
}

fn name_of(metadata: &ObjectMeta) -> String {
    metadata.name.clone().unwrap_or_default()
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
        source: source(document),
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
        source: source(document),
    }
}

fn refused_kind(document: &Document, diagnostic: Diagnostic) -> ParsedDocument {
    ParsedDocument {
        label: label(document),
        key: None,
        object: None,
        stand_in: StandIn::default(),
        diagnostics: vec![diagnostic],
        source: source(document),
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
        _ => return validate::id(document).map(ObjectKey::Policy),
    })
}

fn namespace_of(document: &Document) -> String {
    match document.namespace.as_str() {
        "" => DEFAULT_NAMESPACE.into(),
        namespace => namespace.into(),
    }
}

/// Writes the namespace out where the object leaves it out, so that nobody downstream has to know
/// the default.
fn settle_namespace(metadata: &mut ObjectMeta) -> String {
    let given = metadata.namespace.take().filter(|it| !it.is_empty());
    let namespace = given.unwrap_or_else(|| DEFAULT_NAMESPACE.into());
    metadata.namespace = Some(namespace.clone());
    namespace
}

fn label(document: &Document) -> String {
    match (document.namespace.as_str(), key_of(document)) {
        (_, Some(key)) => key.to_string(),
        ("", None) => format!("{} {}", document.kind, document.name),
        (namespace, None) => format!("{} {namespace}/{}", document.kind, document.name),
    }
}

/// Findings about values that Kubernetes types keep as text.
#[derive(Default)]
struct Findings<'d> {
    /// `None` for an object that comes from no file.
    document: Option<&'d Document>,
    found: Vec<Diagnostic>,
}

impl Findings<'_> {
    fn check<T: TextValue>(&mut self, value: Option<&str>, path: impl FnOnce() -> String) {
        if let Some(value) = value
            && value.parse::<T>().is_err()
        {
            let path = path();
            self.found.push(Diagnostic {
                severity: Severity::Error,
                code: "bad-address",
                position: self.document.and_then(|document| document.position(&path)),
                path,
                reason: format!("{value:?} is not {}", T::WHAT),
                suggestion: Some(format!("write it as in {}", T::EXAMPLE)),
            });
        }
    }
}

/// How people write a value.
trait TextValue: FromStr {
    const WHAT: &str;
    const EXAMPLE: &str;
}

impl TextValue for IpAddr {
    const WHAT: &str = "an IP address";
    const EXAMPLE: &str = "10.0.0.1 or fd00::1";
}

impl TextValue for IpNet {
    const WHAT: &str = "a prefix";
    const EXAMPLE: &str = "10.0.0.0/24 or fd00::/64";
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
        assert_eq!(pod.metadata.namespace.as_deref(), Some("default"));
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
            let status = pod.status.unwrap();
            assert_eq!((status.pod_ip, status.pod_ips), (None, None));
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
