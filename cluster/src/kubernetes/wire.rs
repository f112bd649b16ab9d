//! Objects as they come from the API server, cut down while they are read: what is not kept is
//! skipped and never held in memory.
//!
//! What is left becomes an [`ObservedObject`]: the fields of an object of Kubernetes itself, or a
//! document such as a file could hold, so that one reader serves both sources, and of a policy what
//! its status needs besides.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::dynamic::DynamicObject;
use kube::core::{ApiResource, DynamicResourceScope};
use policy::last_applied;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::slim::WireObject;

use super::resources::ResourceKind;

/// The prefix of annotations that Namegate reads.
const OURS: &str = "namegate.io/";

/// The kept part of an object.
#[derive(Debug, Clone)]
pub struct ObservedObject {
    /// The namespace of the object; empty for a kind without namespaces.
    pub namespace: String,
    /// The name of the object.
    pub name: String,
    /// The kept fields.
    pub content: ObservedContent,
    /// The version that was observed; of policies alone, whose status is written.
    pub version: Option<Box<ObjectVersion>>,
}

/// The kept fields of an object.
#[derive(Debug, Clone)]
pub enum ObservedContent {
    /// Of an object of Kubernetes itself.
    Fields(Box<WireObject>),
    /// As JSON: everything that its author wrote.
    Document(Arc<str>),
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

impl Observe for WireObject {
    fn observe(self, _: &ResourceKind) -> ObservedObject {
        let (namespace, name) = names(&self.metadata);
        ObservedObject {
            namespace,
            name,
            content: ObservedContent::Fields(Box::new(self)),
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
            content: ObservedContent::Document(document(kind, kept, data)),
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

/// The document of an object of which every field is kept. Items of a list do not say what they
/// are, so that it is said here. Fields stand in a fixed order: equal objects are equal texts.
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

    fn seen(object: Value) -> (Arc<str>, Option<Box<ObjectVersion>>) {
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let observed = object.observe(ResourceKind::of(Resource::CiliumNetworkPolicies));
        match observed.content {
            ObservedContent::Document(document) => (document, observed.version),
            other => panic!("{other:?}"),
        }
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
        let seen: Value = serde_json::from_str(&seen(object).0).unwrap();
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
            seen(object)
        };
        let (before, _) = object(json!({}));
        let (after, version) = object(json!({"conditions": [
            {"type": "Valid", "status": "True", "reason": "Valid", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 3},
            {"type": "Other"},
        ]}));
        assert_eq!(before, after);
        let kept: Value = serde_json::from_str(&after).unwrap();
        assert_eq!(kept["spec"]["egress"], json!([{"unknown": 1}]));
        assert_eq!(kept["metadata"]["annotations"], json!({"namegate.io/mode": "audit"}));
        let version = version.unwrap();
        assert_eq!((version.uid.as_str(), version.generation), ("u", 3));
        assert_eq!(version.conditions[0]["type"], "Valid");
    }
}
