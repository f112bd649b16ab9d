//! What the kernel tells of flows as events. Pure.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use ahash::HashMap;
use clock::{Time, WallTime};
use enforcer::DesiredState;
use enforcer::conntrack::CountedTraffic;
use enforcer::revocation::{Flow, FlowRole, FlowRoles};
use events::{
    Event, EventDetail, EventEnd, EventKind, EventLog, EventSource, EventVerdict, FlowEvent, FlowNat, FlowTotals,
};
use lru::LruCache;
use names::Name;
use planner::Plan;
use policy::{Direction, Endpoint, EndpointId, Protocol};

use crate::records::{AnswerLog, Attribution, JudgedTraffic, of_passed};

/// The ends of so many flows can be told; of further ones the oldest is given up. Some 500 bytes
/// each.
const OPEN: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();

/// So many decisions are remembered, each for [`DECISION_AGE`].
const DECISIONS: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();

/// How old a decision may be: a policy that was renamed leaves its program as it is.
const DECISION_AGE: Duration = Duration::from_secs(1);

/// Turns what the kernel tells of flows into events.
///
/// Shown are flows with a Pod of this node at an end. Intercepted lookups are not: these are events
/// of their own. Of a connection that is looked into, the client's is shown.
#[derive(Debug)]
pub(super) struct FlowTracker {
    log: Arc<EventLog>,
    answer_log: Arc<AnswerLog>,
    /// Whether packets that audited policies would refuse are events already.
    records_audited: bool,
    /// Flows whose beginning was recorded.
    open: LruCache<Flow, OpenFlow>,
    decisions: LruCache<DecisionKey, (EventVerdict, Option<Attribution>, Time)>,
    scene: Option<TrackedScene>,
}

#[derive(Debug)]
struct OpenFlow {
    began: Time,
    source: EventSource,
    /// As it was recorded when the flow began.
    event: Event,
}

/// What a decision depends on besides the plan.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct DecisionKey {
    direction: Direction,
    judged: IpAddr,
    peer: IpAddr,
    protocol: u8,
    traffic: Option<u16>,
    name: Option<Name>,
}

/// What is looked up in a plan for every flow.
#[derive(Debug)]
struct TrackedScene {
    desired: Arc<DesiredState>,
    local: Arc<[Endpoint]>,
    roles: FlowRoles,
    /// Positions in `local`.
    by_address: HashMap<IpAddr, usize>,
}

impl FlowTracker {
    pub(super) fn new(log: Arc<EventLog>, answer_log: Arc<AnswerLog>, records_audited: bool) -> Self {
        Self {
            log,
            answer_log,
            records_audited,
            open: LruCache::new(OPEN),
            decisions: LruCache::new(DECISIONS),
            scene: None,
        }
    }

    /// A flow began, whose replies go to `sent_as`: what NAT made of its source.
    pub(super) fn began(&mut self, tracked: Flow, sent_as: SocketAddr, plan: &Plan, (now, wall): (Time, WallTime)) {
        let mut flow = tracked;
        let scene = self.scene(plan);
        match scene.roles.of(&scene.desired, &flow) {
            FlowRole::Direct => {}
            FlowRole::HandedOver => flow.destination = flow.asked,
            FlowRole::Lookup | FlowRole::Resumed => return,
        }
        let [from, to] = [flow.source, flow.destination].map(|end| scene.pod(end.ip()));
        let (direction, judged) = match (&from, &to) {
            (Some(_), _) => (Direction::Egress, flow.source.ip()),
            (None, Some(_)) => (Direction::Ingress, flow.destination.ip()),
            (None, None) => return,
        };
        let source = EventSource::Pod(judged);
        if !self.log.takes(source, EventKind::Flow, now) {
            return;
        }
        let led = from.as_ref().and_then(|pod| {
            let ends = [flow.asked.ip(), flow.destination.ip()];
            ends.into_iter().find_map(|address| self.answer_log.name(pod, address))
        });
        let (verdict, decided) = self.decision(plan, direction, &flow, led.as_ref(), now);
        let (policies, rule) = decided.map_or_else(Default::default, |it| {
            (it.policy.split(',').map(str::to_owned).collect(), it.rule)
        });
        let end = |address: SocketAddr, pod: Option<EndpointId>| EventEnd {
            pod,
            address: Some(address.ip()),
            port: Some(address.port()).filter(|port| *port != 0),
            ..EventEnd::default()
        };
        let event = Event {
            at: wall,
            verdict,
            direction: Some(direction),
            source: Some(end(flow.source, from)),
            destination: Some(EventEnd {
                names: led.into_iter().collect(),
                ..end(flow.destination, to)
            }),
            policies,
            rule,
            detail: EventDetail::Flow(FlowEvent {
                protocol: flow.protocol,
                icmp_type: flow.icmp_type,
                nat: FlowNat {
                    asked: Some(flow.asked).filter(|asked| *asked != flow.destination && flow.icmp_type.is_none()),
                    sent_as: Some(sent_as).filter(|sent_as| *sent_as != flow.source && flow.icmp_type.is_none()),
                },
                totals: None,
            }),
        };
        if verdict != EventVerdict::Audited || !self.records_audited {
            self.log.record(source, event.clone());
        }
        let open = OpenFlow {
            began: now,
            source,
            event,
        };
        let given_up = self.open.push(tracked, open);
        // Of a flow with the same ends the end was not heard.
        if given_up.is_some_and(|(former, _)| former != tracked) {
            self.log.leave_out(1);
        }
    }

    /// A flow ended, after it has carried so much.
    pub(super) fn ended(&mut self, tracked: Flow, counted: Option<CountedTraffic>, (now, wall): (Time, WallTime)) {
        let Some(open) = self.open.pop(&tracked) else {
            return;
        };
        let OpenFlow {
            began,
            source,
            mut event,
        } = open;
        event.at = wall;
        if let EventDetail::Flow(flow) = &mut event.detail {
            flow.totals = Some(FlowTotals {
                packets: counted.map(|counted| counted.packets),
                bytes: counted.map(|counted| counted.bytes),
                duration: now.since(began),
            });
        }
        self.log.record(source, event);
    }

    fn decision(
        &mut self,
        plan: &Plan,
        direction: Direction,
        flow: &Flow,
        name: Option<&Name>,
        now: Time,
    ) -> (EventVerdict, Option<Attribution>) {
        let (source, destination) = (flow.source.ip(), flow.destination.ip());
        let (judged, peer) = match direction {
            Direction::Egress => (source, destination),
            Direction::Ingress => (destination, source),
        };
        let known = Protocol::ALL.into_iter().find(|known| known.number() == flow.protocol);
        let traffic = known.and_then(|protocol| match protocol {
            Protocol::Icmp | Protocol::Icmpv6 => Some((protocol, flow.icmp_type?.into())),
            Protocol::Tcp | Protocol::Udp | Protocol::Sctp => Some((protocol, flow.destination.port())),
        });
        let key = DecisionKey {
            direction,
            judged,
            peer,
            protocol: flow.protocol,
            traffic: traffic.map(|(_, port)| port),
            name: name.cloned(),
        };
        if let Some((verdict, decided, at)) = self.decisions.get(&key)
            && now.since(*at) < DECISION_AGE
        {
            return (*verdict, decided.clone());
        }
        let asked = JudgedTraffic {
            direction,
            judged,
            peer,
            traffic,
            name,
        };
        let (verdict, decided) = of_passed(plan, asked);
        self.decisions.put(key, (verdict, decided.clone(), now));
        (verdict, decided)
    }

    fn scene(&mut self, plan: &Plan) -> &TrackedScene {
        let is_current = self
            .scene
            .as_ref()
            .is_some_and(|scene| Arc::ptr_eq(&scene.desired, &plan.desired) && Arc::ptr_eq(&scene.local, &plan.local));
        if !is_current {
            self.scene = None;
            self.decisions.clear();
        }
        self.scene.get_or_insert_with(|| TrackedScene::of(plan))
    }
}

impl TrackedScene {
    fn of(plan: &Plan) -> Self {
        let local = Arc::clone(&plan.local);
        let addresses = local.iter().enumerate();
        let by_address = addresses.flat_map(|(at, endpoint)| endpoint.addresses.iter().map(move |it| (*it, at)));
        Self {
            by_address: by_address.collect(),
            roles: FlowRoles::new(&plan.desired),
            desired: Arc::clone(&plan.desired),
            local,
        }
    }

    fn pod(&self, address: IpAddr) -> Option<EndpointId> {
        let endpoint = self.local.get(*self.by_address.get(&address)?);
        endpoint.map(|endpoint| endpoint.id.clone())
    }
}

#[cfg(test)]
mod tests {
    use enforcer::ResolverBinding;
    use events::RingLimits;
    use policy::labels::Labels;

    use crate::samples::{empty_plan, flow};

    use super::*;

    /// A plan with one Pod, whose lookups to 192.0.2.53 are intercepted.
    fn plan() -> Plan {
        let mut plan = empty_plan();
        let address: IpAddr = [10, 0, 0, 2].into();
        plan.local = [Endpoint {
            id: "shop/web".parse().unwrap(),
            addresses: [address].into(),
            labels: Labels::default(),
            ports: Vec::new(),
        }]
        .into();
        let desired = Arc::make_mut(&mut plan.desired);
        desired.intercepted.insert(address);
        desired.resolvers.push(ResolverBinding {
            asked: "192.0.2.53:53".parse().unwrap(),
            listener: "169.254.53.53:15000".parse().unwrap(),
        });
        plan
    }

    fn moment(seconds: u64) -> (Time, WallTime) {
        (
            Time::from_millis(seconds * 1_000),
            WallTime::from_millis(seconds * 1_000),
        )
    }

    fn tracker() -> (FlowTracker, Arc<EventLog>) {
        let log = Arc::new(EventLog::new(RingLimits::default()));
        (FlowTracker::new(Arc::clone(&log), Arc::default(), true), log)
    }

    fn told(log: &EventLog) -> Vec<FlowEvent> {
        let flows = log
            .remembered()
            .events
            .into_iter()
            .filter_map(|(_, event)| match event.detail {
                EventDetail::Flow(flow) => Some(flow),
                _ => None,
            });
        flows.collect()
    }

    #[test]
    fn a_flow_of_a_pod_is_told_when_it_begins_and_when_it_ends_with_both_sides_of_a_nat() {
        let (mut tracker, log) = tracker();
        let flow = flow("10.0.0.2:4000", "198.51.100.1:8080", "10.96.0.7:80");
        let sent_as: SocketAddr = "192.0.2.9:4000".parse().unwrap();
        tracker.began(flow, sent_as, &plan(), moment(1));
        let counted = CountedTraffic { packets: 7, bytes: 700 };
        tracker.ended(flow, Some(counted), moment(4));
        let nat = FlowNat {
            asked: Some(flow.asked),
            sent_as: Some(sent_as),
        };
        let totals = FlowTotals {
            packets: Some(7),
            bytes: Some(700),
            duration: Duration::from_secs(3),
        };
        let seen: Vec<_> = told(&log).into_iter().map(|flow| (flow.nat, flow.totals)).collect();
        assert_eq!(seen, [(nat, None), (nat, Some(totals))]);
        let (_, began) = log.remembered().events.swap_remove(0);
        let ends = [&began.source, &began.destination].map(|end| end.clone().unwrap());
        assert_eq!(ends.each_ref().map(|end| end.port), [Some(4000), Some(8080)]);
        assert_eq!(
            ends.map(|end| end.pod.map(|pod| pod.to_string())),
            [Some("shop/web".into()), None]
        );
    }

    #[test]
    fn lookups_and_what_is_no_pods_are_not_told() {
        let (mut tracker, log) = tracker();
        let plan = plan();
        for flow in [
            flow("10.0.0.2:4000", "169.254.53.53:15000", "192.0.2.53:53"),
            flow("10.0.0.9:4000", "198.51.100.1:80", "198.51.100.1:80"),
        ] {
            tracker.began(flow, flow.source, &plan, moment(1));
            tracker.ended(flow, None, moment(2));
        }
        assert_eq!(told(&log), []);
        let incoming = flow("10.0.0.9:4000", "10.0.0.2:80", "10.0.0.2:80");
        tracker.began(incoming, incoming.source, &plan, moment(1));
        let direction = log.remembered().events.first().and_then(|(_, event)| event.direction);
        assert_eq!(direction, Some(Direction::Ingress));
    }

    #[test]
    fn of_flows_that_were_too_many_the_ends_are_not_told_either_and_both_are_counted_once() {
        let (mut tracker, log) = tracker();
        let plan = plan();
        let flows: Vec<Flow> = (0..500)
            .map(|port| {
                flow(
                    &format!("10.0.0.2:{}", 4000 + port),
                    "198.51.100.1:80",
                    "198.51.100.1:80",
                )
            })
            .collect();
        for flow in &flows {
            tracker.began(*flow, flow.source, &plan, moment(1));
        }
        for flow in &flows {
            tracker.ended(*flow, None, moment(2));
        }
        assert_eq!((told(&log).len(), log.left_out()), (400, 300), "a burst of 200");
    }
}
