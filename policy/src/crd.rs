//! CustomResourceDefinitions of the policy kinds, for clusters that do not have them from
//! elsewhere.
//!
//! They are made from the same shapes that the kinds are read with, so that the API server and the
//! agent know the same fields. What a shape cannot say (limits, patterns, what may not stand
//! together) is in `constraints`: only what reading refuses as well, so that no policy that is good
//! here is refused there.

mod constraints;
mod openapi;

use serde_json::{Value, json};

use crate::cidr_group::CIDR_GROUP;
use crate::cilium::POLICY_SHAPE;
use crate::cluster_network_policy::schema as cluster_network_policy;
use crate::shape::FieldShape;

use constraints::Constraint;
use openapi::Extensible;

/// Every definition, with the path that its file has among the manifests.
pub fn definitions() -> Vec<(String, Value)> {
    KINDS
        .iter()
        .map(|kind| (format!("{}/{}.yaml", kind.group, kind.plural), kind.definition()))
        .collect()
}

/// What a definition says of a kind.
struct CrdKind {
    group: &'static str,
    /// The last one is stored.
    versions: &'static [&'static str],
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    short_names: &'static [&'static str],
    scope: &'static str,
    shape: &'static FieldShape,
    extensible: &'static [Extensible],
    constraints: &'static [Constraint],
    /// Whether its objects are judged, and have conditions.
    is_policy: bool,
}

static KINDS: [CrdKind; 4] = [
    CrdKind {
        group: "cilium.io",
        versions: &["v2alpha1", "v2"],
        kind: "CiliumCIDRGroup",
        plural: "ciliumcidrgroups",
        singular: "ciliumcidrgroup",
        short_names: &["ccg"],
        scope: "Cluster",
        shape: &CIDR_GROUP,
        extensible: &[],
        constraints: constraints::CIDR_GROUP,
        is_policy: false,
    },
    CrdKind {
        group: "cilium.io",
        versions: &["v2"],
        kind: "CiliumClusterwideNetworkPolicy",
        plural: "ciliumclusterwidenetworkpolicies",
        singular: "ciliumclusterwidenetworkpolicy",
        short_names: &["ccnp"],
        scope: "Cluster",
        shape: &POLICY_SHAPE,
        extensible: &[],
        constraints: constraints::CILIUM_POLICY,
        is_policy: true,
    },
    CrdKind {
        group: "cilium.io",
        versions: &["v2"],
        kind: "CiliumNetworkPolicy",
        plural: "ciliumnetworkpolicies",
        singular: "ciliumnetworkpolicy",
        short_names: &["cnp", "ciliumnp"],
        scope: "Namespaced",
        shape: &POLICY_SHAPE,
        extensible: &[],
        constraints: constraints::CILIUM_POLICY,
        is_policy: true,
    },
    CrdKind {
        group: "policy.networking.k8s.io",
        versions: &["v1alpha2", "v1beta1"],
        kind: "ClusterNetworkPolicy",
        plural: "clusternetworkpolicies",
        singular: "clusternetworkpolicy",
        // `cnp` means Cilium's to everybody who has both.
        short_names: &[],
        scope: "Cluster",
        shape: &cluster_network_policy::POLICY,
        extensible: &[
            Extensible {
                at: "to[]",
                known: &cluster_network_policy::PEERS,
            },
            Extensible {
                at: "protocols[]",
                known: &cluster_network_policy::PROTOCOLS,
            },
        ],
        constraints: constraints::CLUSTER_NETWORK_POLICY,
        is_policy: true,
    },
];

impl CrdKind {
    fn definition(&self) -> Value {
        let mut schema = openapi::root(self.shape, self.extensible, self.constraints);
        if self.is_policy {
            schema["properties"]["status"] = status();
        } else if let Some(properties) = schema["properties"].as_object_mut() {
            properties.remove("status");
        }
        let stored = self.versions.len() - 1;
        let versions: Vec<Value> = self
            .versions
            .iter()
            .enumerate()
            .map(|(index, version)| self.version(version, index == stored, &schema))
            .collect();
        let mut definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{}.{}", self.plural, self.group)},
            "spec": {
                "group": self.group,
                "names": {
                    "kind": self.kind,
                    "listKind": format!("{}List", self.kind),
                    "plural": self.plural,
                    "singular": self.singular,
                },
                "scope": self.scope,
                "versions": versions,
            },
        });
        if !self.short_names.is_empty() {
            definition["spec"]["names"]["shortNames"] = json!(self.short_names);
        }
        if self.group.ends_with(".k8s.io") {
            // The API server asks for a word on who approved a definition in a group of the
            // Kubernetes project.
            definition["metadata"]["annotations"] = json!({
                "api-approved.kubernetes.io": "unapproved, stands in where the cluster lacks the definition of sigs.k8s.io/network-policy-api"
            });
        }
        definition
    }

    fn version(&self, name: &str, stored: bool, schema: &Value) -> Value {
        let mut version = json!({
            "name": name,
            "served": true,
            "storage": stored,
            "schema": {"openAPIV3Schema": schema},
        });
        if self.is_policy {
            version["subresources"] = json!({"status": {}});
            version["additionalPrinterColumns"] = columns();
        }
        version
    }
}

/// What `kubectl get` shows.
fn columns() -> Value {
    let condition = |kind: &str, description: &str| {
        json!({
            "name": kind,
            "type": "string",
            "description": description,
            "jsonPath": format!(".status.conditions[?(@.type==\"{kind}\")].status"),
        })
    };
    json!([
        condition("Valid", "Whether every part of it was understood"),
        condition("Programmed", "Whether it is in the kernel of every node that it concerns"),
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ])
}

/// Conditions as in `metav1.Condition`, and room for what other writers of the status put beside
/// them.
fn status() -> Value {
    json!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {
            "conditions": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
                "items": {
                    "type": "object",
                    "required": ["type", "status"],
                    "properties": {
                        "type": {"type": "string", "maxLength": 316},
                        "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                        "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
                        "lastTransitionTime": {"type": "string", "format": "date-time"},
                        "reason": {"type": "string", "maxLength": 1024},
                        "message": {"type": "string", "maxLength": 32768},
                    },
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_definition_for_each_kind_of_policy_that_clusters_may_lack() {
        let names: Vec<String> = definitions().into_iter().map(|(file, _)| file).collect();
        assert_eq!(
            names,
            [
                "cilium.io/ciliumcidrgroups.yaml",
                "cilium.io/ciliumclusterwidenetworkpolicies.yaml",
                "cilium.io/ciliumnetworkpolicies.yaml",
                "policy.networking.k8s.io/clusternetworkpolicies.yaml",
            ]
        );
    }

    #[test]
    fn exactly_one_version_is_stored() {
        for (file, definition) in definitions() {
            let versions = definition["spec"]["versions"].as_array().unwrap();
            let stored = versions.iter().filter(|version| version["storage"] == true);
            assert_eq!(stored.count(), 1, "{file}");
        }
    }
}
