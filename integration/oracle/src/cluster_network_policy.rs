//! `policy.networking.k8s.io/v1beta1` ClusterNetworkPolicy.

use serde_json::Value;

use crate::flow::Flow;
use crate::json::{list, text, texts};
use crate::labels::select;
use crate::names;
use crate::probe::{Protocol, Traffic};
use crate::refused::is_refused;
use crate::verdict::Verdict;
use crate::world::{Pod, name_of, prefix};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    Admin,
    Baseline,
}

/// `None` where a tier leaves the packet to the next.
pub(crate) fn verdict(flow: Flow<'_>, tier: Tier) -> Option<Verdict> {
    let tier = match tier {
        Tier::Admin => "Admin",
        Tier::Baseline => "Baseline",
    };
    let of_tier = |policy: &&Value| policy["spec"]["tier"] == tier;
    let mut policies: Vec<&Value> = flow.world.of_kind("ClusterNetworkPolicy").filter(of_tier).collect();
    // Lower priorities first. What the API leaves open is settled by name.
    policies.sort_by_key(|policy| (policy["spec"]["priority"].as_i64(), name_of(policy).to_owned()));
    let mut subjects = policies
        .into_iter()
        .filter(|policy| is_subject(&policy["spec"]["subject"], flow.subject));
    match subjects.find_map(|policy| action(flow, policy))? {
        "Accept" => Some(Verdict::Allow),
        "Deny" => Some(Verdict::Deny),
        _ => None,
    }
}

/// What the first rule that matches says. One that is refused denies everything, unless it would
/// only have accepted.
fn action<'a>(flow: Flow<'_>, policy: &'a Value) -> Option<&'a str> {
    let mut rules = list(&policy["spec"], flow.direction.field()).iter();
    if is_refused(policy) {
        return rules
            .any(|rule| text(rule, "action") != Some("Accept"))
            .then_some("Deny");
    }
    let rule = rules.find(|rule| matches(flow, rule))?;
    text(rule, "action")
}

fn is_subject(subject: &Value, pod: Pod<'_>) -> bool {
    are_pods_of(subject, pod)
}

/// `namespaces` or `pods`.
fn are_pods_of(peer: &Value, pod: Pod<'_>) -> bool {
    if !peer["namespaces"].is_null() {
        return select(&peer["namespaces"], &pod.namespace_labels());
    }
    let pods = &peer["pods"];
    !pods.is_null()
        && select(&pods["namespaceSelector"], &pod.namespace_labels())
        && select(&pods["podSelector"], &pod.labels())
}

fn matches(flow: Flow<'_>, rule: &Value) -> bool {
    let mut peers = list(rule, flow.direction.peers_field()).iter();
    peers.any(|peer| is_peer(flow, peer)) && matches_protocols(flow, rule)
}

fn is_peer(flow: Flow<'_>, peer: &Value) -> bool {
    let world = flow.world;
    let is_pod = world.pod_at(flow.peer).is_some_and(|pod| are_pods_of(peer, pod));
    let is_node = !peer["nodes"].is_null()
        && world
            .nodes()
            .any(|node| select(&peer["nodes"], &node.labels()) && node.addresses().contains(&flow.peer));
    let in_network = texts(peer, "networks").any(|cidr| prefix(cidr).contains(&flow.peer));
    let mut names = world.names_of(flow.peer);
    let has_name = names.any(|name| texts(peer, "domainNames").any(|written| names::is_domain(written, name)));
    is_pod || is_node || in_network || has_name
}

fn matches_protocols(flow: Flow<'_>, rule: &Value) -> bool {
    let protocols = list(rule, "protocols");
    if protocols.is_empty() {
        return true;
    }
    let Traffic::Port(protocol, port) = flow.traffic else {
        return false;
    };
    protocols.iter().any(|written| {
        if let Some(name) = text(written, "destinationNamedPort") {
            return flow.receiver().is_some_and(|pod| pod.names_port(name, protocol, port));
        }
        let field = match protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        !written[field].is_null() && is_port(&written[field]["destinationPort"], port)
    })
}

/// Without one, every port.
fn is_port(written: &Value, port: u16) -> bool {
    let range = &written["range"];
    let (first, last) = match range.is_null() {
        true => (&written["number"], &written["number"]),
        false => (&range["start"], &range["end"]),
    };
    written.is_null() || first.as_u64() <= Some(port.into()) && Some(port.into()) <= last.as_u64()
}
