//! Connections and requests that were looked into, as events.

use std::net::IpAddr;

use events::{Event, EventDetail, EventEnd, EventSource, EventVerdict, RequestEvent};
use l7_proxy::Refusal;
use planner::Plan;
use policy::{Direction, EndpointId};

use super::connection_rules::{ConnectionParties, ConnectionRules};

/// Whose part of the log a connection belongs to.
pub(super) fn part(plan: &Plan, parties: ConnectionParties) -> EventSource {
    match endpoint(plan, parties.source.ip()) {
        Some(_) => EventSource::Pod(parties.source.ip()),
        None => EventSource::Others,
    }
}

/// The event of a hello or a request that passed or was refused.
pub(super) fn event(
    plan: &Plan,
    parties: ConnectionParties,
    rules: &ConnectionRules,
    refused: Option<Refusal>,
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
        verdict: match refused {
            None => EventVerdict::Allowed,
            Some(_) => EventVerdict::Refused,
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
            reason: refused.map(|refusal| refusal.to_string()),
            ..announced
        }),
    }
}

fn endpoint(plan: &Plan, address: IpAddr) -> Option<EndpointId> {
    let local = plan.local.iter().find(|it| it.addresses.contains(&address));
    local.map(|endpoint| endpoint.id.clone())
}
