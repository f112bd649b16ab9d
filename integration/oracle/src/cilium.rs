//! `cilium.io/v2` CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy.

mod peers;
mod ports;

use serde_json::Value;

use crate::json::{list, text};
use crate::labels::{Condition, conditions};
use crate::probe::Probe;
use crate::refused::is_refused;
use crate::verdict::FamilyEffect;
use crate::world::{Pod, World, namespace_of};

/// What those that select a pod say of a packet.
pub(crate) fn effect(world: &World, from: Pod<'_>, probe: &Probe) -> FamilyEffect {
    let mut effect = FamilyEffect::default();
    for policy in world
        .of_kind("CiliumNetworkPolicy")
        .chain(world.of_kind("CiliumClusterwideNetworkPolicy"))
    {
        let is_clusterwide = text(policy, "kind") == Some("CiliumClusterwideNetworkPolicy");
        let namespace = (!is_clusterwide).then(|| namespace_of(policy));
        let one = policy["spec"].is_object().then_some(&policy["spec"]);
        let selecting = one.into_iter().chain(list(policy, "specs"));
        for spec in selecting.filter(|spec| selects(&spec["endpointSelector"], namespace, from)) {
            if is_refused(policy) {
                // Nothing that it may have been meant to close or to deny stays open.
                let denies = !list(spec, "egressDeny").is_empty();
                effect.denies |= denies;
                // Without any rule it is not known what was meant.
                effect.closes |= denies || spec["enableDefaultDeny"]["egress"] != false;
                continue;
            }
            effect.closes |= closes(spec);
            let allowing = |rule: &Value| matches(world, namespace, rule, Side::Allow, probe);
            let denying = |rule: &Value| matches(world, namespace, rule, Side::Deny, probe);
            effect.allows |= list(spec, "egress").iter().any(allowing);
            effect.denies |= list(spec, "egressDeny").iter().any(denying);
        }
    }
    effect
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Allow,
    Deny,
}

fn closes(spec: &Value) -> bool {
    let has_rules = !list(spec, "egress").is_empty() || !list(spec, "egressDeny").is_empty();
    spec["enableDefaultDeny"]["egress"].as_bool().unwrap_or(has_rules)
}

/// A CiliumNetworkPolicy selects in its own namespace, whatever its selector says of namespaces.
fn selects(selector: &Value, namespace: Option<&str>, pod: Pod<'_>) -> bool {
    let speaks_of_it = |condition: &Condition<'_>| key(condition) == NAMESPACE;
    let mut counting = conditions(selector)
        .into_iter()
        .filter(|it| namespace.is_none() || !speaks_of_it(it));
    namespace.is_none_or(|own| own == pod.namespace()) && counting.all(|condition| holds(&condition, pod))
}

/// What a condition speaks of, without the source.
fn key<'a>(condition: &Condition<'a>) -> &'a str {
    let key = condition.key;
    key.strip_prefix("k8s:")
        .or_else(|| key.strip_prefix("any:"))
        .unwrap_or(key)
}

const NAMESPACE: &str = "io.kubernetes.pod.namespace";
const NAMESPACE_LABELS: &str = "io.cilium.k8s.namespace.labels.";

fn holds(condition: &Condition<'_>, pod: Pod<'_>) -> bool {
    let key = key(condition);
    let value = match key {
        NAMESPACE => Some(pod.namespace().to_owned()),
        "io.cilium.k8s.policy.serviceaccount" => Some(pod.service_account().to_owned()),
        "io.cilium.k8s.policy.cluster" => Some("default".to_owned()),
        _ => match key.strip_prefix(NAMESPACE_LABELS) {
            Some(key) => pod.namespace_labels().remove(key),
            None => pod.labels().remove(key),
        },
    };
    condition.holds_for(value.as_ref())
}

/// A rule that says nothing of destinations and of ports is none.
fn matches(world: &World, namespace: Option<&str>, rule: &Value, side: Side, probe: &Probe) -> bool {
    let is_destination = peers::matches(world, namespace, rule, side, probe);
    let is_traffic = ports::matches(world, rule, side, probe);
    match (is_destination, is_traffic) {
        (None, None) => false,
        (destination, traffic) => destination.unwrap_or(true) && traffic.unwrap_or(true),
    }
}
