//! `networking.k8s.io/v1` NetworkPolicy.

use serde_json::Value;

use crate::json::{list, text, texts};
use crate::labels::select;
use crate::probe::{Probe, Traffic};
use crate::refused::{is_meant, is_refused};
use crate::verdict::FamilyEffect;
use crate::world::{Pod, World, namespace_of, prefix};

/// What those that select a pod say of a packet. They only allow.
pub(crate) fn effect(world: &World, from: Pod<'_>, probe: &Probe) -> FamilyEffect {
    let mut effect = FamilyEffect::default();
    for policy in world.of_kind("NetworkPolicy") {
        let (namespace, spec) = (namespace_of(policy), &policy["spec"]);
        let selects = namespace == from.namespace() && select(&spec["podSelector"], &from.labels());
        if selects && speaks_of_egress(spec) {
            effect.closes = true;
            // A refused one closes all the same.
            let mut rules = list(spec, "egress").iter();
            effect.allows |= !is_refused(policy) && rules.any(|rule| allows(world, namespace, rule, probe));
        }
    }
    effect
}

/// Without `policyTypes` a policy speaks of egress if it has rules for it.
fn speaks_of_egress(spec: &Value) -> bool {
    match list(spec, "policyTypes") {
        [] => is_meant(spec, "egress"),
        types => types.iter().any(|written| written == "Egress"),
    }
}

/// No peers are every destination, no ports all traffic.
fn allows(world: &World, namespace: &str, rule: &Value, probe: &Probe) -> bool {
    let (peers, ports) = (list(rule, "to"), list(rule, "ports"));
    (peers.is_empty() || peers.iter().any(|peer| is_peer(world, namespace, peer, probe)))
        && (ports.is_empty() || ports.iter().any(|port| is_port(world, port, probe)))
}

fn is_peer(world: &World, namespace: &str, peer: &Value, probe: &Probe) -> bool {
    let block = &peer["ipBlock"];
    if !block.is_null() {
        let within = |cidr: &str| prefix(cidr).contains(&probe.to);
        return text(block, "cidr").is_some_and(within) && !texts(block, "except").any(within);
    }
    let Some(pod) = world.pod_at(probe.to) else {
        return false;
    };
    let in_namespace = match peer["namespaceSelector"].is_null() {
        true => pod.namespace() == namespace,
        false => select(&peer["namespaceSelector"], &pod.namespace_labels()),
    };
    in_namespace && (peer["podSelector"].is_null() || select(&peer["podSelector"], &pod.labels()))
}

fn is_port(world: &World, written: &Value, probe: &Probe) -> bool {
    let Traffic::Port(protocol, port) = probe.traffic else {
        return false;
    };
    if text(written, "protocol").unwrap_or("TCP") != protocol.as_str() {
        return false;
    }
    match &written["port"] {
        Value::Null => true,
        Value::String(name) => world
            .pod_at(probe.to)
            .is_some_and(|pod| pod.names_port(name, protocol, port)),
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
