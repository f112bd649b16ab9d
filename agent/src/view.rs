//! What the running agent shows of itself, read from its handles.

use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::{
    AddressAnswer, AgentStatus, AnsweredNameRow, EventRow, ExplainAnswer, LookupAnswer, NameRow, OtherClusterStatus,
    Records, RepairStatus, ReportRow, RuleRow, SuggestionAnswer, SupervisorStatus, TrafficDirection,
};
use clock::Time;
use cluster::kubernetes::health::SourceHealth;
use cluster::{Progress, ReportState};
use dns_proxy::Transport;
use enforcer::audit::Integrity;
use enforcer::conntrack;
use enforcer::revocation::Flow;
use enforcer::{Element, FailMode, Interception, KernelTiers, LocalHost};
use events::{Event, EventLog, RecordedTotals};
use fqdn_cache::Teacher;
use hubble::ObservedNode;
use names::Name;
use policy::explain::shown_ports;
use policy::question::QuestionVerdict;
use policy::{EndpointId, Policy, ProgramId};
use state_dir::StateDir;
use tokio::sync::watch;

use crate::event_rows;
use crate::explain::{self, ExplainRequest, ExplainScene, ExplainTarget, NodeKnowledge, Sender};
use crate::gate;
use crate::handles::AgentHandles;
use crate::inspect::{Figures, Inspect, OtherClusterGauges};
use crate::live_flows::{self, FlowQuestion};
use crate::masked_peers::{self, MaskingScene};
use crate::revocation;
use crate::rule_use;
use crate::suggestion::{self, SuggestionRequest};
use planner::{Governed, Plan};

/// The running agent, seen from outside.
pub struct View {
    handles: AgentHandles,
    progress: watch::Receiver<Progress>,
    integrity: watch::Receiver<Integrity>,
    /// Of a source that can be away.
    health: Option<SourceHealth>,
    /// The same of other clusters, by name.
    others: Vec<(Arc<str>, Option<SourceHealth>)>,
    started: Instant,
}

impl View {
    /// A view of these handles, which start now.
    pub fn new(
        handles: AgentHandles,
        progress: watch::Receiver<Progress>,
        health: Option<SourceHealth>,
        others: Vec<(Arc<str>, Option<SourceHealth>)>,
    ) -> Self {
        Self {
            integrity: handles.enforcer.integrity(),
            handles,
            progress,
            health,
            others,
            started: Instant::now(),
        }
    }

    /// Adds the live flows between the two ends.
    fn tell_flows(&self, plan: &Plan, from: &Sender, asked: &ExplainRequest, told: &mut ExplainAnswer) {
        let mut destinations: BTreeSet<IpAddr> = told.parts.iter().filter_map(|part| part.address).collect();
        if let ExplainTarget::Address(address) = &asked.to {
            destinations.insert(*address);
        }
        let ends: HashSet<IpAddr> = from.addresses.iter().copied().collect();
        let entries = match conntrack::flows_of(&ends) {
            Ok(entries) => entries,
            Err(error) => {
                told.remarks.push(format!("live flows cannot be read: {error}"));
                return;
            }
        };
        let question = FlowQuestion {
            sources: &from.addresses,
            destinations: &destinations,
            traffic: asked.traffic,
        };
        let revoke = self.handles.settings.revoke;
        let (flows, more) = revocation::with_judge(&self.handles, plan, |judge| {
            live_flows::answers(
                entries.iter().map(Flow::of),
                question,
                |flow| judge.verdict(flow),
                revoke,
            )
        });
        told.flows = flows;
        if more > 0 {
            told.remarks.push(format!("{more} more live flows are not shown"));
        }
    }

    fn other_clusters(&self, plan: &Plan, progress: &Progress) -> Vec<OtherClusterStatus> {
        if progress.others.is_empty() {
            return Vec::new();
        }
        let policies: Vec<&Policy> = plan.policies.iter().map(|policy| &**policy).collect();
        let scene = MaskingScene {
            local: &plan.local,
            policies: &policies,
            inventory: &plan.inventory,
        };
        let records = self.handles.recorder.rows(clock::now(), clock::wall_now());
        let mut masked = masked_peers::find(&records, scene);
        let figures = progress.others.iter();
        let statuses = figures.map(|other| OtherClusterStatus {
            name: other.name.to_string(),
            pods: other.pods,
            nodes: other.nodes,
            contested: other.contested.clone(),
            masked: masked.remove(&*other.name).into_iter().flatten().collect(),
            source: self.health_of(&other.name).map(SourceHealth::status),
        });
        statuses.collect()
    }

    fn health_of(&self, other: &str) -> Option<&SourceHealth> {
        let known = self.others.iter().find(|(name, _)| **name == *other);
        known.and_then(|(_, health)| health.as_ref())
    }

    fn state_troubles(&self) -> Vec<String> {
        let directory = self.handles.settings.state_dir.as_ref();
        directory.map(StateDir::troubles).unwrap_or_default()
    }

    fn silent_upstreams(&self) -> Vec<String> {
        let now = clock::now();
        let silent = self.handles.gate.silent_upstreams().into_iter();
        silent
            .map(|((server, transport), since)| {
                let age = Duration::from_secs(now.since(since).as_secs());
                let over = match transport {
                    Transport::Udp => "",
                    _ => " over connections",
                };
                format!("{server}{over}, for {}", humantime::format_duration(age))
            })
            .collect()
    }

    /// Names and name–address pairs with live leases.
    fn leases(&self) -> (usize, usize) {
        self.handles.ledger.lock().size()
    }
}

impl View {
    /// May the name be asked of the node's resolver?
    fn lookup(&self, plan: &Plan, governed: &Governed, name: &Name) -> LookupAnswer {
        let Some(questions) = &governed.questions else {
            return LookupAnswer {
                allowed: false,
                reason: Some("several Pods claim its address".into()),
            };
        };
        let resolver = plan.desired.resolvers.first().map(|binding| binding.asked);
        let resolver = resolver.or_else(|| {
            let settings = &self.handles.settings;
            settings.upstreams.first().map(|first| settings.asked_by_pods(*first))
        });
        let resolver = resolver.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 53)));
        match questions.judge(resolver, name) {
            QuestionVerdict::Allowed => LookupAnswer {
                allowed: true,
                reason: None,
            },
            QuestionVerdict::AllowedIfLearned(address) => LookupAnswer {
                allowed: self
                    .handles
                    .ledger
                    .lock()
                    .is_learned(clock::now(), address, |teacher| plan.teaches(teacher, governed)),
                reason: Some(format!("only while {address} is learned")),
            },
            QuestionVerdict::Denied(denial) => LookupAnswer {
                allowed: false,
                reason: Some(gate::denial_reason(denial, name, governed)),
            },
        }
    }
}

/// An address of a pod of another node whose ingress rules are told.
fn received_elsewhere(plan: &Plan, told: &ExplainAnswer) -> Option<IpAddr> {
    let is_received = |part: &&AddressAnswer| {
        let mut decisions = part.decisions.iter();
        decisions.any(|decision| decision.direction == TrafficDirection::Ingress)
    };
    let received = told.parts.iter().filter(is_received).filter_map(|part| part.address);
    received.into_iter().find(|address| !plan.is_local(*address))
}

/// What the sets hold of an address.
fn kernel_says<'a>(tiers: Option<&KernelTiers>, elements: impl Iterator<Item = &'a (Element, Time)>) -> String {
    let now = clock::now();
    let shared = tiers.map_or(&[][..], |tiers| tiers.classifier.shared_names());
    let shown = elements.map(|(element, end)| {
        let names = shared.iter().find(|names| names.id == element.set.program);
        let ports = match (element.key.port, names) {
            (Some((protocol, port)), _) => format!("{port}/{protocol}"),
            // The set holds the address alone; which ports count is for each program to say.
            (None, Some(names)) => shown_ports(&names.group.ports),
            (None, None) => "a range, or every port".into(),
        };
        let set = element.set;
        format!("{ports} in {set}, {} s left", end.since(now).as_secs())
    });
    let shown: Vec<String> = shown.collect();
    match shown.is_empty() {
        true => "no set holds the address".into(),
        false => shown.join("; "),
    }
}

impl Inspect for View {
    fn status(&self) -> AgentStatus {
        let plan = Arc::clone(&self.handles.gate.in_force().plan);
        let readiness = self.readiness();
        let progress = self.progress.borrow().clone();
        let integrity = self.integrity.borrow().clone();
        let (names, addresses) = self.leases();
        let writer = self.handles.enforcer.stats();
        AgentStatus {
            version: env!("CARGO_PKG_VERSION").into(),
            node: self.handles.settings.node.clone(),
            cluster: self.handles.settings.cluster_name.clone(),
            other_clusters: self.other_clusters(&plan, &progress),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            supervisor: self.handles.supervision.as_ref().map(|supervision| SupervisorStatus {
                pid: supervision.supervisor().unwrap_or_default(),
                deaths: supervision.deaths(),
            }),
            ready: readiness.is_ok(),
            not_ready_because: readiness.err(),
            interception: match self.handles.settings.interception {
                Interception::Dnat => "dnat",
                Interception::Tproxy { .. } => "tproxy",
                Interception::Off => "off",
            }
            .into(),
            fail_mode: match self.handles.settings.fail_mode {
                FailMode::Open => "open",
                FailMode::Closed => "closed",
            }
            .into(),
            resolvers: plan
                .desired
                .resolvers
                .iter()
                .map(|binding| binding.asked.to_string())
                .collect(),
            listening: self.handles.settings.listen.iter().map(ToString::to_string).collect(),
            endpoints: plan.endpoints.to_vec(),
            reports: progress.reports.iter().map(ReportRow::from).collect(),
            names,
            addresses,
            elements: writer.elements,
            heartbeat_gaps: writer.gaps,
            silent_upstreams: self.silent_upstreams(),
            records: self.handles.records_summary(),
            state_troubles: self.state_troubles(),
            install_error: progress.failure,
            damage: integrity.damaged.iter().map(ToString::to_string).collect(),
            changed_sysctls: integrity.settings.iter().map(ToString::to_string).collect(),
            last_repair: integrity.last.as_ref().map(|repair| RepairStatus {
                damage: repair.damage.iter().map(ToString::to_string).collect(),
                seconds_ago: clock::now().since(repair.at).as_secs(),
                took_ms: u64::try_from(repair.took.as_millis()).unwrap_or(u64::MAX),
            }),
            source: self.health.as_ref().map(SourceHealth::status),
        }
    }

    fn names(&self) -> Vec<NameRow> {
        let in_force = self.handles.gate.in_force();
        let now = clock::now();
        self.handles
            .ledger
            .lock()
            .entries(now)
            .map(|entry| {
                let (selectors, policies) = in_force.plan.attribution(entry.name);
                NameRow {
                    name: entry.name.to_string(),
                    address: entry.address,
                    lease_left_ms: u64::try_from(entry.expires.since(now).as_millis()).unwrap_or(u64::MAX),
                    source: entry.teacher.address(),
                    private: matches!(entry.teacher, Teacher::Private(_)),
                    selectors: selectors.into_iter().map(ToString::to_string).collect(),
                    policies: policies.into_iter().map(ToString::to_string).collect(),
                }
            })
            .collect()
    }

    fn answered(&self) -> Vec<AnsweredNameRow> {
        self.handles.recorder.answer_log().rows()
    }

    fn rules(&self) -> Vec<RuleRow> {
        let plan = Arc::clone(&self.handles.gate.in_force().plan);
        let started = clock::wall_now().before(self.started.elapsed());
        rule_use::rules(&plan, &self.answered(), &self.handles.events.remembered(), started)
    }

    fn records(&self) -> Records {
        let now = clock::now();
        Records {
            summary: self.handles.records_summary(),
            rows: self.handles.recorder.rows(now, clock::wall_now()),
            withheld: self.handles.gate.withheld(now),
            lookups: self.handles.gate.refused_lookups(now),
        }
    }

    fn explain(&self, asked: &ExplainRequest) -> Result<ExplainAnswer, String> {
        let plan = Arc::clone(&self.handles.gate.in_force().plan);
        let no_pod = |pod: &EndpointId| {
            format!(
                "there is no pod {pod} with an address of its own on this node ({}); write the address of one elsewhere",
                self.handles.settings.node
            )
        };
        let from = Sender::of(&asked.from, &plan.local, &plan.inventory).map_err(no_pod)?;
        if let ExplainTarget::Pod(to) = &asked.to
            && !plan.local.iter().any(|known| known.id == *to)
        {
            return Err(no_pod(to));
        }
        let policies: Vec<&Policy> = plan.policies.iter().map(|policy| &**policy).collect();
        let scene = ExplainScene {
            from: &from,
            policies: &policies,
            inventory: &plan.inventory,
            // Rules that ask for something let nothing through where nobody looks.
            announced: asked.announced.as_ref().filter(|_| plan.desired.handover.is_some()),
        };
        let governed = from.addresses.iter().find_map(|address| plan.governed.get(address));
        let may_ask = governed.is_some_and(|governed| governed.questions.is_some());
        let bindings = plan.desired.resolvers.iter().filter(|_| may_ask);
        let resolvers = bindings.map(|binding| binding.asked).collect();
        let seen = match &asked.to {
            ExplainTarget::Name(name) => from.endpoint.as_ref().map_or_else(Vec::new, |endpoint| {
                self.handles.recorder.answer_log().addresses(&endpoint.id, name)
            }),
            ExplainTarget::Address(_) | ExplainTarget::Pod(_) => Vec::new(),
        };
        let mut told = {
            let ledger = self.handles.ledger.lock();
            let known = NodeKnowledge {
                ledger: Some((&ledger, clock::now())),
                counts: &|teacher| governed.is_none_or(|governed| plan.teaches(teacher, governed)),
                places: &plan.places,
                cluster_domains: &self.handles.settings.cluster_domains(),
                resolvers: &resolvers,
                pods: &plan.local,
                own_node_passes: plan.desired.local_host == LocalHost::Always,
                seen: Some((&seen, &plan.teachable)),
            };
            explain::answer(asked, scene, known)
        };
        self.tell_flows(&plan, &from, asked, &mut told);
        if let ExplainTarget::Name(name) = &asked.to {
            told.lookup = governed.map(|governed| self.lookup(&plan, governed, name));
        }
        if let Some(governed) = governed {
            let tiers = plan.desired.programs.get(&governed.program);
            let tiers = tiers.map(|program| &program.enforced);
            let ids: Vec<ProgramId> = tiers.into_iter().flat_map(KernelTiers::looked_up).collect();
            let live = self.handles.enforcer.elements();
            for part in told.parts.iter_mut().filter(|part| part.direction.is_some()) {
                let elements = live.iter().filter(|(element, _)| {
                    ids.contains(&element.set.program) && Some(element.key.address) == part.address
                });
                part.kernel = part.address.map(|_| kernel_says(tiers, elements));
            }
        }
        if let Some(elsewhere) = received_elsewhere(&plan, &told) {
            told.remarks.push(format!(
                "{elsewhere} is a pod of another node, whose agent decides about its ingress"
            ));
        }
        let progress = self.progress.borrow();
        let refused = progress
            .reports
            .iter()
            .filter(|it| it.is_policy() && it.state == ReportState::Rejected);
        told.remarks
            .extend(refused.map(|report| explain::refused_remark(&report.object)));
        Ok(told)
    }

    fn suggestion(&self, asked: &SuggestionRequest) -> Result<SuggestionAnswer, String> {
        let plan = Arc::clone(&self.handles.gate.in_force().plan);
        suggestion::suggest(&plan, &self.handles.events.remembered(), asked, clock::wall_now())
    }

    fn events(&self) -> Arc<EventLog> {
        Arc::clone(&self.handles.events)
    }

    fn event_row(&self, number: u64, event: &Event) -> EventRow {
        let in_force = self.handles.gate.in_force();
        event_rows::row(number, event, &self.handles.settings.node, &in_force.plan)
    }

    fn node(&self) -> String {
        self.handles.settings.node.clone()
    }

    fn observed_node(&self) -> ObservedNode {
        let RecordedTotals {
            remembered,
            capacity,
            recorded,
        } = self.handles.events.totals();
        ObservedNode {
            cluster: self.handles.settings.cluster_name.clone(),
            name: self.handles.settings.node.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime: self.started.elapsed(),
            remembered: u64::try_from(remembered).unwrap_or(u64::MAX),
            capacity: u64::try_from(capacity).unwrap_or(u64::MAX),
            seen: recorded,
        }
    }

    fn policy_kind(&self, policy: &str) -> Option<String> {
        let plan = Arc::clone(&self.handles.gate.in_force().plan);
        // Of policies of different kinds with one name, whichever comes first: events tell names.
        let found = plan.policies.iter().find(|known| known.id.to_string() == policy)?;
        Some(found.id.kind.as_str().to_owned())
    }

    fn readiness(&self) -> Result<(), String> {
        let progress = self.progress.borrow();
        match &progress.failure {
            Some(failure) if !progress.in_force => Err(failure.clone()),
            _ if !progress.in_force => Err(match &self.health {
                Some(health) => health.missing(),
                None => "the objects have not been read yet".into(),
            }),
            _ => self.integrity.borrow().trouble().map_or(Ok(()), Err),
        }
    }

    fn remark(&self) -> Option<String> {
        self.health.as_ref().and_then(SourceHealth::remark)
    }

    fn figures(&self) -> Figures {
        let plan = Arc::clone(&self.handles.gate.in_force().plan);
        let (names, addresses) = self.leases();
        let mut policies = [0; 4];
        for report in self
            .progress
            .borrow()
            .reports
            .iter()
            .filter(|report| report.is_policy())
        {
            let slot = match report.state {
                ReportState::Accepted => 0,
                ReportState::Partial => 1,
                ReportState::KeptLastGood => 2,
                ReportState::Rejected => 3,
            };
            policies[slot] += 1;
        }
        Figures {
            writer: self.handles.enforcer.stats(),
            names,
            addresses,
            evicted_names: self.handles.gate.evicted_names(),
            left_out_addresses: self.handles.gate.left_out_addresses(),
            endpoints_selected: plan.endpoints.iter().filter(|row| row.is_governed()).count(),
            endpoints: plan.endpoints.len(),
            programs: plan.desired.programs.len(),
            policies,
            // Locked only while listeners change; a scrape need not wait for that.
            lookups_in_flight: self.handles.server.try_lock().map_or(0, |server| server.in_flight()),
            inspected_connections: self.handles.inspector.open_connections(),
            refused_packets: self.handles.enforcer.refused_packets().unwrap_or_default(),
            silent_upstreams: {
                let silent = self.handles.gate.silent_upstreams().into_iter();
                silent.map(|((server, _), _)| server).collect::<BTreeSet<_>>().len()
            },
            record_overruns: self.handles.recorder.summary().overruns,
            source: self.health.as_ref().map(SourceHealth::figures),
            other_clusters: {
                let progress = self.progress.borrow();
                let figures = progress.others.iter().map(|other| OtherClusterGauges {
                    name: Arc::clone(&other.name),
                    pods: other.pods,
                    contested: other.contested.len(),
                    source: self.health_of(&other.name).map(SourceHealth::figures),
                });
                figures.collect()
            },
            unwritten_files: self.state_troubles().len(),
            repairs: self.integrity.borrow().repairs,
            damage: self.integrity.borrow().damaged.len(),
            settings: self.integrity.borrow().settings.len(),
            deaths: self.handles.supervision.as_ref().map_or(0, |it| it.deaths()),
        }
    }
}
