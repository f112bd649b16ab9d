//! What policies speak of: pods, namespaces, services, nodes, groups of prefixes.

use std::net::IpAddr;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};

use super::Site;
use super::words::{labels, namespace, prefix};

/// Pods, here and elsewhere; two namespaces, of which one has no object; services; two nodes;
/// groups of prefixes.
pub(super) fn objects(site: &Site) -> impl Strategy<Value = Vec<Value>> + use<> {
    let here: Vec<_> = site
        .pods
        .iter()
        .enumerate()
        .map(|(number, addresses)| pod(format!("here{number}"), &site.node, addresses))
        .collect();
    let ip = super::words::ip;
    let there = [
        ("there0", vec![ip("10.2.0.1"), ip("fd02::1")]),
        ("there1", vec![ip("10.2.0.2")]),
    ];
    let there = there.map(|(name, addresses)| pod(name.to_owned(), "there", &addresses));
    let pods = here.into_iter().chain(there).map(Strategy::boxed).collect::<Vec<_>>();
    let team = option::of(select(vec!["a", "b"]));
    let host = site.host.clone();
    let node = site.node.clone();
    (pods, team, (labels(), labels()), (labels(), any::<bool>()), vec((labels(), vec(prefix(), 1..3)), 0..3)).prop_map(
        move |(pods, team, (of_this, of_other), (of_service, has_selector), groups)| {
            let mut objects = pods;
            if let Some(team) = team {
                objects.push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "red", "labels": {"team": team}}}));
            }
            objects.push(node_object(&node, of_this, &host, "10.1.0.0/24"));
            objects.push(node_object("there", of_other, &[ip("10.9.0.2"), ip("fd09::2")], "10.2.0.0/24"));
            objects.extend(services(of_service, has_selector));
            for (number, (labels, prefixes)) in groups.into_iter().enumerate() {
                objects.push(json!({
                    "apiVersion": "cilium.io/v2",
                    "kind": "CiliumCIDRGroup",
                    "metadata": {"name": format!("g{number}"), "labels": labels},
                    "spec": {"externalCIDRs": prefixes},
                }));
            }
            objects
        },
    )
}

/// Namespace and name of the pods that are governed.
pub(super) fn endpoints(objects: &[Value], site: &Site) -> Vec<(String, String)> {
    let pods = objects
        .iter()
        .filter(|object| object["kind"] == "Pod" && object["spec"]["nodeName"] == site.node.as_str());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    pods.map(|pod| (text(&pod["metadata"]["namespace"]), text(&pod["metadata"]["name"])))
        .collect()
}

fn pod(name: String, node: &str, addresses: &[IpAddr]) -> impl Strategy<Value = Value> + use<> {
    let known = [
        json!({"name": "web", "containerPort": 80}),
        json!({"name": "http", "containerPort": 8080, "protocol": "TCP"}),
        json!({"name": "dns", "containerPort": 53, "protocol": "UDP"}),
        json!({"name": "web", "containerPort": 443, "protocol": "UDP"}),
    ];
    let ports = subsequence(known.to_vec(), 0..=3);
    let node = node.to_owned();
    let addresses: Vec<Value> = addresses
        .iter()
        .map(|address| json!({"ip": address.to_string()}))
        .collect();
    (namespace(), labels(), ports, option::of(Just("robot"))).prop_map(move |(namespace, labels, ports, account)| {
        let mut container = json!({"name": "main", "image": "none"});
        if !ports.is_empty() {
            container["ports"] = ports.into();
        }
        let mut spec = json!({"nodeName": node, "containers": [container]});
        super::words::put(&mut spec, "serviceAccountName", account);
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": spec,
            "status": {"podIP": addresses[0]["ip"], "podIPs": addresses},
        })
    })
}

fn node_object(name: &str, labels: Map<String, Value>, addresses: &[IpAddr], pods: &str) -> Value {
    let addresses: Vec<Value> = addresses
        .iter()
        .map(|address| json!({"type": "InternalIP", "address": address.to_string()}))
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"podCIDR": pods, "podCIDRs": [pods]},
        "status": {"addresses": addresses},
    })
}

/// The API server, which is outside; `red/api`, whose backends are pods that it selects or one that
/// a slice lists.
fn services(labels: Map<String, Value>, has_selector: bool) -> Vec<Value> {
    let slice = |namespace: &str, service: &str, address: &str| {
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": format!("{service}-1"), "namespace": namespace, "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address]}],
            "ports": [{"port": 443}],
        })
    };
    let service = |namespace: &str, name: &str, address: &str, labels: Value| {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {"clusterIP": address, "clusterIPs": [address], "ports": [{"port": 443}]},
        })
    };
    let mut api = service("red", "api", "10.96.0.10", labels.into());
    let mut objects = vec![
        service("default", "kubernetes", "10.96.0.1", json!({})),
        slice("default", "kubernetes", "203.0.113.40"),
    ];
    if has_selector {
        api["spec"]["selector"] = json!({"app": "a"});
    } else {
        objects.push(slice("red", "api", "203.0.113.17"));
    }
    objects.push(api);
    objects
}
