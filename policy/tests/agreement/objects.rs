//! The objects of a world, as the compiler takes them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use oracle::World;
use policy::address::Teachable;
use policy::endpoint;
use policy::inventory::{ContainerPort, InventoryNode, InventoryPod, InventoryService};
use policy::labels::Labels;
use policy::{Endpoint, EndpointId, Inventory, Protocol, cidr_group, document};
use serde_json::Value;

pub(crate) fn is_policy(object: &Value) -> bool {
    object["kind"].as_str().is_some_and(|kind| kind.ends_with("Policy"))
}

/// The pods of the node.
pub(crate) fn endpoints(world: &World) -> Vec<Endpoint> {
    let local = world
        .of_kind("Pod")
        .filter(|pod| pod["spec"]["nodeName"] == world.node.as_str());
    local
        .map(|pod| Endpoint {
            id: EndpointId {
                namespace: namespace(pod),
                name: name(pod),
            },
            labels: pod_labels(world, pod),
            addresses: pod_addresses(pod),
            ports: container_ports(pod),
        })
        .collect()
}

pub(crate) fn inventory(world: &World) -> Result<Inventory, String> {
    let mut cidr_groups = Vec::new();
    for object in world.of_kind("CiliumCIDRGroup") {
        let document = document::Document::from_value(object.clone()).map_err(|error| error.to_string())?;
        let (group, diagnostics) = cidr_group::read(&document);
        cidr_groups.push(group.ok_or_else(|| format!("a group is refused: {diagnostics:?}"))?);
    }
    Ok(Inventory {
        pods: world
            .of_kind("Pod")
            .map(|pod| InventoryPod::new(pod_labels(world, pod), pod_addresses(pod), container_ports(pod)))
            .collect(),
        services: world
            .of_kind("Service")
            .map(|service| inventory_service(world, service))
            .collect(),
        nodes: world
            .of_kind("Node")
            .map(|node| {
                let known = InventoryNode {
                    labels: labels(&node["metadata"]["labels"]),
                    addresses: addresses(&node["status"]["addresses"], "address"),
                    is_this: name(node) == world.node,
                };
                (name(node), Arc::new(known))
            })
            .collect(),
        cidr_groups: cidr_groups.into(),
        other_clusters: None,
    })
}

/// What names may open: nothing of the cluster.
pub(crate) fn teachable(world: &World) -> Teachable {
    let pods = world.of_kind("Pod").flat_map(pod_addresses);
    let nodes = world
        .of_kind("Node")
        .flat_map(|node| addresses(&node["status"]["addresses"], "address"));
    let services = world.of_kind("Service").flat_map(cluster_ips);
    let single = pods.chain(nodes).chain(services).map(IpNet::from);
    let ranges = world
        .of_kind("Node")
        .flat_map(|node| node["spec"]["podCIDRs"].as_array().into_iter().flatten());
    let ranges = ranges.filter_map(|cidr| cidr.as_str()?.parse().ok());
    Teachable::new([], single.chain(ranges).collect::<Vec<_>>())
}

fn inventory_service(world: &World, service: &Value) -> InventoryService {
    let is_its = |slice: &&Value| {
        namespace(slice) == namespace(service)
            && slice["metadata"]["labels"]["kubernetes.io/service-name"] == service["metadata"]["name"]
    };
    let endpoints = world.of_kind("EndpointSlice").filter(is_its);
    let endpoints = endpoints.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    let backends = endpoints.flat_map(|endpoint| endpoint["addresses"].as_array().into_iter().flatten());
    InventoryService {
        namespace: namespace(service),
        name: name(service),
        labels: labels(&service["metadata"]["labels"]),
        selector: Some(labels(&service["spec"]["selector"])).filter(|selector| !selector.is_empty()),
        backends: backends.filter_map(parsed).collect(),
        addresses: cluster_ips(service),
    }
}

fn pod_labels(world: &World, pod: &Value) -> Labels {
    let namespace = namespace(pod);
    let object = world.of_kind("Namespace").find(|object| name(object) == namespace);
    let of_namespace = object
        .map(|object| labels(&object["metadata"]["labels"]))
        .unwrap_or_default();
    let account = pod["spec"]["serviceAccountName"].as_str().unwrap_or("default");
    endpoint::labels(
        &labels(&pod["metadata"]["labels"]),
        &namespace,
        &of_namespace,
        account,
        "default",
    )
}

fn container_ports(pod: &Value) -> Vec<ContainerPort> {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    ports
        .map(|port| ContainerPort {
            name: port["name"].as_str().unwrap_or_default().to_owned(),
            protocol: match port["protocol"].as_str() {
                Some("UDP") => Protocol::Udp,
                Some("SCTP") => Protocol::Sctp,
                _ => Protocol::Tcp,
            },
            port: port["containerPort"]
                .as_u64()
                .and_then(|port| u16::try_from(port).ok())
                .expect("ports are generated"),
        })
        .collect()
}

fn pod_addresses(pod: &Value) -> BTreeSet<IpAddr> {
    addresses(&pod["status"]["podIPs"], "ip")
}

fn cluster_ips(service: &Value) -> BTreeSet<IpAddr> {
    service["spec"]["clusterIPs"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(parsed)
        .collect()
}

fn addresses(list: &Value, field: &str) -> BTreeSet<IpAddr> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(|entry| parsed(&entry[field]))
        .collect()
}

fn parsed(text: &Value) -> Option<IpAddr> {
    text.as_str()?.parse().ok()
}

fn labels(object: &Value) -> Labels {
    let fields = object.as_object().into_iter().flatten();
    fields
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

fn namespace(object: &Value) -> String {
    object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned()
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}
