//! `networking.k8s.io/v1` NetworkPolicy.

use serde_json::Value;

use crate::flow::{Direction, Flow};
use crate::json::{list, text, texts};
use crate::labels::select;
use crate::probe::Traffic;
use crate::refused::{is_meant, is_refused};
use crate::verdict::FamilyEffect;
use crate::world::{namespace_of, prefix};

/// What those that select a pod say of a packet. They only allow.
pub(crate) fn effect(flow: Flow<'_>) -> FamilyEffect {
    let mut effect = FamilyEffect::default();
    for policy in flow.world.of_kind("NetworkPolicy") {
        let (namespace, spec) = (namespace_of(policy), &policy["spec"]);
        let subject = flow.subject;
        let selects = namespace == subject.namespace() && select(&spec["podSelector"], &subject.labels());
        if selects && speaks_of(flow.direction, spec) {
            effect.closes = true;
            // A refused one closes all the same.
            let mut rules = list(spec, flow.direction.field()).iter();
            effect.allows |= !is_refused(policy) && rules.any(|rule| allows(flow, namespace, rule));
        }
    }
    effect
}

/// Without `policyTypes` a policy speaks of ingress, and of egress if it has rules for it.
fn speaks_of(direction: Direction, spec: &Value) -> bool {
    let written = match direction {
        Direction::Egress => "Egress",
        Direction::Ingress => "Ingress",
    };
    match list(spec, "policyTypes") {
        [] => direction == Direction::Ingress || is_meant(spec, "egress"),
        types => types.iter().any(|kind| kind == written),
    }
}

/// No peers are everybody, no ports all traffic.
fn allows(flow: Flow<'_>, namespace: &str, rule: &Value) -> bool {
    let (peers, ports) = (list(rule, flow.direction.peers_field()), list(rule, "ports"));
    (peers.is_empty() || peers.iter().any(|peer| is_peer(flow, namespace, peer)))
        && (ports.is_empty() || ports.iter().any(|port| is_port(flow, port)))
}

fn is_peer(flow: Flow<'_>, namespace: &str, peer: &Value) -> bool {
    let block = &peer["ipBlock"];
    if !block.is_null() {
        let within = |cidr: &str| prefix(cidr).contains(&flow.peer);
        return text(block, "cidr").is_some_and(within) && !texts(block, "except").any(within);
    }
    let Some(pod) = flow.world.pod_at(flow.peer) else {
        return false;
    };
    let in_namespace = match peer["namespaceSelector"].is_null() {
        true => pod.namespace() == namespace,
        false => select(&peer["namespaceSelector"], &pod.namespace_labels()),
    };
    in_namespace && (peer["podSelector"].is_null() || select(&peer["podSelector"], &pod.labels()))
}

fn is_port(flow: Flow<'_>, written: &Value) -> bool {
    let Traffic::Port(protocol, port) = flow.traffic else {
        return false;
    };
    if text(written, "protocol").unwrap_or("TCP") != protocol.as_str() {
        return false;
    }
    match &written["port"] {
        Value::Null => true,
        Value::String(name) => flow.receiver().is_some_and(|pod| pod.names_port(name, protocol, port)),
        first => {
            let last = if written["endPort"].is_null() {
                first
            } else {
                &written["endPort"]
            };
            first.as_u64() <= Some(port.into()) && Some(port.into()) <= last.as_u64()
        }
    }
}
