//! Packets that policy refused, or would have refused, with pod, name and policy.
//!
//! `enforcer::records` hears bare packets; here they become rows that a person can use: the pod
//! from the plan in force, the name from what the pod was answered ([`AnswerLog`]), the policy from
//! an attribution that the caller chooses. Rows are samples ([`RecentPackets`] is bounded, and
//! records may be lost under load); totals are in the metrics.

mod answer_log;
mod attribution;
mod fair_lru;
mod flow_events;
mod listener_task;
mod recent_packets;
mod refused_lookups;
mod seen;
mod withheld;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use api::{RecordRow, RecordsSummary};
use clock::{Time, WallTime};
use enforcer::records::{PacketDetail, RecordEvent, RecordedPacket, RecordedVerdict};
use events::{AgentEvent, EventLog, EventSource};
use names::Name;
use parking_lot::Mutex;
use policy::{Direction, EndpointId};

use crate::metrics::Metrics;
use planner::Plan;

pub use answer_log::AnswerLog;
pub(crate) use attribution::JudgedTraffic;
pub(crate) use attribution::of_passed;
pub use attribution::{Attribution, by_explanation};
pub use listener_task::listen;
pub use recent_packets::{PacketGroup, RecentPackets};
pub use refused_lookups::RefusedLookups;
pub use seen::wall_text;
pub use withheld::{WithheldAnswer, WithheldAnswers};

/// What is known of recorded packets, for whoever writes it and whoever shows it.
#[derive(Debug)]
pub struct Recorder {
    answer_log: Arc<AnswerLog>,
    recent: Mutex<RecentPackets>,
    audited: AtomicU64,
    refused: AtomicU64,
    overruns: AtomicU64,
    state: Mutex<RecorderState>,
    metrics: Arc<Metrics>,
    events: Arc<EventLog>,
}

/// Whether packets are recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecorderState {
    /// It is not asked for.
    Off,
    /// Packets are recorded.
    On,
    /// They should be and are not: why.
    Failed(String),
}

impl Recorder {
    /// Nothing recorded yet.
    pub fn new(metrics: Arc<Metrics>, events: Arc<EventLog>) -> Self {
        Self {
            answer_log: Arc::default(),
            recent: Mutex::default(),
            audited: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            overruns: AtomicU64::new(0),
            state: Mutex::new(RecorderState::Off),
            metrics,
            events,
        }
    }

    /// What endpoints were answered, which the gate notes.
    pub fn answer_log(&self) -> Arc<AnswerLog> {
        Arc::clone(&self.answer_log)
    }

    /// Takes in what the listener heard, under the plan in force.
    pub fn hear(
        &self,
        now: Time,
        heard: RecordEvent<'_>,
        plan: &Plan,
        attribute: impl Fn(&Plan, &RecordedPacket, Option<&Name>) -> Option<Attribution>,
    ) {
        match heard {
            RecordEvent::Records(records) => {
                let mut recent = self.recent.lock();
                for record in records {
                    let endpoint = judged(plan, record);
                    let namespace = endpoint.map_or("", |id| &id.namespace);
                    self.count(record.direction, record.verdict, namespace);
                    // A name leads to a destination, and never to who sends.
                    let asks = endpoint.filter(|_| record.direction == Direction::Egress);
                    let name = asks.and_then(|id| self.answer_log.name(id, record.destination));
                    let decided = recent.note(now, *record, endpoint, name.clone(), |record, name| {
                        attribute(plan, record, name)
                    });
                    // The kernel has sampled them, each source by itself.
                    let part = endpoint.map_or(EventSource::Others, |_| EventSource::Pod(record.governed_end()));
                    self.events
                        .record(part, flow_events::event(plan, record, endpoint, name, decided));
                }
            }
            RecordEvent::Overrun => {
                self.overruns.fetch_add(1, Ordering::Relaxed);
                self.events
                    .record(EventSource::Node, crate::news::of_agent(AgentEvent::RecordsLost));
            }
            // Not ours to count.
            RecordEvent::Foreign(_) => {}
        }
    }

    /// Says whether packets are recorded.
    pub fn set_state(&self, state: RecorderState) {
        if let RecorderState::Failed(why) = &state {
            let news = AgentEvent::NotRecording(why.clone());
            self.events.record(EventSource::Node, crate::news::of_agent(news));
        }
        *self.state.lock() = state;
    }

    /// The distinct records of late, the most recent first.
    pub fn rows(&self, now: Time, wall: WallTime) -> Vec<RecordRow> {
        let recent = self.recent.lock();
        let rows = recent.rows();
        rows.into_iter()
            .map(|(record, name, row)| show((now, wall), record, name, row))
            .collect()
    }

    /// Totals, and whether packets are recorded at all.
    pub fn summary(&self) -> RecordsSummary {
        let state = self.state.lock().clone();
        RecordsSummary {
            on: state == RecorderState::On,
            failure: match state {
                RecorderState::Failed(why) => Some(why),
                RecorderState::Off | RecorderState::On => None,
            },
            audited: self.audited.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            overruns: self.overruns.load(Ordering::Relaxed),
            left_out: self.events.left_out(),
            ..RecordsSummary::default()
        }
    }

    fn count(&self, direction: Direction, verdict: RecordedVerdict, namespace: &str) {
        let total = match verdict {
            RecordedVerdict::Audited => &self.audited,
            RecordedVerdict::Refused => &self.refused,
        };
        total.fetch_add(1, Ordering::Relaxed);
        self.metrics.record(direction, verdict, namespace);
    }
}

/// The Pod whose policies decided about the packet.
fn judged<'a>(plan: &'a Plan, record: &RecordedPacket) -> Option<&'a EndpointId> {
    match record.direction {
        Direction::Egress => plan.governed.get(&record.source).map(|governed| &governed.id),
        Direction::Ingress => {
            let address = record.destination;
            let is_governed = plan.desired.dispatch.ingress.contains_key(&address);
            let endpoint = || plan.local.iter().find(|it| it.addresses.contains(&address));
            is_governed.then(endpoint).flatten().map(|endpoint| &endpoint.id)
        }
    }
}

fn show((now, wall): (Time, WallTime), record: &RecordedPacket, name: Option<&Name>, row: &PacketGroup) -> RecordRow {
    let (port, icmp_type) = match record.detail {
        PacketDetail::Port(port) => (Some(port), None),
        PacketDetail::Icmp { kind, .. } => (None, Some(kind)),
        PacketDetail::Unknown => (None, None),
    };
    RecordRow {
        kind: "flow".into(),
        seen: row.seen().shown(now, wall),
        direction: record.direction.as_str().into(),
        verdict: match record.verdict {
            RecordedVerdict::Audited => "audited",
            RecordedVerdict::Refused => "refused",
        }
        .into(),
        pod: row.endpoint.as_ref().map(ToString::to_string),
        source: record.source,
        destination: record.destination,
        protocol: protocol(record.protocol),
        port,
        icmp_type,
        name: name.map(ToString::to_string),
        policy: row.attribution.as_ref().map(|it| it.policy.clone()),
        rule: row.attribution.as_ref().and_then(|it| it.rule.clone()),
    }
}

/// IANA "Assigned Internet Protocol Numbers"; those without a name here by their number.
pub(crate) fn protocol(number: u8) -> String {
    match number {
        1 => "ICMP",
        6 => "TCP",
        17 => "UDP",
        33 => "DCCP",
        47 => "GRE",
        50 => "ESP",
        58 => "ICMPv6",
        132 => "SCTP",
        136 => "UDPLite",
        _ => return number.to_string(),
    }
    .into()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use api::Sightings;
    use policy::Endpoint;
    use policy::labels::Labels;

    use planner::Governed;

    use crate::inspect::Figures;
    use crate::samples::empty_plan;

    use super::*;

    const POD: [u8; 4] = [10, 0, 0, 2];

    fn recorder(metrics: Arc<Metrics>) -> Recorder {
        Recorder::new(metrics, Arc::new(EventLog::new(events::RingLimits::default())))
    }

    /// A plan with one governed address, [`POD`].
    fn plan() -> Plan {
        let mut plan = empty_plan();
        Arc::make_mut(&mut plan.governed).insert(POD.into(), governed());
        plan
    }

    fn governed() -> Arc<Governed> {
        Arc::new(Governed {
            id: pod(),
            program: policy::ProgramId(1),
            questions: None,
        })
    }

    fn pod() -> EndpointId {
        EndpointId {
            namespace: "shop".into(),
            name: "web".into(),
        }
    }

    fn record(verdict: RecordedVerdict, source: [u8; 4], protocol: u8, detail: PacketDetail) -> RecordedPacket {
        RecordedPacket {
            direction: Direction::Egress,
            verdict,
            source: source.into(),
            destination: [192, 0, 2, 1].into(),
            protocol,
            detail,
        }
    }

    fn named(_: &Plan, _: &RecordedPacket, name: Option<&Name>) -> Option<Attribution> {
        Some(Attribution {
            policy: "shop/egress".into(),
            rule: name.map(|name| format!("for {name}")),
        })
    }

    #[test]
    fn a_record_is_shown_with_pod_name_and_policy() {
        let recorder = recorder(Arc::new(Metrics::new()));
        let destination = IpAddr::from([192, 0, 2, 1]);
        let name = Name::parse("api.example").unwrap();
        recorder.answer_log().saw(&governed(), &name, [destination]);
        let records = [record(RecordedVerdict::Audited, POD, 6, PacketDetail::Port(443)); 2];
        recorder.hear(Time::from_millis(1_000), RecordEvent::Records(&records), &plan(), named);
        assert_eq!(
            recorder.rows(Time::from_millis(3_500), WallTime::from_millis(1_796_040_000_000)),
            [RecordRow {
                kind: "flow".into(),
                seen: Sightings {
                    last_seen: "2026-11-30T11:59:57.500Z".into(),
                    first_seen: "2026-11-30T11:59:57.500Z".into(),
                    last_seen_ms_ago: 2_500,
                    first_seen_ms_ago: 2_500,
                    count: 2,
                },
                direction: "egress".into(),
                verdict: "audited".into(),
                pod: Some("shop/web".into()),
                source: POD.into(),
                destination,
                protocol: "TCP".into(),
                port: Some(443),
                icmp_type: None,
                name: Some("api.example".into()),
                policy: Some("shop/egress".into()),
                rule: Some("for api.example".into()),
            }]
        );
    }

    #[test]
    fn at_ingress_the_receiver_is_the_pod_and_no_name_is_its_peers() {
        let recorder = recorder(Arc::new(Metrics::new()));
        let receiver = IpAddr::from([192, 0, 2, 1]);
        let mut plan = plan();
        plan.local = [Endpoint {
            id: pod(),
            addresses: [receiver].into(),
            labels: Labels::default(),
            ports: Vec::new(),
        }]
        .into();
        let name = Name::parse("api.example").unwrap();
        recorder
            .answer_log()
            .saw(&governed(), &name, [IpAddr::from([10, 0, 0, 9])]);
        let at_ingress = RecordedPacket {
            direction: Direction::Ingress,
            ..record(RecordedVerdict::Refused, [10, 0, 0, 9], 6, PacketDetail::Port(6379))
        };
        let hear = |plan: &Plan| {
            recorder.hear(Time::from_millis(0), RecordEvent::Records(&[at_ingress]), plan, named);
            let rows = recorder.rows(Time::from_millis(0), WallTime::default());
            let row = rows.first().unwrap();
            (row.direction.clone(), row.pod.clone(), row.name.clone(), row.source)
        };
        let peer = IpAddr::from([10, 0, 0, 9]);
        assert_eq!(hear(&plan), ("ingress".into(), None, None, peer), "nobody governs it");
        let desired = Arc::make_mut(&mut plan.desired);
        desired.dispatch.ingress.insert(receiver, policy::ProgramId(1));
        assert_eq!(hear(&plan), ("ingress".into(), Some("shop/web".into()), None, peer));
    }

    #[test]
    fn a_sender_that_is_no_pod_has_an_address_and_no_name() {
        let recorder = recorder(Arc::new(Metrics::new()));
        let ping = PacketDetail::Icmp { kind: 8, code: 0 };
        let records = [
            record(RecordedVerdict::Refused, [10, 0, 0, 9], 1, ping),
            record(RecordedVerdict::Refused, [10, 0, 0, 9], 4, PacketDetail::Unknown),
        ];
        recorder.hear(
            Time::from_millis(0),
            RecordEvent::Records(&records),
            &plan(),
            |_, _, _| None,
        );
        let rows = recorder.rows(Time::from_millis(0), WallTime::default());
        let told: Vec<_> = rows
            .iter()
            .map(|row| (row.pod.as_deref(), row.protocol.as_str(), row.port, row.icmp_type))
            .collect();
        assert_eq!(told, [(None, "ICMP", None, Some(8)), (None, "4", None, None)]);
        assert!(rows.iter().all(|row| row.name.is_none() && row.policy.is_none()));
    }

    #[test]
    fn packets_and_losses_are_counted() {
        let metrics = Arc::new(Metrics::new());
        let recorder = recorder(Arc::clone(&metrics));
        let records = [
            record(RecordedVerdict::Audited, POD, 6, PacketDetail::Port(443)),
            record(RecordedVerdict::Refused, POD, 6, PacketDetail::Port(25)),
            record(RecordedVerdict::Refused, POD, 6, PacketDetail::Port(25)),
        ];
        for heard in [
            RecordEvent::Records(&records),
            RecordEvent::Overrun,
            RecordEvent::Foreign(7),
        ] {
            recorder.hear(Time::from_millis(0), heard, &plan(), named);
        }
        let summary = recorder.summary();
        assert_eq!((summary.audited, summary.refused, summary.overruns), (1, 2, 1));
        let text = metrics.render(&Figures::default());
        for line in [
            "namegate_audited_packets_total{direction=\"egress\",namespace=\"shop\"} 1",
            "namegate_refused_records_total{direction=\"egress\",namespace=\"shop\"} 2",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn whether_packets_are_recorded_is_told() {
        let recorder = recorder(Arc::new(Metrics::new()));
        let told = |recorder: &Recorder| (recorder.summary().on, recorder.summary().failure);
        assert_eq!(told(&recorder), (false, None));
        recorder.set_state(RecorderState::On);
        assert_eq!(told(&recorder), (true, None));
        recorder.set_state(RecorderState::Failed("the group is taken".into()));
        assert_eq!(told(&recorder), (false, Some("the group is taken".into())));
    }
}
