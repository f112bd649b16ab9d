//! Where a rule speaks of.

use serde_json::Value;

use crate::flow::{Direction, Flow};
use crate::json::{list, text, texts};
use crate::labels::{self, conditions, select};
use crate::names;
use crate::world::{Pod, cluster_ips, name_of, namespace_of, prefix};

use super::{NAMESPACE, NAMESPACE_LABELS, holds, key};

const TO: [&str; 7] = [
    "toFQDNs",
    "toCIDR",
    "toCIDRSet",
    "toEndpoints",
    "toEntities",
    "toServices",
    "toNodes",
];

const FROM: [&str; 5] = ["fromCIDR", "fromCIDRSet", "fromEndpoints", "fromEntities", "fromNodes"];

fn fields(direction: Direction) -> &'static [&'static str] {
    match direction {
        Direction::Egress => &TO,
        Direction::Ingress => &FROM,
    }
}

/// `None` where the rule has no selector of peers. An empty list selects nothing.
pub(super) fn matches(flow: Flow<'_>, namespace: Option<&str>, rule: &Value) -> Option<bool> {
    let fields = fields(flow.direction).iter().copied();
    let present: Vec<&str> = fields.filter(|field| rule[field].is_array()).collect();
    if present.is_empty() {
        return None;
    }
    let is_meant = |field: &str, entry: &Value| match field {
        "toFQDNs" => is_fqdn(flow, entry),
        "toCIDR" | "fromCIDR" => {
            is_outside(flow) && entry.as_str().is_some_and(|cidr| prefix(cidr).contains(&flow.peer))
        }
        "toCIDRSet" | "fromCIDRSet" => is_outside(flow) && is_in_set(flow, entry),
        "toEndpoints" | "fromEndpoints" => flow
            .world
            .pod_at(flow.peer)
            .is_some_and(|pod| is_endpoint(entry, namespace, pod)),
        "toEntities" | "fromEntities" => is_entity(flow, entry.as_str().unwrap_or_default()),
        "toServices" => is_service(flow, entry),
        _ => is_node(flow, entry),
    };
    let mut entries = present
        .iter()
        .flat_map(|field| list(rule, field).iter().map(move |entry| (*field, entry)));
    Some(entries.any(|(field, entry)| is_meant(field, entry)))
}

/// Whether every destination of an egress rule lies outside the cluster, where a port's name can
/// only be IANA's.
pub(super) fn are_outside(rule: &Value) -> bool {
    let outside = |entity: &str| {
        [
            "world",
            "world-ipv4",
            "world-ipv6",
            "none",
            "health",
            "init",
            "ingress",
            "unmanaged",
        ]
        .contains(&entity)
    };
    let present = TO.into_iter().find(|field| !list(rule, field).is_empty());
    match present {
        Some("toFQDNs" | "toCIDR" | "toCIDRSet") => true,
        Some("toEntities") => texts(rule, "toEntities").all(outside),
        _ => false,
    }
}

/// CIDRs mean what is outside the cluster.
fn is_outside(flow: Flow<'_>) -> bool {
    !flow.world.is_inside(flow.peer) && !flow.world.is_host(flow.peer)
}

fn is_fqdn(flow: Flow<'_>, entry: &Value) -> bool {
    flow.world.names_of(flow.peer).any(|name| {
        text(entry, "matchName").is_some_and(|written| names::is_name(written, name))
            || text(entry, "matchPattern").is_some_and(|written| names::matches_pattern(written, name))
    })
}

fn is_in_set(flow: Flow<'_>, entry: &Value) -> bool {
    let holds = |cidr: &str| prefix(cidr).contains(&flow.peer);
    let mut groups = flow.world.of_kind("CiliumCIDRGroup").filter(|group| {
        text(entry, "cidrGroupRef") == Some(name_of(group))
            || !entry["cidrGroupSelector"].is_null() && select(&entry["cidrGroupSelector"], &labels::of(group))
    });
    let is_in =
        text(entry, "cidr").is_some_and(holds) || groups.any(|group| texts(&group["spec"], "externalCIDRs").any(holds));
    is_in && !texts(entry, "except").any(holds)
}

/// In a namespaced policy a selector that asks for no namespace means the policy's own.
fn is_endpoint(selector: &Value, namespace: Option<&str>, pod: Pod<'_>) -> bool {
    let conditions = conditions(selector);
    let asks = conditions
        .iter()
        .any(|it| key(it) == NAMESPACE || key(it).starts_with(NAMESPACE_LABELS));
    let in_own = namespace.is_none_or(|own| own == pod.namespace());
    (asks || in_own) && conditions.iter().all(|condition| holds(condition, pod))
}

fn is_entity(flow: Flow<'_>, entity: &str) -> bool {
    let world = flow.world;
    match entity {
        "world" => is_outside(flow),
        "world-ipv4" => is_outside(flow) && flow.peer.is_ipv4(),
        "world-ipv6" => is_outside(flow) && flow.peer.is_ipv6(),
        // There is one cluster alone.
        "cluster" | "cluster-mesh" => !is_outside(flow),
        "host" => world.is_host(flow.peer),
        "remote-node" => world
            .nodes()
            .any(|node| !node.is_this() && node.addresses().contains(&flow.peer)),
        "kube-apiserver" => {
            let is_it = |service: &&Value| namespace_of(service) == "default" && name_of(service) == "kubernetes";
            let mut services = world.of_kind("Service").filter(is_it);
            services.any(|service| {
                cluster_ips(service).contains(&flow.peer) || world.backends(service).contains(&flow.peer)
            })
        }
        "all" => true,
        "none" | "health" | "init" | "ingress" | "unmanaged" => false,
        other => panic!("no entity {other}"),
    }
}

/// The selector counts where both stand; without a namespace every one is meant.
fn is_service(flow: Flow<'_>, entry: &Value) -> bool {
    let world = flow.world;
    let (by_name, by_labels) = (&entry["k8sService"], &entry["k8sServiceSelector"]);
    let wanted = if by_labels.is_null() { by_name } else { by_labels };
    let is_meant = |service: &&Value| {
        let in_namespace = text(wanted, "namespace").is_none_or(|it| it.is_empty() || it == namespace_of(service));
        let is_selected = match by_labels.is_null() {
            true => text(by_name, "serviceName") == Some(name_of(service)),
            false => select(&by_labels["selector"], &labels::of(service)),
        };
        in_namespace && is_selected
    };
    let mut services = world.of_kind("Service").filter(is_meant);
    services.any(|service| world.backends(service).contains(&flow.peer))
}

fn is_node(flow: Flow<'_>, selector: &Value) -> bool {
    flow.world.nodes().any(|node| {
        let labels = node.labels();
        let is_selected = conditions(selector).iter().all(|it| it.holds_for(labels.get(key(it))));
        is_selected && node.addresses().contains(&flow.peer)
    })
}
