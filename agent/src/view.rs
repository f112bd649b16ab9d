//! What the running agent shows of itself, read from its parts.

use std::sync::Arc;
use std::time::Instant;

use enforcer::{FailMode, Interception};
use tokio::sync::watch;

use crate::clock;
use crate::gate::lock;
use crate::inspect::{Figures, Inspect, NameRow, ReportRow, Status};
use crate::objects::ReportState;
use crate::objects::kubernetes::health::Health;
use crate::parts::Parts;
use crate::reconcile::Progress;

/// The running agent, seen from outside.
pub struct View {
    parts: Parts,
    progress: watch::Receiver<Progress>,
    /// Of a source that can be away.
    health: Option<Health>,
    started: Instant,
}

impl View {
    /// A view of these parts, which start now.
    pub fn new(parts: Parts, progress: watch::Receiver<Progress>, health: Option<Health>) -> Self {
        Self {
            parts,
            progress,
            health,
            started: Instant::now(),
        }
    }

    /// Names and name–address pairs with live leases.
    fn leases(&self) -> (usize, usize) {
        lock(&self.parts.ledger).size()
    }
}

impl Inspect for View {
    fn status(&self) -> Status {
        let plan = Arc::clone(&self.parts.gate.in_force().plan);
        let readiness = self.readiness();
        let progress = self.progress.borrow().clone();
        let (names, addresses) = self.leases();
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            node: self.parts.settings.node.clone(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            ready: readiness.is_ok(),
            not_ready_because: readiness.err(),
            interception: match self.parts.settings.interception {
                Interception::Dnat => "dnat",
                Interception::Tproxy { .. } => "tproxy",
                Interception::Off => "off",
            }
            .into(),
            fail_mode: match self.parts.settings.fail_mode {
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
            listening: self.parts.settings.listen.iter().map(ToString::to_string).collect(),
            endpoints: plan.endpoints.clone(),
            reports: progress.reports.iter().map(ReportRow::from).collect(),
            names,
            addresses,
            elements: self.parts.enforcer.stats().elements,
            install_error: progress.failure,
            source: self.health.as_ref().map(Health::status),
        }
    }

    fn names(&self) -> Vec<NameRow> {
        let in_force = self.parts.gate.in_force();
        let now = clock::now();
        lock(&self.parts.ledger)
            .entries(now)
            .map(|entry| {
                let (selectors, policies) = in_force.plan.attribution(entry.name);
                NameRow {
                    name: entry.name.to_string(),
                    address: entry.address,
                    lease_left_ms: u64::try_from(entry.expires.since(now).as_millis()).unwrap_or(u64::MAX),
                    source: entry.source,
                    selectors: selectors.into_iter().map(ToString::to_string).collect(),
                    policies: policies.into_iter().map(ToString::to_string).collect(),
                }
            })
            .collect()
    }

    fn readiness(&self) -> Result<(), String> {
        let progress = self.progress.borrow();
        match &progress.failure {
            Some(failure) if !progress.in_force => Err(failure.clone()),
            _ if !progress.in_force => Err(match &self.health {
                Some(health) => health.missing(),
                None => "the objects have not been read yet".into(),
            }),
            _ => Ok(()),
        }
    }

    fn figures(&self) -> Figures {
        let plan = Arc::clone(&self.parts.gate.in_force().plan);
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
            writer: self.parts.enforcer.stats(),
            names,
            addresses,
            evicted_names: self.parts.gate.evicted_names(),
            endpoints_selected: plan.endpoints.iter().filter(|row| row.program.is_some()).count(),
            endpoints: plan.endpoints.len(),
            programs: plan.desired.programs.len(),
            policies,
            // Locked only while listeners change; a scrape need not wait for that.
            lookups_in_flight: self.parts.server.try_lock().map_or(0, |server| server.in_flight()),
            refused_packets: self.parts.enforcer.refused_packets().unwrap_or_default(),
            source: self.health.as_ref().map(Health::figures),
        }
    }
}
