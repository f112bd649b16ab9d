//! A recorded packet as an event.

use std::net::IpAddr;

use enforcer::records::{PacketDetail, RecordedPacket, RecordedVerdict};
use events::{Event, EventDetail, EventEnd, EventVerdict, FlowEvent, FlowNat};
use names::Name;
use planner::Plan;
use policy::{Direction, EndpointId};

use super::Attribution;

/// The event of a packet that was refused, or would have been. `judged` is the Pod whose policies
/// decided, `name` what led to the destination.
pub(super) fn event(
    plan: &Plan,
    record: &RecordedPacket,
    judged: Option<&EndpointId>,
    name: Option<Name>,
    decided: Option<Attribution>,
) -> Event {
    let (port, icmp_type) = match record.detail {
        PacketDetail::Port(port) => (Some(port), None),
        PacketDetail::Icmp { kind, .. } => (None, Some(kind)),
        PacketDetail::Unknown => (None, None),
    };
    let peer = |address: IpAddr| {
        let local = plan.local.iter().find(|it| it.addresses.contains(&address));
        local.map(|endpoint| endpoint.id.clone())
    };
    let (sender, receiver) = match record.direction {
        Direction::Egress => (judged.cloned(), peer(record.destination)),
        Direction::Ingress => (peer(record.source), judged.cloned()),
    };
    let (policies, rule) = decided.map_or_else(Default::default, |it| {
        (it.policy.split(',').map(str::to_owned).collect(), it.rule)
    });
    Event {
        at: clock::wall_now(),
        verdict: match record.verdict {
            RecordedVerdict::Refused => EventVerdict::Refused,
            RecordedVerdict::Audited => EventVerdict::Audited,
        },
        direction: Some(record.direction),
        source: Some(EventEnd {
            pod: sender,
            address: Some(record.source),
            ..EventEnd::default()
        }),
        destination: Some(EventEnd {
            pod: receiver,
            address: Some(record.destination),
            port,
            names: name.into_iter().collect(),
        }),
        policies,
        rule,
        detail: EventDetail::Flow(FlowEvent {
            protocol: record.protocol,
            icmp_type,
            nat: FlowNat::default(),
            totals: None,
        }),
    }
}
