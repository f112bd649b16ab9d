//! What happens at each end of a connection to one address.

use api::{AddressAnswer, DirectionAnswer, ExplainVerdict};
use policy::explain::{
    Decision, ExplainContext, ExplainOutcome, Explanation, KnownName, KnownPeer, LeaseState, Matched, explain,
};
use policy::{AddressZone, Direction, Origin, Protocol};

use super::ends::endpoint_at;
use super::{ExplainScene, NodeKnowledge};

/// The answer about one destination: what the sender's egress rules say, then what the receiver's
/// ingress rules say where it is a Pod. The first that refuses decides.
pub(super) fn part(towards: &KnownPeer, scene: ExplainScene<'_>, known: NodeKnowledge<'_>) -> AddressAnswer {
    if let Some(reason) = known.without_rules(towards, scene) {
        return without_rules(towards, reason);
    }
    let egress = scene.from.endpoint.as_ref().map(|endpoint| {
        let context = ExplainContext {
            direction: Direction::Egress,
            endpoint,
            policies: scene.policies,
            inventory: scene.inventory,
            announced: scene.announced,
        };
        decision(Direction::Egress, towards, &explain(context, towards))
    });
    let decisions: Vec<DirectionAnswer> = egress.into_iter().chain(received(towards, scene, known)).collect();
    let with = |verdict| decisions.iter().find(|decision| decision.verdict == verdict);
    let deciding = with(ExplainVerdict::Denied)
        .or_else(|| with(ExplainVerdict::Audited))
        .or(decisions.first());
    let Some(deciding) = deciding.cloned() else {
        return without_rules(
            towards,
            "neither end is a pod with an address of its own, and no policy speaks of others".to_owned(),
        );
    };
    AddressAnswer {
        address: towards.address.map(|(address, _)| address),
        verdict: deciding.verdict,
        direction: Some(deciding.direction),
        reason: deciding.reason,
        policy: deciding.policy,
        kind: deciding.kind,
        rule: deciding.rule,
        lease_left_seconds: decisions.iter().find_map(|decision| decision.lease_left_seconds),
        kernel: None,
        nearest: deciding.nearest,
        decisions,
    }
}

/// What the receiver's ingress rules say; `None` where it is no Pod.
fn received(towards: &KnownPeer, scene: ExplainScene<'_>, known: NodeKnowledge<'_>) -> Option<DirectionAnswer> {
    let (address, _) = towards.address?;
    let receiver = endpoint_at(address, known.pods, scene.inventory)?;
    let source = scene.from.towards(address)?;
    let zone = known.places.of(source);
    let from = KnownPeer {
        address: Some((source, zone)),
        names: Vec::new(),
        traffic: towards.traffic,
    };
    if zone == AddressZone::Host && known.own_node_passes {
        return Some(DirectionAnswer {
            direction: api::TrafficDirection::Ingress,
            peer: Some(source),
            verdict: ExplainVerdict::Allowed,
            reason: "it comes from the pod's own node, which always reaches it".to_owned(),
            policy: None,
            kind: None,
            rule: None,
            lease_left_seconds: None,
            nearest: Vec::new(),
        });
    }
    let context = ExplainContext {
        direction: Direction::Ingress,
        endpoint: &receiver,
        policies: scene.policies,
        inventory: scene.inventory,
        announced: scene.announced,
    };
    Some(decision(Direction::Ingress, &from, &explain(context, &from)))
}

fn without_rules(towards: &KnownPeer, reason: String) -> AddressAnswer {
    AddressAnswer {
        address: towards.address.map(|(address, _)| address),
        verdict: ExplainVerdict::Allowed,
        direction: None,
        reason,
        policy: None,
        kind: None,
        rule: None,
        lease_left_seconds: None,
        kernel: None,
        nearest: Vec::new(),
        decisions: Vec::new(),
    }
}

fn decision(direction: Direction, peer: &KnownPeer, explanation: &Explanation) -> DirectionAnswer {
    let Explanation {
        outcome,
        decision,
        near_misses: misses,
    } = explanation;
    let origin = match decision {
        Decision::Rule { origin, .. } => Some(origin),
        Decision::Closed { by, .. } => by.first(),
        Decision::Open(_) | Decision::Unselected(_) => None,
    };
    let lease = match decision {
        Decision::Rule {
            matched:
                Matched::Name(
                    _,
                    KnownName {
                        lease: LeaseState::Remaining(left),
                        ..
                    },
                ),
            ..
        } => Some(left.as_secs()),
        _ => None,
    };
    let rule = origin
        .map(|Origin { rule, .. }| rule.clone())
        .filter(|rule| !rule.is_empty());
    DirectionAnswer {
        direction: match direction {
            Direction::Egress => api::TrafficDirection::Egress,
            Direction::Ingress => api::TrafficDirection::Ingress,
        },
        peer: peer.address.map(|(address, _)| address),
        verdict: verdict_of(*outcome),
        reason: decision.to_string(),
        policy: origin.map(|origin| origin.policy.to_string()),
        kind: origin.map(|origin| origin.policy.kind.as_str().to_owned()),
        rule,
        lease_left_seconds: lease,
        nearest: misses.iter().map(ToString::to_string).collect(),
    }
}

fn verdict_of(outcome: ExplainOutcome) -> ExplainVerdict {
    match outcome {
        ExplainOutcome::Allowed => ExplainVerdict::Allowed,
        ExplainOutcome::Audited => ExplainVerdict::Audited,
        ExplainOutcome::Denied => ExplainVerdict::Denied,
    }
}

pub(super) fn shown_port(traffic: Option<(Protocol, u16)>) -> String {
    match traffic {
        None => "any port".into(),
        Some((protocol, port)) if protocol.has_ports() => format!("{port}/{protocol}"),
        Some((protocol, kind)) => format!("{protocol} type {kind}"),
    }
}
