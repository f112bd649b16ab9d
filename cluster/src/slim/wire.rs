//! The fields as they are written. What is not listed is skipped while it is read, and never held
//! in memory.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::{Deserialize, Deserializer};

/// The fields of objects of Kubernetes itself that are read. Those of all kinds stand together:
/// their names do not clash.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WireObject {
    #[serde(default, deserialize_with = "metadata")]
    pub(crate) metadata: ObjectMeta,
    pub(super) spec: Option<WireSpec>,
    pub(super) status: Option<WireStatus>,
    /// Of an EndpointSlice, as are the next two.
    pub(super) address_type: Option<String>,
    pub(super) endpoints: Option<Vec<WireEndpoint>>,
    pub(super) ports: Option<Vec<WireSlicePort>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WireSpec {
    /// Of a Pod, down to its containers.
    pub(super) node_name: Option<String>,
    pub(super) host_network: Option<bool>,
    pub(super) service_account_name: Option<String>,
    #[serde(default, deserialize_with = "ports_of_containers")]
    pub(super) init_containers: Vec<WirePort>,
    #[serde(default, deserialize_with = "ports_of_containers")]
    pub(super) containers: Vec<WirePort>,
    /// Of a Node.
    #[serde(rename = "podCIDR")]
    pub(super) pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs")]
    pub(super) pod_cidrs: Option<Vec<String>>,
    /// Of a Service.
    #[serde(rename = "clusterIP")]
    pub(super) cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    pub(super) cluster_ips: Option<Vec<String>>,
    pub(super) selector: Option<BTreeMap<String, String>>,
    pub(super) ports: Option<Vec<WireServicePort>>,
    #[serde(rename = "type")]
    pub(super) service_type: Option<String>,
    pub(super) external_traffic_policy: Option<String>,
    #[serde(rename = "externalIPs")]
    pub(super) external_ips: Option<Vec<String>>,
    /// Of a ServiceImport.
    pub(super) ips: Option<Vec<String>>,
}

/// A port that a container names.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WirePort {
    pub(super) name: Option<String>,
    pub(super) container_port: i32,
    pub(super) protocol: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WireServicePort {
    pub(super) name: Option<String>,
    pub(super) port: i32,
    pub(super) protocol: Option<String>,
    pub(super) target_port: Option<WireTargetPort>,
    pub(super) node_port: Option<i32>,
}

/// A port of an EndpointSlice, which may stand for all.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct WireSlicePort {
    pub(super) name: Option<String>,
    pub(super) port: Option<i32>,
    pub(super) protocol: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum WireTargetPort {
    Number(i32),
    Name(String),
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WireStatus {
    /// Of a Pod, as are the next two.
    pub(super) phase: Option<String>,
    #[serde(rename = "podIP")]
    pub(super) pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pub(super) pod_ips: Option<Vec<WirePodIp>>,
    /// Of a Node.
    pub(super) addresses: Option<Vec<WireNodeAddress>>,
    /// Of a ServiceImport.
    pub(super) clusters: Option<Vec<WireExporter>>,
    /// Of a Service.
    pub(super) load_balancer: Option<WireLoadBalancer>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct WireLoadBalancer {
    pub(super) ingress: Option<Vec<WireLoadBalancerIngress>>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct WireLoadBalancerIngress {
    /// One that has a name in its place is reached past the node.
    pub(super) ip: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct WirePodIp {
    #[serde(default)]
    pub(super) ip: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct WireNodeAddress {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) address: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct WireExporter {
    #[serde(default)]
    pub(super) cluster: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct WireEndpoint {
    pub(super) addresses: Option<Vec<String>>,
}

/// What of `metadata` is read. Managed fields, the longest part of most objects, are not.
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

/// The ports that containers name; the rest of a container is not kept.
fn ports_of_containers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<WirePort>, D::Error> {
    #[derive(Deserialize)]
    struct PortsOfContainer {
        ports: Option<Vec<WirePort>>,
    }
    let containers = Option::<Vec<PortsOfContainer>>::deserialize(deserializer)?;
    let ports = containers.into_iter().flatten().flat_map(|container| container.ports);
    Ok(ports.flatten().filter(|port| port.name.is_some()).collect())
}
