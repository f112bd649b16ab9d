//! Connections and requests that were looked into, as events.

use std::net::IpAddr;

use events::{Event, EventDetail, EventEnd, EventSource, EventVerdict, RequestEvent};
use planner::Plan;
use policy::{Direction, EndpointId};

use super::InspectionOutcome;
use super::connection_rules::{ConnectionParties, ConnectionRules};

/// Whose part of the log a connection belongs to.
pub(super) fn part(plan: &Plan, parties: ConnectionParties) -> EventSource {
    match endpoint(plan, parties.source.ip()) {
        Some(_) => EventSource::Pod(parties.source.ip()),
        None => EventSource::Others,
    }
}

/// The event of what became of a hello or a request.
pub(super) fn event(
    plan: &Plan,
    parties: ConnectionParties,
    rules: &ConnectionRules,
    outcome: InspectionOutcome,
    announced: RequestEvent,
) -> Event {
    let ConnectionParties { source, asked } = parties;
    let mut policies: Vec<String> = rules.origins().map(|origin| origin.policy.to_string()).collect();
    policies.sort_unstable();
    policies.dedup();
    let mut origins = rules.origins();
    let rule = match (origins.next(), origins.next()) {
        (Some(only), None) => Some(only.rule.clone()),
        _ => None,
    };
    Event {
        at: clock::wall_now(),
        verdict: match outcome {
            InspectionOutcome::Allowed => EventVerdict::Allowed,
            InspectionOutcome::Audited(_) => EventVerdict::Audited,
            InspectionOutcome::Refused(_) => EventVerdict::Refused,
        },
        direction: Some(match endpoint(plan, source.ip()) {
            Some(_) => Direction::Egress,
            None => Direction::Ingress,
        }),
        source: Some(EventEnd {
            pod: endpoint(plan, source.ip()),
            address: Some(source.ip()),
            ..EventEnd::default()
        }),
        destination: Some(EventEnd {
            pod: endpoint(plan, asked.ip()),
            address: Some(asked.ip()),
            port: Some(asked.port()),
            ..EventEnd::default()
        }),
        policies,
        rule,
        detail: EventDetail::Request(RequestEvent {
            reason: match outcome {
                InspectionOutcome::Allowed => None,
                InspectionOutcome::Audited(refusal) | InspectionOutcome::Refused(refusal) => Some(refusal.to_string()),
            },
            ..announced
        }),
    }
}

fn endpoint(plan: &Plan, address: IpAddr) -> Option<EndpointId> {
    let local = plan.local.iter().find(|it| it.addresses.contains(&address));
    local.map(|endpoint| endpoint.id.clone())
}
