//! What refused a packet, in a person's words.

use std::net::IpAddr;

use enforcer::records::{PacketDetail, RecordedPacket};
use events::EventVerdict;
use names::Name;
use policy::explain::{
    Decision, ExplainContext, ExplainOutcome, Explanation, KnownName, KnownPeer, LeaseState, explain,
};
use policy::{Direction, Origin, Policy, Protocol, Verdict};

use planner::Plan;

/// What decided about a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribution {
    /// The policy, or several.
    pub policy: String,
    /// The rule of it, where one decided; a packet that no rule allows has none.
    pub rule: Option<String>,
}

/// Traffic as policies judge it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JudgedTraffic<'a> {
    /// Whose policies are asked: the sender's or the receiver's.
    pub(crate) direction: Direction,
    /// The address of this end.
    pub(crate) judged: IpAddr,
    /// The other end.
    pub(crate) peer: IpAddr,
    /// The port or type; `None` for what rules do not tell apart.
    pub(crate) traffic: Option<(Protocol, u16)>,
    /// What the peer was resolved from. It is taken to hold the address as it was when the packet
    /// was judged.
    pub(crate) name: Option<&'a Name>,
}

/// The rule that decides about the packet under the plan in force, or the policies that close the
/// direction where none does.
///
/// `name` is what the packet's destination was resolved from.
pub fn by_explanation(plan: &Plan, record: &RecordedPacket, name: Option<&Name>) -> Option<Attribution> {
    let (judged, peer) = match record.direction {
        Direction::Egress => (record.source, record.destination),
        Direction::Ingress => (record.destination, record.source),
    };
    let judged = JudgedTraffic {
        direction: record.direction,
        judged,
        peer,
        traffic: traffic(record),
        name,
    };
    let explained = explanation(plan, judged);
    explained.and_then(|it| refuser(it.decision)).or_else(|| {
        // A name's lease may have begun since: then the explanation is no longer the packet's, and
        // what closes the direction is named instead.
        let row = plan
            .endpoints
            .iter()
            .find(|row| row.addresses.contains(&judged.judged))?;
        attributed_to(row.policies.iter().cloned())
    })
}

/// The verdict on a flow whose first packet has passed, and what decided it.
pub(crate) fn of_passed(plan: &Plan, judged: JudgedTraffic<'_>) -> (EventVerdict, Option<Attribution>) {
    let Some(explanation) = explanation(plan, judged) else {
        return (EventVerdict::Allowed, None);
    };
    match (explanation.outcome, explanation.decision) {
        (ExplainOutcome::Audited, decision) => (EventVerdict::Audited, refuser(decision)),
        (_, Decision::Rule { origin, verdict, .. }) if verdict != Verdict::Deny => {
            (EventVerdict::Allowed, Some(Attribution::of(origin)))
        }
        // Nothing speaks of it, or what opened it is not known any more.
        _ => (EventVerdict::Allowed, None),
    }
}

/// What refuses a packet by this decision, if it does.
fn refuser(decision: Decision) -> Option<Attribution> {
    match decision {
        Decision::Rule {
            origin,
            verdict: Verdict::Deny | Verdict::Inspect,
            ..
        } => Some(Attribution::of(origin)),
        Decision::Closed { by, .. } => attributed_to(by.iter().map(|origin| origin.policy.to_string())),
        Decision::Rule { .. } | Decision::Open(_) | Decision::Unselected(_) => None,
    }
}

fn explanation(plan: &Plan, judged: JudgedTraffic<'_>) -> Option<Explanation> {
    let endpoint = plan.local.iter().find(|it| it.addresses.contains(&judged.judged))?;
    let policies: Vec<&Policy> = plan.policies.iter().map(|policy| &**policy).collect();
    let scene = ExplainContext {
        direction: judged.direction,
        endpoint,
        policies: &policies,
        inventory: &plan.inventory,
        announced: None,
    };
    let known = judged.name.map(|name| KnownName {
        name: name.clone(),
        lease: LeaseState::Assumed,
    });
    let towards = KnownPeer {
        address: Some((judged.peer, plan.places.of(judged.peer))),
        names: known.into_iter().collect(),
        traffic: judged.traffic,
    };
    Some(explain(scene, &towards))
}

impl Attribution {
    fn of(origin: Origin) -> Self {
        Self {
            policy: origin.policy.to_string(),
            rule: Some(origin.rule),
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
