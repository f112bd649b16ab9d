//! Objects as they come from the API server, cut down while they are read: what is not kept is
//! skipped and never held in memory.
//!
//! What is left becomes an [`ObservedObject`]: a document such as a file could hold, so that one
//! reader serves both sources, and of a policy what its status needs besides.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::core::dynamic::DynamicObject;
use kube::core::{ApiResource, DynamicResourceScope};
use policy::last_applied;
use serde::de::Deserializer;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::resources::ResourceKind;

/// The prefix of annotations that Namegate reads.
const OURS: &str = "namegate.io/";

/// The kept part of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct ObservedObject {
    /// The namespace of the object; empty for a kind without namespaces.
    pub namespace: String,
    /// The name of the object.
    pub name: String,
    /// The kept fields, as JSON.
    pub document: Arc<str>,
    /// The version that was observed; of policies alone, whose status is written.
    pub version: Option<Box<ObjectVersion>>,
}

/// One version of an object, and what its status says.
#[derive(Debug, Clone, PartialEq)]
pub struct ObjectVersion {
    /// `metadata.uid`: tells the object from another of the same name.
    pub uid: String,
    /// `metadata.generation`: counts the changes of its author.
    pub generation: i64,
    /// `metadata.resourceVersion`: a write of the status is based on it.
    pub resource_version: String,
    /// `status.conditions`, those of other writers too.
    pub conditions: Vec<Value>,
}

/// An object of the API server that is cut down to what is kept of it.
pub trait Observe: kube::Resource<DynamicType = ApiResource> + Clone + std::fmt::Debug + Send + 'static {
    /// The kept part. It must not depend on fields that Namegate has no use for: an object whose
    /// kept part is the same is not read again.
    fn observe(self, kind: &ResourceKind) -> ObservedObject;
}

/// The fields of core objects that are read. Those of all kinds stand together: their names do not
/// clash.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WireObject {
    #[serde(default, deserialize_with = "metadata", skip_serializing)]
    metadata: ObjectMeta,
    #[serde(skip_serializing_if = "Option::is_none")]
    spec: Option<WireSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<WireStatus>,
    /// Of an EndpointSlice, as are the next two.
    #[serde(skip_serializing_if = "Option::is_none")]
    address_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoints: Option<Vec<WireEndpoint>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ports: Option<Vec<Value>>,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct WireSpec {
    /// Of a Pod, down to its containers.
    #[serde(skip_serializing_if = "Option::is_none")]
    node_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_network: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_account_name: Option<String>,
    #[serde(default, deserialize_with = "ports", skip_serializing_if = "Vec::is_empty")]
    init_containers: Vec<WireContainer>,
    #[serde(default, deserialize_with = "ports", skip_serializing_if = "Vec::is_empty")]
    containers: Vec<WireContainer>,
    /// Of a Node.
    #[serde(rename = "podCIDR", skip_serializing_if = "Option::is_none")]
    pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs", skip_serializing_if = "Option::is_none")]
    pod_cidrs: Option<Vec<String>>,
    /// Of a Service.
    #[serde(rename = "clusterIP", skip_serializing_if = "Option::is_none")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs", skip_serializing_if = "Option::is_none")]
    cluster_ips: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    selector: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ports: Option<Vec<WireServicePort>>,
}

/// A container is its named ports.
#[derive(Debug, Clone, Deserialize, Serialize)]
struct WireContainer {
    #[serde(default)]
    name: Cow<'static, str>,
    #[serde(default)]
    ports: Vec<WirePort>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct WirePort {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    container_port: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<String>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct WireServicePort {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    port: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_port: Option<Value>,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct WireStatus {
    /// Of a Pod, as are the next two.
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<String>,
    #[serde(rename = "podIP", skip_serializing_if = "Option::is_none")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs", skip_serializing_if = "Option::is_none")]
    pod_ips: Option<Vec<WirePodIp>>,
    /// Of a Node.
    #[serde(skip_serializing_if = "Option::is_none")]
    addresses: Option<Vec<WireNodeAddress>>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
struct WirePodIp {
    #[serde(default)]
    ip: String,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
struct WireNodeAddress {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
struct WireEndpoint {
    #[serde(default)]
    addresses: Vec<String>,
}

/// What of `metadata` is kept. Managed fields, the longest part of most objects, are not.
fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct KeptMetadata {
        name: Option<String>,
        namespace: Option<String>,
        labels: Option<BTreeMap<String, String>>,
        resource_version: Option<String>,
        deletion_timestamp: Option<Time>,
    }
    let kept = KeptMetadata::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: kept.name,
        namespace: kept.namespace,
        labels: kept.labels,
        resource_version: kept.resource_version,
        deletion_timestamp: kept.deletion_timestamp,
        ..ObjectMeta::default()
    })
}

/// The containers that name ports.
fn ports<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<WireContainer>, D::Error> {
    #[derive(Deserialize)]
    struct PortsOfContainer {
        ports: Option<Vec<WirePort>>,
    }
    let containers = Option::<Vec<PortsOfContainer>>::deserialize(deserializer)?;
    let named = |written: PortsOfContainer| {
        let mut ports = written.ports.unwrap_or_default();
        ports.retain(|port| port.name.is_some());
        (!ports.is_empty()).then_some(WireContainer {
            name: Cow::Borrowed(""),
            ports,
        })
    };
    Ok(containers.into_iter().flatten().filter_map(named).collect())
}

/// The document of a [`WireObject`]. Items of a list do not say what they are, so that it is said
/// here. Fields stand in a fixed order: equal objects are equal texts.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WireDocument<'a> {
    api_version: &'a str,
    kind: &'a str,
    metadata: WireMetadata<'a>,
    #[serde(flatten)]
    rest: &'a WireObject,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WireMetadata<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<&'a BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deletion_timestamp: Option<&'a Time>,
}

impl Observe for WireObject {
    fn observe(self, kind: &ResourceKind) -> ObservedObject {
        let meta = &self.metadata;
        let (namespace, name) = names(meta);
        let document = WireDocument {
            api_version: &kind.api_version(),
            kind: kind.kind,
            metadata: WireMetadata {
                name: meta.name.as_deref(),
                namespace: meta.namespace.as_deref(),
                labels: meta.labels.as_ref(),
                deletion_timestamp: meta.deletion_timestamp.as_ref(),
            },
            rest: &self,
        };
        ObservedObject {
            namespace,
            name,
            // Every field can be written as JSON: it was read from there.
            document: serde_json::to_string(&document).unwrap_or_default().into(),
            version: None,
        }
    }
}

impl Observe for DynamicObject {
    fn observe(self, kind: &ResourceKind) -> ObservedObject {
        let Self {
            metadata: meta,
            mut data,
            ..
        } = self;
        let (namespace, name) = names(&meta);
        let status = data.as_object_mut().and_then(|fields| fields.remove("status"));
        let applied = meta
            .annotations
            .as_ref()
            .and_then(|it| it.get(last_applied::ANNOTATION));
        if let Some((policy, applied)) = kind.policy().zip(applied) {
            last_applied::restore(policy, &mut data, applied);
        }
        let version = kind.is_policy().then(|| {
            let conditions = status.and_then(|mut status| status.get_mut("conditions").map(Value::take));
            let conditions = conditions.and_then(|it| it.as_array().cloned()).unwrap_or_default();
            Box::new(ObjectVersion {
                uid: meta.uid.clone().unwrap_or_default(),
                generation: meta.generation.unwrap_or_default(),
                resource_version: meta.resource_version.clone().unwrap_or_default(),
                conditions,
            })
        });
        let ours: BTreeMap<_, _> = meta
            .annotations
            .iter()
            .flatten()
            .filter(|(key, _)| key.starts_with(OURS))
            .collect();
        let mut kept = Map::new();
        put(&mut kept, "name", &meta.name);
        put(&mut kept, "namespace", &meta.namespace);
        put(&mut kept, "labels", &meta.labels);
        put(&mut kept, "annotations", &(!ours.is_empty()).then_some(ours));
        ObservedObject {
            namespace,
            name,
            document: document(kind, kept, data),
            version,
        }
    }
}

fn names(meta: &ObjectMeta) -> (String, String) {
    (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

fn put(fields: &mut Map<String, Value>, key: &str, value: &Option<impl Serialize>) {
    if let Some(Ok(value)) = value.as_ref().map(serde_json::to_value) {
        fields.insert(key.to_owned(), value);
    }
}

/// As [`WireDocument`], of an object of which every field is kept.
fn document(kind: &ResourceKind, metadata: Map<String, Value>, mut fields: Value) -> Arc<str> {
    if let Some(fields) = fields.as_object_mut() {
        fields.insert("apiVersion".into(), kind.api_version().into());
        fields.insert("kind".into(), kind.kind.into());
        fields.insert("metadata".into(), metadata.into());
    }
    fields.to_string().into()
}

impl kube::Resource for WireObject {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        Cow::Borrowed(&resource.kind)
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        Cow::Borrowed(&resource.group)
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        Cow::Borrowed(&resource.version)
    }

    fn api_version(resource: &ApiResource) -> Cow<'_, str> {
        Cow::Borrowed(&resource.api_version)
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        Cow::Borrowed(&resource.plural)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::resources::Resource;
    use super::*;

    fn core(resource: Resource, object: Value) -> Value {
        let core: WireObject = serde_json::from_value(object).unwrap();
        serde_json::from_str(&core.observe(ResourceKind::of(resource)).document).unwrap()
    }

    #[test]
    fn of_a_pod_nothing_is_kept_but_what_policies_speak_of() {
        let pod = json!({
            "metadata": {
                "name": "web-0", "namespace": "shop", "labels": {"app": "web"}, "uid": "u", "resourceVersion": "7", "generation": 2,
                "annotations": {"a": "b"}, "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {}}}],
            },
            "spec": {
                "nodeName": "node-1", "serviceAccountName": "web", "volumes": [{"name": "v"}],
                "containers": [
                    {"name": "main", "image": "i", "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}, {"containerPort": 9}]},
                    {"name": "side", "image": "i", "env": [{"name": "A", "value": "B"}]},
                ],
            },
            "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}], "conditions": [{"type": "Ready"}]},
        });
        assert_eq!(
            core(Resource::LocalPods, pod),
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "web-0", "namespace": "shop", "labels": {"app": "web"}},
                "spec": {
                    "nodeName": "node-1", "serviceAccountName": "web",
                    "containers": [{"name": "", "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]}],
                },
                "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]},
            })
        );
    }

    #[test]
    fn other_core_objects_keep_their_addresses() {
        let slice = json!({
            "metadata": {"name": "s-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "s"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": false}, "nodeName": "n"}],
            "ports": [{"port": 80}],
        });
        let kept = core(Resource::EndpointSlices, slice);
        assert_eq!(kept["endpoints"], json!([{"addresses": ["10.0.0.1"]}]));
        let node = json!({
            "metadata": {"name": "n"},
            "spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24"], "taints": []},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}], "images": [{"names": ["x"]}]},
        });
        let kept = core(Resource::Nodes, node);
        assert_eq!(
            kept["spec"],
            json!({"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24"]})
        );
        assert_eq!(
            kept["status"],
            json!({"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]})
        );
        let service = json!({
            "metadata": {"name": "s", "namespace": "shop"},
            "spec": {"clusterIP": "None", "clusterIPs": ["None"], "selector": {"a": "b"}, "ports": [{"port": 80, "targetPort": "http"}], "type": "ClusterIP"},
            "status": {"loadBalancer": {}},
        });
        let kept = core(Resource::Services, service);
        assert_eq!(kept["spec"]["selector"], json!({"a": "b"}));
        assert_eq!(kept["spec"]["ports"], json!([{"port": 80, "targetPort": "http"}]));
    }

    #[test]
    fn a_field_that_kubectl_apply_dropped_is_seen() {
        let stored = json!({"endpointSelector": {}, "egress": [{"toPorts": [{"ports": [{"port": "443"}]}]}]});
        let mut applied = stored.clone();
        applied["egress"][0]["toFQDNs"] = Value::Null;
        let annotation = json!({"spec": applied}).to_string();
        let object = json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
            "metadata": {"name": "p", "namespace": "shop", "annotations": {last_applied::ANNOTATION: annotation}},
            "spec": stored,
        });
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let seen: Value = serde_json::from_str(
            &object
                .observe(ResourceKind::of(Resource::CiliumNetworkPolicies))
                .document,
        )
        .unwrap();
        assert_eq!(seen["spec"], applied);
        assert_eq!(seen["metadata"].get("annotations"), None);
    }

    #[test]
    fn a_policy_is_kept_as_written_and_its_status_apart() {
        let object = |status: Value| {
            let object = json!({
                "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
                "metadata": {
                    "name": "p", "namespace": "shop", "uid": "u", "generation": 3, "resourceVersion": "7",
                    "annotations": {"namegate.io/mode": "audit", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
                },
                "spec": {"endpointSelector": {}, "egress": [{"unknown": 1}]},
                "status": status,
            });
            let object: DynamicObject = serde_json::from_value(object).unwrap();
            object.observe(ResourceKind::of(Resource::CiliumNetworkPolicies))
        };
        let before = object(json!({}));
        let after = object(json!({"conditions": [
            {"type": "Valid", "status": "True", "reason": "Valid", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 3},
            {"type": "Other"},
        ]}));
        assert_eq!(before.document, after.document);
        let kept: Value = serde_json::from_str(&after.document).unwrap();
        assert_eq!(kept["spec"]["egress"], json!([{"unknown": 1}]));
        assert_eq!(kept["metadata"]["annotations"], json!({"namegate.io/mode": "audit"}));
        let version = after.version.unwrap();
        assert_eq!((version.uid.as_str(), version.generation), ("u", 3));
        assert_eq!(version.conditions[0]["type"], "Valid");
    }
}
