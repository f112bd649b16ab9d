//! The loop that keeps the kernel and the listeners in step with the objects.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use cluster::readiness;
use cluster::{Cluster, Progress};
use cluster::{ReadReport, Update};
use dns_proxy::Listener;
use enforcer::audit::{self, Integrity};
use enforcer::conntrack::ConntrackEntry;
use enforcer::pod_links::NodeNetwork;
use enforcer::writer::LeaseScope;
use enforcer::{InstallError, Interception, conntrack, routing};
use events::{AgentEvent, EventSource};
use settings::Settings;
use thiserror::Error;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tracing::{Instrument, debug, error, info, info_span, warn};

use crate::address_owners::AddressOwners;
use crate::handles::AgentHandles;
use crate::news;
use crate::policy_log;
use crate::reconciler_part::{PartTaker, ReconcilerPart};
use crate::revocation::Revoker;
use planner::ActivePlan;
use planner::{AddressConflict, Plan, Planner};

/// After a failed installation: how soon it is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// What happens so soon after a plan waits for more, at least: at hundreds of events a second, a
/// plan for each would take most of the time that they all take.
const PLANS_APART: Duration = Duration::from_millis(10);
/// And at most, whatever a plan takes: for so long a change waits that comes after another.
const PLANS_FARTHEST: Duration = Duration::from_millis(100);
/// Between these two, it waits for so many times what the plan took.
const PLANS_REST: u32 = 10;
/// How often this node's links, routes and addresses are read again if nothing is heard of a
/// change.
const NETWORK_EVERY: Duration = Duration::from_secs(10);
/// After a change of these: for how long more of them are collected. A pod that comes makes a
/// dozen.
const NETWORK_SETTLES: Duration = Duration::from_millis(50);
/// How long one look at them holds, however many changes are heard of: a router's table may change
/// all the time.
const NETWORK_HOLDS: Duration = Duration::from_millis(500);

/// The addresses that we listen on: for lookups in mode dnat, and for connections that are handed
/// over.
const OWN_ADDRESSES: [IpAddr; 4] = [
    IpAddr::V4(routing::LISTEN_V4),
    IpAddr::V6(routing::LISTEN_V6),
    IpAddr::V4(routing::HANDOVER_V4),
    IpAddr::V6(routing::HANDOVER_V6),
];

/// Why a plan is not in force.
#[derive(Debug, Error)]
pub enum NotInForce {
    /// The kernel side.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// A DNS listener.
    #[error(transparent)]
    Listen(#[from] dns_proxy::ServerError),
}

/// What may not be as the plan in force has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    /// Everything is.
    Nothing,
    /// What the kernel holds, or where the proxy listens.
    Kernel,
}

/// The loop's state. One task owns it; everybody else reads [`Progress`] and the gate's plan.
pub struct Reconciler {
    handles: AgentHandles,
    cluster: Cluster,
    planner: Planner,
    /// What the source says of the objects.
    reports: Arc<[ReadReport]>,
    /// Of those, what is shown.
    shown: Arc<[ReadReport]>,
    /// How many updates were applied.
    updates: u64,
    conflicts: Arc<[AddressConflict]>,
    /// This node's links, routes and addresses. The same allocation as long as they are the same.
    network: Arc<NodeNetwork>,
    /// When they were read last.
    network_read: Instant,
    /// Whether they could not be read then.
    network_is_unread: bool,
    /// The newest plan, in force or not.
    newest: Option<Arc<Plan>>,
    /// When the next one is made, at the earliest.
    next_plan: Instant,
    owners: AddressOwners,
    revoker: Revoker,
    part: PartTaker,
    progress: watch::Sender<Progress>,
}

impl Reconciler {
    /// A loop with nothing in force yet.
    pub fn new(handles: AgentHandles, revoker: Revoker, part: PartTaker) -> Self {
        Self {
            cluster: cluster(&handles.settings),
            handles,
            planner: Planner::default(),
            reports: Arc::default(),
            shown: Arc::default(),
            updates: 0,
            conflicts: Arc::default(),
            network: Arc::default(),
            network_read: Instant::now(),
            network_is_unread: true,
            newest: None,
            next_plan: Instant::now(),
            owners: AddressOwners::default(),
            revoker,
            part,
            progress: watch::Sender::default(),
        }
    }

    /// Where to read the loop's progress.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Runs until the source ends. Nothing is enforced before the first update, which is the
    /// complete list.
    pub async fn run(mut self, mut updates: mpsc::Receiver<Update>) {
        // Heard of from before the first look on.
        let changes = hear_of_network();
        self.read_network();
        let Some(first) = updates.recv().await else { return };
        self.apply(first);
        let mut settled = self.put_in_force(Doubt::Kernel).await;

        let mut network = interval(NETWORK_EVERY);
        network.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let enforcer = self.handles.enforcer.clone();
        let mut integrity = enforcer.integrity();
        loop {
            let part = self.part.now();
            let enforces = part == ReconcilerPart::Enforces;
            if part == ReconcilerPart::Judges {
                self.judge_again();
            }
            let mut doubt = if settled { Doubt::Nothing } else { Doubt::Kernel };
            let mut stale = tokio::select! {
                () = self.part.changed() => false,
                update = updates.recv() => match update {
                    Some(update) => {
                        self.apply(update);
                        true
                    }
                    None => return,
                },
                () = enforcer.table_lost(), if enforces => {
                    doubt = Doubt::Kernel;
                    true
                }
                Ok(()) = integrity.changed(), if enforces => {
                    let (damage, repair) = {
                        let integrity = integrity.borrow_and_update();
                        (integrity.trouble(), last_repair(&integrity))
                    };
                    self.progress.send_if_modified(|progress| {
                        let is_news = progress.damage != damage || progress.repair != repair;
                        progress.damage = damage;
                        progress.repair = repair;
                        is_news
                    });
                    false
                }
                _ = network.tick() => self.read_network(),
                () = network_changed(changes.as_ref(), self.network_read) => self.read_network(),
                () = sleep(RETRY), if !settled && enforces => true,
            };
            if stale {
                sleep_until(self.next_plan).await;
            }
            while let Ok(update) = updates.try_recv() {
                self.apply(update);
                stale = true;
            }
            if stale && enforces {
                // A pod that has come may have done so with a link.
                let has_changes = || changes.as_ref().is_none_or(|it| routing::has_changes(it.get_ref()));
                if self.network_is_unread || has_changes() {
                    self.read_network();
                }
                settled = self.put_in_force(doubt).await;
            }
        }
    }

    fn apply(&mut self, update: Update) {
        for change in update.changes {
            self.cluster.apply(change);
        }
        for (other, change) in update.of_others {
            self.cluster.apply_of(&other, change);
        }
        self.cluster.settle();
        self.reports = update.reports;
        self.updates += 1;
    }

    /// Computes the plan and puts it in force. `false`: it failed, what stood before stands, try
    /// again.
    async fn put_in_force(&mut self, doubt: Doubt) -> bool {
        let turn = Arc::clone(&self.part.turn);
        let _turn = turn.lock().await;
        if self.part.now() != ReconcilerPart::Enforces {
            return false;
        }
        // With the span, every line that one update brings about can be found.
        let span = info_span!("reconcile", update = self.updates);
        let began = Instant::now();
        let is_in_force = self.plan_and_carry_out(doubt).instrument(span).await;
        let now = Instant::now();
        self.next_plan = now + pause_after(now - began);
        is_in_force
    }

    async fn plan_and_carry_out(&mut self, doubt: Doubt) -> bool {
        let plan = self.planner.plan(&self.cluster, &self.handles.settings, &self.network);
        let handover = self.handles.inspector.handover(&plan);
        let plan = self.planner.hand_over(plan, handover, &self.cluster);
        let plan = Arc::new(plan);
        self.newest = Some(Arc::clone(&plan));
        self.report(&plan);
        let before = Arc::clone(&self.handles.gate.in_force().plan);
        let carried_out = match doubt {
            Doubt::Nothing if plan.decides_as(&before) => {
                debug!("nothing that is in force has changed");
                self.handles.gate.follow(plan);
                Ok(())
            }
            Doubt::Nothing if plan.differs_in_members_alone(&before) => self.carry_out_members(&before, &plan).await,
            _ => self.carry_out(&before, &plan).await,
        };
        match carried_out {
            Ok(()) => {
                if !self.progress.borrow().in_force {
                    self.record_news(AgentEvent::Ready);
                }
                self.progress.send_modify(|progress| {
                    progress.in_force = true;
                    progress.failure = None;
                    progress.updates_in_force = self.updates;
                });
                true
            }
            Err(failure) => {
                let failure = failure.to_string();
                if self.progress.borrow().failure.as_ref() != Some(&failure) {
                    self.record_news(AgentEvent::NotInForce(failure.clone()));
                }
                error!(%failure, "the policies could not be put in force; what stood before stands");
                self.progress.send_modify(|progress| progress.failure = Some(failure));
                false
            }
        }
    }

    /// Has connections that are open judged by the objects of now. The kernel's rules are another
    /// agent's.
    fn judge_again(&mut self) {
        let plan = self.planner.plan(&self.cluster, &self.handles.settings, &self.network);
        let in_force = self.handles.gate.in_force();
        let handover = in_force.plan.desired.handover.clone();
        let plan = self.planner.hand_over(plan, handover, &self.cluster);
        if plan.decides_as(&in_force.plan) {
            return;
        }
        self.handles.gate.publish(ActivePlan {
            plan: Arc::new(plan),
            generation: in_force.generation,
            coming: None,
        });
        self.handles.inspector.rules_changed();
    }

    fn record_news(&self, news: AgentEvent) {
        self.handles.events.record(EventSource::Node, news::of_agent(news));
    }

    /// Shows what was read, with what the plan adds to it, and logs that once as long as it stands.
    fn report(&mut self, plan: &Plan) {
        let others = self.cluster.others();
        let is_shown = Arc::ptr_eq(&self.conflicts, &plan.conflicts) && Arc::ptr_eq(&self.shown, &self.reports);
        if is_shown && others.is_empty() {
            return;
        }
        self.shown = Arc::clone(&self.reports);
        for conflict in plan.conflicts.iter().filter(|it| !self.conflicts.contains(it)) {
            match conflict.closed {
                true => error!("{conflict}"),
                false => warn!("{conflict}"),
            }
        }
        self.conflicts = Arc::clone(&plan.conflicts);
        let is_contested = others.iter().any(|other| !other.contested.is_empty());
        let reports = match plan.conflicts.is_empty() && !is_contested {
            true => Arc::clone(&self.reports),
            false => {
                let mut reports = self.reports.to_vec();
                planner::report(&plan.conflicts, &mut reports);
                self.cluster.report_others(&mut reports);
                reports.into()
            }
        };
        self.progress.send_modify(|progress| {
            progress.others = others;
            if !Arc::ptr_eq(&progress.reports, &reports) {
                policy_log::read(&progress.reports, &reports);
                news::read(&self.handles.events, &progress.reports, &reports);
                progress.reports = reports;
            }
        });
    }

    async fn carry_out(&mut self, before: &Plan, plan: &Arc<Plan>) -> Result<(), NotInForce> {
        // The listeners' own addresses must exist before they can be bound. Idempotent: somebody
        // may have removed them.
        routing::set_up(&self.handles.settings.interception)
            .map_err(|error| InstallError::Routing(error.to_string()))?;
        // From the moment the rules are in the kernel lookups of endpoints come that were not
        // governed before. In an upgrade they come from the moment our listeners are bound: another
        // agent serves on the same ports already.
        self.handles.gate.announce(Arc::clone(plan));
        // Bound before any rule sends lookups there; the old ones end only when no rule does any
        // more.
        self.listen(before.listeners.iter().chain(plan.listeners.iter()))
            .await?;
        self.install(plan).await?;

        for opened in planner::opened_pods::opened(before, plan) {
            warn!(policy = %opened.policy, "{opened}");
        }
        policy_log::in_force(&before.endpoints, &plan.endpoints);
        news::in_force(&self.handles.events, &before.endpoints, &plan.endpoints);
        self.forget_former_owners(plan);
        self.forget_old_lookups(before, plan);
        self.revoker.changed(before, plan);
        self.listen(plan.listeners.iter()).await?;
        info!(
            endpoints = plan.endpoints.len(),
            selected = plan.endpoints.iter().filter(|endpoint| endpoint.is_governed()).count(),
            programs = plan.desired.programs.len(),
            resolvers = plan.resolvers.len(),
            "in force"
        );
        Ok(())
    }

    /// As [`carry_out`](Self::carry_out), where the addresses of objects alone are others. Pods of
    /// other nodes come and go all the time, and who is governed here, and where the proxy listens,
    /// stands.
    async fn carry_out_members(&mut self, before: &Plan, plan: &Arc<Plan>) -> Result<(), NotInForce> {
        self.install(plan).await?;
        self.revoker.changed(before, plan);
        debug!("other addresses of objects are in force");
        Ok(())
    }

    /// Has the kernel enforce a plan, and publishes it.
    async fn install(&self, plan: &Arc<Plan>) -> Result<(), NotInForce> {
        let (ledger, filling) = (Arc::clone(&self.handles.ledger), Arc::clone(plan));
        let learned = move |scope: &LeaseScope| filling.elements_in(&ledger.lock(), scope, clock::now());
        // On an error the old rules stand, with the old plan's generation.
        let generation = self
            .handles
            .enforcer
            .install_held(Arc::clone(&plan.desired), learned)
            .await?;
        self.handles.gate.publish(ActivePlan {
            plan: Arc::clone(plan),
            generation,
            coming: None,
        });
        self.handles.inspector.rules_changed();
        Ok(())
    }

    async fn listen(&self, listeners: impl Iterator<Item = &Listener>) -> Result<(), NotInForce> {
        let listeners: BTreeSet<Listener> = listeners.copied().collect();
        let listeners: Vec<Listener> = listeners.into_iter().collect();
        Ok(self.handles.server.lock().await.listen(&listeners).await?)
    }

    /// What was established with a pod is not with another that has its address now. Not before the
    /// rules speak of the new one: what the former program lets through would make an entry again.
    fn forget_former_owners(&mut self, plan: &Plan) {
        let changed = self.owners.update(&plan.local);
        // The proxy judges each lookup by itself, and those that wait for this plan are answered on
        // their flows.
        let is_ours = |entry: &ConntrackEntry| OWN_ADDRESSES.contains(&entry.reply_source.ip());
        match conntrack::delete_flows(&changed, is_ours) {
            Ok(0) => {}
            Ok(flows) => info!(flows, addresses = ?changed, "forgot flows of the pods that had these addresses before"),
            Err(error) => {
                error!(%error, addresses = ?changed, "others have these addresses now, and the flows of those before could not be forgotten");
            }
        }
    }

    /// NAT is decided once per flow: flows to a resolver that were not intercepted before must
    /// start over. Those that are not any more go on as they are: the gate forwards what comes on
    /// them.
    fn forget_old_lookups(&self, before: &Plan, now: &Plan) {
        let (old, new) = (&before.desired, &now.desired);
        let listeners: BTreeMap<SocketAddr, SocketAddr> = new
            .resolvers
            .iter()
            .map(|binding| (binding.asked, binding.listener))
            .collect();
        let keep = |entry: &ConntrackEntry| match new.interception {
            // Translated by an agent before this one, which may be about to answer.
            Interception::Dnat => listeners.get(&entry.original_destination) == Some(&entry.reply_source),
            // Every packet is intercepted, whatever became of those before, except where mode dnat
            // has translated them.
            Interception::Tproxy { .. } => !OWN_ADDRESSES.contains(&entry.reply_source.ip()),
            Interception::Off => true,
        };
        let same_resolvers = old.resolvers == new.resolvers;
        let known = |source: &&IpAddr| !(same_resolvers && old.intercepted.contains(*source));
        let sources: Vec<IpAddr> = new.intercepted.iter().filter(known).copied().collect();
        let ports: BTreeSet<u16> = listeners.keys().map(SocketAddr::port).collect();
        let ports: Vec<u16> = ports.into_iter().collect();
        if let Err(error) = conntrack::delete_lookups(&sources, &ports, keep) {
            warn!(%error, "old flows to resolvers could not be forgotten; lookups on them pass unobserved until they end");
        }
    }

    /// Whether what plans are made of changed.
    fn read_network(&mut self) -> bool {
        self.network_read = Instant::now();
        self.network_is_unread = true;
        let mut network = match routing::network() {
            Ok(network) => network,
            Err(error) => {
                warn!(%error, "this node's links, routes and addresses cannot be read");
                return false;
            }
        };
        network
            .own
            .retain(|address| !address.is_loopback() && !OWN_ADDRESSES.contains(address));
        // Always among them, so that they do not come as news once they are set up.
        network.own.extend(OWN_ADDRESSES);
        self.network_is_unread = false;
        if network == *self.network {
            return false;
        }
        let same_own = network.own == self.network.own;
        self.network = Arc::new(network);
        let newest = self.newest.as_ref();
        !same_own || newest.is_some_and(|plan| plan.desired.pod_links != plan.pod_links(&self.network))
    }
}

/// How long to wait for more after a plan that took so long to make and to put in force.
fn pause_after(took: Duration) -> Duration {
    (took * PLANS_REST).clamp(PLANS_APART, PLANS_FARTHEST)
}

/// The clusters of these settings, without objects.
fn cluster(settings: &Settings) -> Cluster {
    let others = settings.other_clusters.iter().map(|other| other.name.as_str());
    Cluster::of_mesh(&settings.node, &settings.cluster_name, others)
}

/// What was repaired last, for people, and how much was repaired so far.
fn last_repair(integrity: &Integrity) -> Option<(String, u64)> {
    let last = integrity.last.as_ref()?;
    Some((audit::brief(&last.damage), integrity.repairs.iter().sum()))
}

fn hear_of_network() -> Option<AsyncFd<OwnedFd>> {
    let changes = routing::changes().and_then(readiness::register);
    changes
        .inspect_err(|error| warn!(%error, "changes of links and routes are only seen every {NETWORK_EVERY:?}"))
        .ok()
}

/// Resolves when links, routes or addresses have changed, and what changed with them is over too.
async fn network_changed(changes: Option<&AsyncFd<OwnedFd>>, read: Instant) {
    let Some(changes) = changes else {
        return std::future::pending().await;
    };
    let Ok(mut ready) = changes.readable().await else {
        return std::future::pending().await;
    };
    sleep(NETWORK_SETTLES.max(NETWORK_HOLDS.saturating_sub(read.elapsed()))).await;
    routing::take_changes(changes.get_ref());
    ready.clear_ready();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_that_take_long_are_made_less_often_and_no_change_waits_long() {
        let pause = |micros| pause_after(Duration::from_micros(micros)).as_millis();
        assert_eq!([100, 1_000, 3_000, 2_000_000].map(pause), [10, 10, 30, 100]);
    }
}
