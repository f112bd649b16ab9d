//! What refused a packet, in a person's words.

use enforcer::records::{PacketDetail, RecordedPacket};
use names::Name;
use policy::explain::{Decision, ExplainContext, KnownName, KnownPeer, LeaseState, explain};
use policy::{Direction, Policy, Protocol, Verdict};

use planner::Plan;

/// What decided about a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribution {
    /// The policy, or several.
    pub policy: String,
    /// The rule of it, where one decided; a packet that no rule allows has none.
    pub rule: Option<String>,
}

/// The rule that decides about the packet under the plan in force, or the policies that close the
/// direction where none does.
///
/// `name` is what the packet's destination was resolved from. It is taken to hold the address as it
/// was when the packet was judged.
pub fn by_explanation(plan: &Plan, record: &RecordedPacket, name: Option<&Name>) -> Option<Attribution> {
    let (judged, peer) = match record.direction {
        Direction::Egress => (record.source, record.destination),
        Direction::Ingress => (record.destination, record.source),
    };
    let endpoint = plan.local.iter().find(|it| it.addresses.contains(&judged))?;
    let policies: Vec<&Policy> = plan.policies.iter().map(|policy| &**policy).collect();
    let scene = ExplainContext {
        direction: record.direction,
        endpoint,
        policies: &policies,
        inventory: &plan.inventory,
        announced: None,
    };
    let known = name.map(|name| KnownName {
        name: name.clone(),
        lease: LeaseState::Assumed,
    });
    let towards = KnownPeer {
        address: Some((peer, plan.places.of(peer))),
        names: known.into_iter().collect(),
        traffic: traffic(record),
    };
    // A name's lease may have begun since: then the explanation is no longer the packet's, and what
    // closes the direction is named instead.
    match explain(scene, &towards).decision {
        Decision::Rule {
            origin,
            verdict: Verdict::Deny | Verdict::Inspect,
            ..
        } => Some(Attribution {
            policy: origin.policy.to_string(),
            rule: Some(origin.rule),
        }),
        Decision::Closed { by, .. } => attributed_to(by.iter().map(|origin| origin.policy.to_string())),
        Decision::Rule { .. } | Decision::Open(_) | Decision::Unselected(_) => {
            let row = plan.endpoints.iter().find(|row| row.addresses.contains(&judged))?;
            attributed_to(row.policies.iter().cloned())
        }
    }
}

fn attributed_to(policies: impl Iterator<Item = String>) -> Option<Attribution> {
    let policies: Vec<String> = policies.collect();
    (!policies.is_empty()).then(|| Attribution {
        policy: policies.join(","),
        rule: None,
    })
}

/// The port, or the type of the message; `None` for what rules do not tell apart.
fn traffic(record: &RecordedPacket) -> Option<(Protocol, u16)> {
    let protocol = Protocol::ALL
        .into_iter()
        .find(|protocol| protocol.number() == record.protocol)?;
    match record.detail {
        PacketDetail::Port(port) => Some((protocol, port)),
        PacketDetail::Icmp { kind, .. } => Some((protocol, kind.into())),
        PacketDetail::Unknown => None,
    }
}
