//! `cilium.io/v2` CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy.

mod peers;
mod ports;

use serde_json::Value;

use crate::flow::{Direction, Flow};
use crate::json::{list, text};
use crate::labels::{Condition, conditions};
use crate::refused::{is_meant, is_refused};
use crate::verdict::FamilyEffect;
use crate::world::{Pod, namespace_of};

/// What those that select a pod say of a packet.
pub(crate) fn effect(flow: Flow<'_>) -> FamilyEffect {
    let mut effect = FamilyEffect::default();
    let (world, direction) = (flow.world, flow.direction);
    for policy in world
        .of_kind("CiliumNetworkPolicy")
        .chain(world.of_kind("CiliumClusterwideNetworkPolicy"))
    {
        let is_clusterwide = text(policy, "kind") == Some("CiliumClusterwideNetworkPolicy");
        let namespace = (!is_clusterwide).then(|| namespace_of(policy));
        let one = policy["spec"].is_object().then_some(&policy["spec"]);
        let selecting = one.into_iter().chain(list(policy, "specs"));
        for spec in selecting.filter(|spec| selects(&spec["endpointSelector"], namespace, flow.subject)) {
            if is_refused(policy) {
                // Nothing that it may have been meant to close or to deny stays open.
                let denies = !list(spec, direction.deny_field()).is_empty();
                effect.denies |= denies;
                effect.closes |= denies || may_close(direction, spec);
                continue;
            }
            effect.closes |= closes(direction, spec);
            let allowing = |rule: &Value| matches(flow, namespace, rule, Side::Allow);
            let denying = |rule: &Value| matches(flow, namespace, rule, Side::Deny);
            effect.allows |= list(spec, direction.field()).iter().any(allowing);
            let letting_some = |rule: &Value| matches(flow, namespace, rule, Side::AllowAnnounced);
            effect.allows_announced |= list(spec, direction.field()).iter().any(letting_some);
            effect.denies |= list(spec, direction.deny_field()).iter().any(denying);
        }
    }
    effect
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Allow,
    /// Allows connections that announce something.
    AllowAnnounced,
    Deny,
}

fn closes(direction: Direction, spec: &Value) -> bool {
    let has_rules = !list(spec, direction.field()).is_empty() || !list(spec, direction.deny_field()).is_empty();
    let written = spec["enableDefaultDeny"][direction.field()].as_bool();
    written.unwrap_or(has_rules)
}

/// Whether a refused spec may have been meant to close. Where it says so itself, that counts. One
/// that has rules, or a list without a value, closes the directions of these. One without any
/// closes those that it speaks of, or both where it speaks of none.
fn may_close(direction: Direction, spec: &Value) -> bool {
    if let Some(written) = spec["enableDefaultDeny"][direction.field()].as_bool() {
        return written;
    }
    let lists = |direction: Direction| [direction.field(), direction.deny_field()];
    let is_written = |direction: Direction| {
        let default_deny = !spec["enableDefaultDeny"][direction.field()].is_null();
        default_deny || lists(direction).iter().any(|field| spec.get(field).is_some())
    };
    let is_meant = |direction| lists(direction).iter().any(|field| is_meant(spec, field));
    let other = match direction {
        Direction::Egress => Direction::Ingress,
        Direction::Ingress => Direction::Egress,
    };
    let has_no_rule = |direction: Direction| lists(direction).iter().all(|field| list(spec, field).is_empty());
    let is_silent = has_no_rule(direction) && has_no_rule(other) && (is_written(direction) || !is_written(other));
    is_meant(direction) || is_silent
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

/// A rule that says nothing of peers and of ports is none.
fn matches(flow: Flow<'_>, namespace: Option<&str>, rule: &Value, side: Side) -> bool {
    let is_peer = peers::matches(flow, namespace, rule);
    let is_traffic = ports::matches(flow, rule, side);
    match (is_peer, is_traffic) {
        (None, None) => false,
        (peer, traffic) => peer.unwrap_or(true) && traffic.unwrap_or(true),
    }
}
