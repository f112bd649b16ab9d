//! Cuts flows that policies do not allow any more (`--revoke`).
//!
//! After a plan that may deny more than the one before, and after the first, each tracked flow of a
//! governed address is judged under the plan ([`enforcer::revocation`]). What is denied is cut both
//! ways. That is done by a thread of its own, because to read some hundred thousand flows takes
//! tenths of a second; new flows are judged by the rules meanwhile.
//!
//! A packet that the former rules let through may enter its flow after the first look. So there is
//! a second one soon after.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use clock::Time;
use cluster::status::cut_flows::CutNotice;
use enforcer::conntrack::{self, ConntrackEntry};
use enforcer::revocation::{Flow, FlowJudge, FlowVerdict, may_deny_more};
use enforcer::{Element, InstallError};
use planner::Plan;
use policy::{Direction, Endpoint, PerDirection};
use settings::Revocation;
use thiserror::Error;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::handles::AgentHandles;
use crate::metrics::Metrics;

/// When flows are looked at again after the first look. A plan that comes until then is judged by
/// that look, which is the second one of the plan before it.
const AGAIN: Duration = Duration::from_millis(150);

/// Looks take at most one part in so many of a processor's time, however often plans change.
const SHARE: u32 = 4;

/// Asks the thread that cuts flows. It ends when this is dropped.
#[derive(Debug)]
pub struct Revoker {
    /// `None` where flows are left alone.
    plans: Option<Sender<Arc<Plan>>>,
    /// Whether anything is cut, so that what opens more must be looked at too.
    has_cut: Arc<AtomicBool>,
}

/// The thread's state.
struct FlowCutter {
    handles: AgentHandles,
    metrics: Arc<Metrics>,
    notices: Option<mpsc::UnboundedSender<CutNotice>>,
    /// The flows that this agent has cut, each with the time when the kernel lets it go.
    cut: Vec<(ConntrackEntry, Time)>,
    has_cut: Arc<AtomicBool>,
}

/// What came of one look.
#[derive(Debug, Default)]
struct JudgedFlows {
    denied: PerDirection<Vec<ConntrackEntry>>,
    /// Flows that are cut and allowed now.
    allowed: Vec<ConntrackEntry>,
    /// How many flows no name could be found for.
    unattributed: usize,
}

/// Why flows could not be cut.
#[derive(Debug, Error)]
enum NotCut {
    /// The table of connections cannot be read.
    #[error("the flows of this node cannot be read: {0}")]
    Unread(#[from] std::io::Error),
    /// The kernel refused the rules that cut.
    #[error(transparent)]
    Refused(#[from] InstallError),
}

impl Revoker {
    /// Starts the thread, in the network namespace of the calling one.
    ///
    /// `notices` are told whose flows were cut.
    pub fn start(
        handles: AgentHandles,
        metrics: Arc<Metrics>,
        notices: Option<mpsc::UnboundedSender<CutNotice>>,
    ) -> Self {
        let has_cut = Arc::new(AtomicBool::new(false));
        let cutter = FlowCutter {
            handles,
            metrics,
            notices,
            cut: Vec::new(),
            has_cut: Arc::clone(&has_cut),
        };
        let plans = (cutter.handles.settings.revoke != Revocation::Off).then(|| cutter.start());
        Self {
            plans: plans.flatten(),
            has_cut,
        }
    }

    /// Has flows judged again under `now`, which is in force, if it may deny more than `before`, or
    /// allow again what is cut.
    pub fn changed(&self, before: &Plan, now: &Arc<Plan>) {
        if let Some(plans) = &self.plans
            && (self.has_cut.load(Relaxed) || may_deny_more(&before.desired, &now.desired))
        {
            // The thread ends only after this, or by a panic of its own, which is logged.
            let _ = plans.send(Arc::clone(now));
        }
    }
}

/// When flows are looked at next, at the earliest, after a look that ended at `ended` and took so
/// much of a processor. Each look goes through all flows of the node, however few addresses a plan
/// has changed, and hundreds of plans may come in a second.
fn next_look(ended: Time, took: Duration) -> Time {
    ended + AGAIN.max(took * SHARE)
}

/// Whose flows these are, and how many of each.
fn notices(denied: &PerDirection<Vec<ConntrackEntry>>, local: &[Endpoint]) -> Vec<CutNotice> {
    let flows = denied.iter().flat_map(|(direction, entries)| {
        entries.iter().map(move |entry| match direction {
            Direction::Egress => (direction, entry.source),
            Direction::Ingress => (direction, entry.reply_source.ip()),
        })
    });
    let mut counts: BTreeMap<(Direction, IpAddr), usize> = BTreeMap::new();
    flows.for_each(|of| *counts.entry(of).or_default() += 1);
    let notices = counts.into_iter().filter_map(|((direction, address), flows)| {
        let pod = local.iter().find(|endpoint| endpoint.addresses.contains(&address))?;
        Some(CutNotice {
            pod: pod.id.clone(),
            direction,
            flows,
        })
    });
    notices.collect()
}

/// Judges flows under a plan, with what this node has learned and told.
pub(crate) fn with_judge<R>(handles: &AgentHandles, plan: &Plan, work: impl FnOnce(&FlowJudge<'_>) -> R) -> R {
    // In their order.
    let elements = handles.enforcer.elements().into_iter();
    let elements: Vec<Element> = elements.map(|(element, _)| element).collect();
    let is_learned = |element: &Element| elements.binary_search(element).is_ok();
    let names = handles.recorder.answer_log();
    let told = |address: IpAddr, peer: IpAddr| names.name(&plan.governed.get(&address)?.id, peer);
    work(&FlowJudge::new(&plan.desired, &is_learned, &told))
}

impl FlowCutter {
    fn start(mut self) -> Option<Sender<Arc<Plan>>> {
        let (plans, inbox) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("revocation".to_owned());
        match thread.spawn(move || self.run(&inbox)) {
            Ok(_) => Some(plans),
            Err(error) => {
                warn!(%error, "flows outlive their permission: no thread can be started that cuts them");
                None
            }
        }
    }

    /// Serves plans, the newest of those that wait, until no more can come.
    fn run(&mut self, plans: &Receiver<Arc<Plan>>) {
        let mut next = plans.recv().ok();
        while let Some(plan) = next.take() {
            let plan = plans.try_iter().last().unwrap_or(plan);
            let before = clock::thread_cpu_time();
            self.look(&plan);
            let took = clock::thread_cpu_time().saturating_sub(before);
            let next_look = next_look(clock::now(), took);
            next = match plans.recv_timeout(AGAIN) {
                Ok(newer) => Some(newer),
                Err(RecvTimeoutError::Timeout) => {
                    self.look(&plan);
                    plans.recv().ok()
                }
                Err(RecvTimeoutError::Disconnected) => None,
            };
            if next.is_some() {
                std::thread::sleep(next_look.since(clock::now()));
            }
        }
    }

    /// Judges all flows of governed addresses once, and cuts what is denied.
    fn look(&mut self, plan: &Plan) {
        let began = clock::now();
        let outcome = self.judge(plan, began).and_then(|judged| {
            let notices = notices(&judged.denied, &plan.local);
            self.carry_out(judged, began)?;
            if let Some(listener) = &self.notices {
                // Who listens ends only with the agent.
                notices.into_iter().for_each(|notice| drop(listener.send(notice)));
            }
            Ok(())
        });
        if let Err(failure) = outcome {
            warn!(%failure, "flows that policies do not allow any more could not be cut");
        }
    }

    fn judge(&mut self, plan: &Plan, now: Time) -> Result<JudgedFlows, NotCut> {
        let dispatch = &plan.desired.dispatch;
        let governed: HashSet<IpAddr> = dispatch.iter().flat_map(|(_, of)| of.keys().copied()).collect();
        let entries = conntrack::flows_of(&governed)?;
        let handles = self.handles.clone();
        Ok(with_judge(&handles, plan, |judge| self.sort_out(entries, judge, now)))
    }

    fn sort_out(&mut self, entries: Vec<ConntrackEntry>, judge: &FlowJudge<'_>, now: Time) -> JudgedFlows {
        let mut judged = JudgedFlows::default();
        for entry in entries {
            match judge.verdict(&Flow::of(&entry)) {
                FlowVerdict::Allowed => {}
                FlowVerdict::Denied(direction) => judged.denied[direction].push(entry),
                FlowVerdict::Unattributed => {
                    judged.unattributed += 1;
                    if self.handles.settings.revoke == Revocation::Strict {
                        judged.denied[Direction::Egress].push(entry);
                    }
                }
            }
        }
        self.cut.retain(|(_, until)| *until > now);
        let is_denied = |entry: &ConntrackEntry| judge.verdict(&Flow::of(entry)) != FlowVerdict::Allowed;
        let allowed = self.cut.extract_if(.., |(entry, _)| !is_denied(entry));
        judged.allowed = allowed.map(|(entry, _)| entry).collect();
        judged
    }

    fn carry_out(&mut self, judged: JudgedFlows, now: Time) -> Result<(), NotCut> {
        let (handles, metrics) = (&self.handles, &self.metrics);
        metrics.unattributed_flows(judged.unattributed);
        if !judged.allowed.is_empty() {
            handles.enforcer.end_cut(&judged.allowed)?;
        }
        for direction in Direction::BOTH {
            let denied = &judged.denied[direction];
            let flows = handles.enforcer.cut(denied)?;
            metrics.flows_cut(direction, flows);
            for entry in denied {
                let (source, destination) = (entry.source, entry.reply_source);
                debug!(%direction, %source, %destination, protocol = entry.protocol, "cut");
            }
            if flows > 0 {
                let took = clock::now().since(now);
                info!(flows, %direction, ?took, "cut flows that policies do not allow any more");
            }
        }
        let denied = [judged.denied.egress, judged.denied.ingress].into_iter().flatten();
        self.cut.extend(denied.map(|entry| {
            let until = now + entry.left;
            (entry, until)
        }));
        self.has_cut.store(!self.cut.is_empty(), Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_for_plan_after_plan_are_as_far_apart_as_two_for_one_and_take_a_share_of_the_time() {
        let (ended, millis) = (Time::from_millis(10_000), Duration::from_millis);
        assert_eq!(next_look(ended, millis(2)), ended + AGAIN);
        assert_eq!(next_look(ended, millis(300)), ended + millis(1_200));
    }
}
