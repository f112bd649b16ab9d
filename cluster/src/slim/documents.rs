//! Slim objects as JSON, so that a later process reads them as it reads what people write.

use std::collections::BTreeMap;

use policy::Protocol;
use policy::labels::Labels;
use policy::lint::TargetPort;
use serde::{Serialize, Serializer};
use serde_json::json;

use super::conversion::{SLICE_OF, SLICE_OF_IMPORT};
use super::{SlimEndpointSlice, SlimNamespace, SlimNode, SlimPod, SlimService, SlimServiceImport};

/// The version of ServiceImports that is written; all have the same fields here.
const IMPORT_API: &str = "multicluster.x-k8s.io/v1alpha1";
/// The time stands for any: what counts is that there is one.
const SOME_TIME: &str = "1970-01-01T00:00:00Z";

impl Serialize for SlimPod {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let template = &self.template;
        let mut spec = json!({"serviceAccountName": &*template.service_account});
        if let Some(node) = &self.node {
            spec["nodeName"] = (&**node).into();
        }
        if template.on_host {
            spec["hostNetwork"] = true.into();
        }
        if !template.ports.is_empty() {
            let ports = template.ports.iter();
            let ports: Vec<_> = ports
                .map(|port| json!({"name": port.name, "containerPort": port.port, "protocol": port.protocol}))
                .collect();
            spec["containers"] = json!([{"name": "", "ports": ports}]);
        }
        let ips = self.addresses.as_slice().iter();
        let ips: Vec<_> = ips.map(|ip| json!({"ip": ip})).collect();
        let object = WrittenObject {
            api_version: "v1",
            kind: "Pod",
            metadata: WrittenMetadata {
                name: &self.name,
                namespace: Some(&template.namespace),
                labels: Some(&template.labels).filter(|labels| !labels.is_empty()),
                deletion_timestamp: self.being_deleted.then_some(SOME_TIME),
            },
            spec: Some(spec),
            status: (!ips.is_empty()).then(|| json!({"podIPs": ips})),
        };
        object.serialize(serializer)
    }
}

impl Serialize for SlimNamespace {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let metadata = WrittenMetadata::of_cluster(&self.name, &self.labels);
        WrittenObject::new("Namespace", metadata).serialize(serializer)
    }
}

impl Serialize for SlimNode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let addresses = self.addresses.iter();
        let addresses: Vec<_> = addresses
            .map(|address| json!({"type": "InternalIP", "address": address}))
            .collect();
        let metadata = WrittenMetadata::of_cluster(&self.name, &self.labels);
        let object = WrittenObject {
            spec: Some(json!({"podCIDRs": self.pod_ranges})),
            status: Some(json!({"addresses": addresses})),
            ..WrittenObject::new("Node", metadata)
        };
        object.serialize(serializer)
    }
}

impl Serialize for SlimService {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ports = self.ports.iter().map(|port| {
            let mut written = json!({"name": port.name, "port": port.port});
            written["protocol"] = written_protocol(port.protocol);
            if let Some(port) = port.node_port {
                written["nodePort"] = json!(port);
            }
            written["targetPort"] = match &port.target {
                Some(TargetPort::Number(number)) => json!(number),
                Some(TargetPort::Name(name)) => json!(name),
                None => json!(-1),
            };
            written
        });
        let ports: Vec<_> = ports.collect();
        let metadata = WrittenMetadata {
            namespace: Some(&self.namespace),
            ..WrittenMetadata::of_cluster(&self.name, &self.labels)
        };
        let service_type = match self.hides_clients {
            true => "NodePort",
            false => "ClusterIP",
        };
        let object = WrittenObject {
            spec: Some(json!({
                "type": service_type,
                "clusterIPs": self.addresses,
                // Those of a load balancer mean the same.
                "externalIPs": self.external,
                "selector": self.selector,
                "ports": ports,
            })),
            ..WrittenObject::new("Service", metadata)
        };
        object.serialize(serializer)
    }
}

impl Serialize for SlimServiceImport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let metadata = WrittenMetadata {
            namespace: Some(&self.namespace),
            ..WrittenMetadata::of_cluster(&self.name, &self.labels)
        };
        let exporters = self.exporters.iter();
        let exporters: Vec<_> = exporters.map(|cluster| json!({"cluster": &**cluster})).collect();
        let object = WrittenObject {
            api_version: IMPORT_API,
            spec: Some(json!({"ips": self.addresses})),
            status: Some(json!({"clusters": exporters})),
            ..WrittenObject::new("ServiceImport", metadata)
        };
        object.serialize(serializer)
    }
}

impl Serialize for SlimEndpointSlice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let service = self.service.as_deref().map(|name| (SLICE_OF, name));
        let import = self.import.as_deref().map(|name| (SLICE_OF_IMPORT, name));
        let labels: BTreeMap<&str, &str> = service.into_iter().chain(import).collect();
        let ports = self.ports.iter().map(|port| {
            let protocol = written_protocol(port.protocol);
            json!({"name": port.name, "port": port.port, "protocol": protocol})
        });
        let ports: Vec<_> = ports.collect();
        let object = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": &*self.name, "namespace": &*self.namespace, "labels": labels},
            // Whether it holds addresses of one family or of both says nothing here.
            "addressType": "",
            "endpoints": [{"addresses": self.backends}],
            "ports": ports,
        });
        object.serialize(serializer)
    }
}

fn written_protocol(protocol: Option<Protocol>) -> serde_json::Value {
    protocol.map_or_else(|| "unknown".into(), |protocol| json!(protocol))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenObject<'a> {
    api_version: &'static str,
    kind: &'static str,
    metadata: WrittenMetadata<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spec: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<serde_json::Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenMetadata<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<&'a Labels>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deletion_timestamp: Option<&'static str>,
}

impl<'a> WrittenObject<'a> {
    fn new(kind: &'static str, metadata: WrittenMetadata<'a>) -> Self {
        Self {
            api_version: "v1",
            kind,
            metadata,
            spec: None,
            status: None,
        }
    }
}

impl<'a> WrittenMetadata<'a> {
    fn of_cluster(name: &'a str, labels: &'a Labels) -> Self {
        Self {
            name,
            namespace: None,
            labels: Some(labels).filter(|labels| !labels.is_empty()),
            deletion_timestamp: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::Value;

    use super::*;

    /// What is written is read as the same object.
    fn survives<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(object: Value) -> Value {
        let before: T = serde_json::from_value(object).unwrap();
        let written = serde_json::to_value(&before).unwrap();
        assert_eq!(
            serde_json::from_value::<T>(written.clone()).unwrap(),
            before,
            "{written}"
        );
        written
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
            survives::<SlimPod>(pod),
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "web-0", "namespace": "shop", "labels": {"app": "web"}},
                "spec": {
                    "nodeName": "node-1", "serviceAccountName": "web",
                    "containers": [{"name": "", "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]}],
                },
                "status": {"podIPs": [{"ip": "10.0.0.1"}]},
            })
        );
    }

    #[test]
    fn other_objects_keep_their_addresses() {
        let slice = survives::<SlimEndpointSlice>(json!({
            "metadata": {"name": "s-1", "namespace": "shop", "labels": {SLICE_OF: "s"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": false}, "nodeName": "n"}],
            "ports": [{"port": 80}],
        }));
        assert_eq!(slice["endpoints"], json!([{"addresses": ["10.0.0.1"]}]));
        assert_eq!(slice["ports"][0]["port"], 80);
        let node = survives::<SlimNode>(json!({
            "metadata": {"name": "n"},
            "spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24"], "taints": []},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}], "images": [{"names": ["x"]}]},
        }));
        assert_eq!(node["spec"], json!({"podCIDRs": ["10.1.0.0/24"]}));
        assert_eq!(
            node["status"],
            json!({"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]})
        );
        let service = survives::<SlimService>(json!({
            "metadata": {"name": "s", "namespace": "shop"},
            "spec": {"clusterIP": "None", "clusterIPs": ["None"], "selector": {"a": "b"}, "ports": [{"port": 80, "targetPort": "http"}], "type": "ClusterIP"},
            "status": {"loadBalancer": {}},
        }));
        assert_eq!(service["spec"]["selector"], json!({"a": "b"}));
        assert_eq!(service["spec"]["ports"][0]["targetPort"], "http");
        assert_eq!(service["spec"]["clusterIPs"], json!([]));
    }

    #[test]
    fn what_is_written_is_read_as_the_same_object() {
        let pod = survives::<SlimPod>(json!({
            "metadata": {"name": "web-0", "namespace": "shop", "labels": {"app": "web"}, "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {
                "nodeName": "node-1", "serviceAccountName": "web", "hostNetwork": true,
                "containers": [{"name": "main", "ports": [{"name": "http", "containerPort": 8080, "protocol": "UDP"}, {"containerPort": 9}]}],
            },
            "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
        }));
        assert_eq!((&pod["apiVersion"], &pod["kind"]), (&json!("v1"), &json!("Pod")));
        survives::<SlimPod>(json!({"metadata": {"name": "bare"}}));
        survives::<SlimNamespace>(json!({"metadata": {"name": "shop", "labels": {"team": "red"}}}));
        survives::<SlimNode>(json!({
            "metadata": {"name": "n"},
            "spec": {"podCIDR": "10.1.0.0/24"},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": "n"}]},
        }));
        survives::<SlimService>(json!({
            "metadata": {"name": "s", "namespace": "shop", "labels": {"a": "b"}},
            "spec": {"clusterIP": "10.96.0.1", "selector": {"a": "b"}, "ports": [
                {"port": 80}, {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": "dns"},
                {"port": 1, "protocol": "other", "targetPort": 70_000}]},
        }));
        let service = survives::<SlimService>(json!({
            "metadata": {"name": "s"},
            "spec": {"externalIPs": ["192.0.2.7"], "ports": [{"port": 80, "nodePort": 30_080}, {"port": 81, "nodePort": 0}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.8"}, {"hostname": "lb.example"}]}},
        }));
        assert_eq!(service["spec"]["externalIPs"], json!(["192.0.2.7", "192.0.2.8"]));
        assert_eq!(service["spec"]["ports"][0]["nodePort"], 30_080);
        survives::<SlimService>(json!({"metadata": {"name": "s"}, "spec": {"clusterIP": "None"}}));
        survives::<SlimServiceImport>(json!({
            "metadata": {"name": "db", "namespace": "shop", "labels": {"a": "b"}},
            "spec": {"type": "ClusterSetIP", "ips": ["10.96.7.7"], "ports": [{"port": 80, "protocol": "TCP"}]},
            "status": {"clusters": [{"cluster": "west"}, {"cluster": "north"}]},
        }));
        let slice = survives::<SlimEndpointSlice>(json!({
            "metadata": {"name": "s-1", "labels": {SLICE_OF: "s", SLICE_OF_IMPORT: "t"}}, "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.2"]}, {"addresses": ["10.0.0.1"], "conditions": {"ready": false}}],
        }));
        assert_eq!(slice["apiVersion"], "discovery.k8s.io/v1");
    }
}
