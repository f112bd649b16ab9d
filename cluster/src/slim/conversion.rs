//! Fields as they are written → slim objects, and what is wrong with them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use policy::Protocol;
use policy::inventory::ContainerPort;
use policy::labels::Labels;
use policy::lint::TargetPort;
use serde::{Deserialize, Deserializer};

use super::wire::{WireObject, WirePort, WireServicePort, WireSlicePort, WireTargetPort};
use super::{
    DEFAULT_NAMESPACE, PodTemplate, SlimEndpointSlice, SlimNamespace, SlimNode, SlimPod, SlimService,
    SlimServiceImport, SlimServicePort, SlimSlicePort,
};

/// What the API server puts where a Pod names no service account.
const DEFAULT_SERVICE_ACCOUNT: &str = "default";
/// The label of an EndpointSlice that names its Service.
pub(super) const SLICE_OF: &str = "kubernetes.io/service-name";
/// The label of one that names its ServiceImport.
pub(super) const SLICE_OF_IMPORT: &str = "multicluster.kubernetes.io/service-name";

/// A value that Kubernetes keeps as text, and that is not what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadValue {
    /// The field: `status.podIPs[0].ip`.
    pub(crate) path: String,
    pub(crate) value: String,
    /// What it must be: "an IP address".
    pub(crate) wanted: &'static str,
    pub(crate) example: &'static str,
}

/// A kind of slim objects.
pub(crate) trait SlimKind: Sized {
    /// What the fields mean. Values that are none are left out, and told.
    fn from_wire(wire: WireObject, bad: &mut Vec<BadValue>) -> Self;
}

impl SlimKind for SlimPod {
    fn from_wire(wire: WireObject, bad: &mut Vec<BadValue>) -> Self {
        let WireObject {
            metadata, spec, status, ..
        } = wire;
        let (spec, status) = (spec.unwrap_or_default(), status.unwrap_or_default());
        let mut addresses = Vec::new();
        if !matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            addresses.extend(value::<IpAddr>(status.pod_ip.as_deref(), bad, || "status.podIP".into()));
            for (index, ip) in status.pod_ips.iter().flatten().enumerate() {
                addresses.extend(value::<IpAddr>(Some(&ip.ip), bad, || {
                    format!("status.podIPs[{index}].ip")
                }));
            }
        }
        let ports = spec.init_containers.into_iter().chain(spec.containers);
        Self {
            name: name(metadata.name),
            template: Arc::new(PodTemplate {
                namespace: namespace(metadata.namespace),
                labels: metadata.labels.unwrap_or_default(),
                service_account: spec
                    .service_account_name
                    .as_deref()
                    .unwrap_or(DEFAULT_SERVICE_ACCOUNT)
                    .into(),
                ports: ports.filter_map(container_port).collect(),
                on_host: spec.host_network.unwrap_or(false),
            }),
            node: spec.node_name.filter(|node| !node.is_empty()).map(Arc::from),
            addresses: addresses.into_iter().collect(),
            being_deleted: metadata.deletion_timestamp.is_some(),
        }
    }
}

impl SlimKind for SlimNamespace {
    fn from_wire(wire: WireObject, _: &mut Vec<BadValue>) -> Self {
        Self {
            name: name(wire.metadata.name),
            labels: wire.metadata.labels.unwrap_or_default(),
        }
    }
}

impl SlimKind for SlimNode {
    fn from_wire(wire: WireObject, bad: &mut Vec<BadValue>) -> Self {
        let WireObject {
            metadata, spec, status, ..
        } = wire;
        let spec = spec.unwrap_or_default();
        let mut pod_ranges = BTreeSet::new();
        // The first range stands in the object twice.
        pod_ranges.extend(value::<IpNet>(spec.pod_cidr.as_deref(), bad, || "spec.podCIDR".into()));
        for (index, cidr) in spec.pod_cidrs.iter().flatten().enumerate() {
            pod_ranges.extend(value::<IpNet>(Some(cidr), bad, || format!("spec.podCIDRs[{index}]")));
        }
        let mut addresses = BTreeSet::new();
        let written = status.and_then(|status| status.addresses).unwrap_or_default();
        for (index, written) in written.iter().enumerate() {
            let path = || format!("status.addresses[{index}].address");
            addresses.extend(match written.kind.as_str() {
                "InternalIP" | "ExternalIP" => value::<IpAddr>(Some(&written.address), bad, path),
                // Of the other types some are names.
                _ => written.address.parse().ok(),
            });
        }
        Self {
            name: name(metadata.name),
            labels: metadata.labels.unwrap_or_default(),
            pod_ranges,
            addresses,
        }
    }
}

impl SlimKind for SlimService {
    fn from_wire(wire: WireObject, bad: &mut Vec<BadValue>) -> Self {
        let WireObject {
            metadata, spec, status, ..
        } = wire;
        let spec = spec.unwrap_or_default();
        // "None" and "" are the words for "no address" (headless services; not yet allocated).
        let is_address = |ip: &&str| !matches!(*ip, "None" | "");
        let mut addresses = BTreeSet::new();
        let cluster_ip = spec.cluster_ip.as_deref().filter(is_address);
        addresses.extend(value::<IpAddr>(cluster_ip, bad, || "spec.clusterIP".into()));
        for (index, ip) in spec.cluster_ips.iter().flatten().enumerate() {
            let ip = Some(ip.as_str()).filter(is_address);
            addresses.extend(value::<IpAddr>(ip, bad, || format!("spec.clusterIPs[{index}]")));
        }
        let mut external = BTreeSet::new();
        for (index, ip) in spec.external_ips.iter().flatten().enumerate() {
            external.extend(value::<IpAddr>(Some(ip), bad, || format!("spec.externalIPs[{index}]")));
        }
        let load_balancer = status.and_then(|status| status.load_balancer).unwrap_or_default();
        for (index, ingress) in load_balancer.ingress.iter().flatten().enumerate() {
            let path = || format!("status.loadBalancer.ingress[{index}].ip");
            external.extend(value::<IpAddr>(ingress.ip.as_deref().filter(is_address), bad, path));
        }
        let is_reached_from_outside = matches!(spec.service_type.as_deref(), Some("NodePort" | "LoadBalancer"));
        Self {
            namespace: namespace(metadata.namespace),
            name: name(metadata.name),
            labels: metadata.labels.unwrap_or_default(),
            hides_clients: is_reached_from_outside && spec.external_traffic_policy.as_deref() != Some("Local"),
            selector: spec.selector.filter(|selector: &Labels| !selector.is_empty()),
            addresses,
            external,
            ports: spec.ports.into_iter().flatten().filter_map(service_port).collect(),
        }
    }
}

impl SlimKind for SlimServiceImport {
    fn from_wire(wire: WireObject, bad: &mut Vec<BadValue>) -> Self {
        let WireObject {
            metadata, spec, status, ..
        } = wire;
        let ips = spec.and_then(|spec| spec.ips).unwrap_or_default();
        let mut addresses = BTreeSet::new();
        for (index, ip) in ips.iter().enumerate() {
            addresses.extend(value::<IpAddr>(Some(ip), bad, || format!("spec.ips[{index}]")));
        }
        let exporters = status.and_then(|status| status.clusters).unwrap_or_default();
        Self {
            namespace: namespace(metadata.namespace),
            name: name(metadata.name),
            labels: metadata.labels.unwrap_or_default(),
            addresses,
            exporters: exporters.into_iter().map(|exporter| exporter.cluster.into()).collect(),
        }
    }
}

impl SlimKind for SlimEndpointSlice {
    fn from_wire(wire: WireObject, bad: &mut Vec<BadValue>) -> Self {
        let WireObject {
            metadata,
            address_type,
            endpoints,
            ports,
            ..
        } = wire;
        let mut backends = Vec::new();
        // The third type holds names, which are nobody's address.
        if address_type.as_deref() != Some("FQDN") {
            for (index, endpoint) in endpoints.iter().flatten().enumerate() {
                for (place, address) in endpoint.addresses.iter().flatten().enumerate() {
                    let path = || format!("endpoints[{index}].addresses[{place}]");
                    backends.extend(value::<IpAddr>(Some(address), bad, path));
                }
            }
        }
        backends.sort_unstable();
        backends.dedup();
        let of = |label| {
            metadata
                .labels
                .as_ref()?
                .get(label)
                .map(|name: &String| Arc::from(name.as_str()))
        };
        let (service, import) = (of(SLICE_OF), of(SLICE_OF_IMPORT));
        Self {
            namespace: namespace(metadata.namespace),
            name: name(metadata.name),
            service,
            import,
            backends: backends.into(),
            ports: ports.into_iter().flatten().filter_map(slice_port).collect(),
        }
    }
}

fn name(name: Option<String>) -> Arc<str> {
    name.unwrap_or_default().into()
}

/// The namespace is written out where the object leaves it out, so that nobody downstream has to
/// know the default.
fn namespace(namespace: Option<String>) -> Arc<str> {
    let given = namespace.filter(|given| !given.is_empty());
    given.as_deref().unwrap_or(DEFAULT_NAMESPACE).into()
}

fn container_port(port: WirePort) -> Option<ContainerPort> {
    Some(ContainerPort {
        name: port.name?,
        protocol: protocol(port.protocol.as_deref())?,
        port: u16::try_from(port.container_port).ok()?,
    })
}

fn service_port(written: WireServicePort) -> Option<SlimServicePort> {
    let port = u16::try_from(written.port).ok()?;
    Some(SlimServicePort {
        name: written.name.map(Into::into),
        protocol: protocol(written.protocol.as_deref()),
        port,
        target: match written.target_port {
            // As the API server fills it in.
            None => Some(TargetPort::Number(port)),
            Some(WireTargetPort::Number(target)) => u16::try_from(target).ok().map(TargetPort::Number),
            Some(WireTargetPort::Name(name)) => Some(TargetPort::Name(name)),
        },
        // The API server writes 0 where it gives none.
        node_port: written
            .node_port
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port != 0),
    })
}

/// One without a number stands for all ports, which no Service's port leads to.
fn slice_port(written: WireSlicePort) -> Option<SlimSlicePort> {
    Some(SlimSlicePort {
        name: written.name.filter(|name| !name.is_empty()).map(Into::into),
        protocol: protocol(written.protocol.as_deref()),
        port: u16::try_from(written.port?).ok()?,
    })
}

fn protocol(written: Option<&str>) -> Option<Protocol> {
    match written {
        None | Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
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

fn value<T: TextValue>(written: Option<&str>, bad: &mut Vec<BadValue>, path: impl FnOnce() -> String) -> Option<T> {
    let written = written?;
    let value = written.parse().ok();
    if value.is_none() {
        bad.push(BadValue {
            path: path(),
            value: written.to_owned(),
            wanted: T::WHAT,
            example: T::EXAMPLE,
        });
    }
    value
}

/// Reads an object without a word about what is wrong with it, and shares nothing.
macro_rules! deserialize {
    ($($kind:ty),*) => {
        $(impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let wire = WireObject::deserialize(deserializer)?;
                Ok(Self::from_wire(wire, &mut Vec::new()))
            }
        })*
    };
}

deserialize!(
    SlimPod,
    SlimNamespace,
    SlimNode,
    SlimService,
    SlimServiceImport,
    SlimEndpointSlice
);
