//! The source that watches the API server of a cluster.
//!
//! - [`resources`]: what is watched, one row for each resource.
//! - [`wire`]: objects cut down while they are read.
//! - `resource_watch`: one watch, with its back-off; all of them feed one
//! - [`watch_cache`]: what the watches say over time → [`Update`]s. Pure.
//! - `cluster_snapshot`: the objects in force on disk, for a start while the API server is away.
//! - [`health`]: how old the objects are, and what is missing.
//! - [`client`]: where the API server is; `kubeconfig`: and where another cluster's has moved to.

pub mod client;
pub mod health;
pub mod resources;
pub mod watch_cache;
pub mod wire;

mod cluster_snapshot;
mod kubeconfig;
mod peers;
mod resource_watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use state_dir::{DiskSnapshotError, StateDir};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::{Level, debug, error, info, warn};

use crate::log_dedup::{LogDedup, report_lines};
use crate::object::Update;
use crate::report::ReadReport;
use crate::source::{ObjectSource, SourceHandles};
use crate::status::{StatusInput, StatusReporter};

use client::{Access, AccessError};
use cluster_snapshot::ClusterSnapshot;
use health::SourceHealth;
use kubeconfig::WatchedKubeconfig;
use resource_watch::Recovery;
use resources::{Resource, ResourceKind, WatchScope};
use watch_cache::{WatchCache, WatchEvent};

/// The snapshot comes into force when the API server has not told everything after this time.
const RECALL_AFTER: Duration = Duration::from_secs(1);
/// How soon after a change the snapshot is written.
const SAVE_AFTER: Duration = Duration::from_secs(1);
/// Writing takes a share of the time that no number of objects can exceed.
const SAVE_SHARE: u32 = 50;
/// Watch events in the queue: enough for a burst, and little memory.
const QUEUE: usize = 256;

/// The API server of a cluster.
#[derive(Debug)]
pub struct KubernetesSource {
    access: AccessFrom,
    scope: WatchScope,
    snapshot: Option<ClusterSnapshot>,
    ranges_configured: bool,
    health: SourceHealth,
    /// Where a writer of statuses listens, if there is one.
    statuses: Option<mpsc::UnboundedSender<StatusInput>>,
}

/// Where it is said how the API server is reached.
#[derive(Debug)]
enum AccessFrom {
    /// Once and for all.
    Start(Box<Access>),
    /// In this file, which may change.
    Kubeconfig(PathBuf),
}

/// Why there is nothing to watch.
#[derive(Debug, Error)]
pub enum KubernetesError {
    /// Credentials that cannot be used.
    #[error(transparent)]
    Access(#[from] AccessError),
}

impl KubernetesSource {
    /// The objects that matter to `node`. `ranges_configured`: the configuration says which
    /// addresses are pods'.
    pub fn new(access: Access, node: String, state_dir: Option<StateDir>, ranges_configured: bool) -> Self {
        let snapshot = state_dir.as_ref();
        Self {
            snapshot: snapshot.map(|directory| ClusterSnapshot::new(directory, access.server(), node.clone())),
            health: SourceHealth::new(access.server()),
            access: AccessFrom::Start(Box::new(access)),
            scope: WatchScope::Node(node),
            ranges_configured,
            statuses: None,
        }
    }

    /// The objects of another cluster that may be peers. Nothing is ever written there. The
    /// kubeconfig may come and change later.
    pub fn of_other_cluster(name: Arc<str>, kubeconfig: PathBuf, state_dir: Option<&StateDir>) -> Self {
        Self {
            snapshot: state_dir.map(|directory| ClusterSnapshot::of_other(directory, &name)),
            health: SourceHealth::new(String::new()),
            access: AccessFrom::Kubeconfig(kubeconfig),
            scope: WatchScope::OtherCluster(name),
            ranges_configured: true,
            statuses: None,
        }
    }
}

impl ObjectSource for KubernetesSource {
    type Error = KubernetesError;

    fn handles(&mut self) -> SourceHandles {
        let mut handles = SourceHandles {
            health: Some(self.health.clone()),
            ..SourceHandles::default()
        };
        if let (AccessFrom::Start(access), WatchScope::Node(node)) = (&self.access, &self.scope) {
            let (statuses, input) = mpsc::unbounded_channel();
            let (cut_notices, cuts) = mpsc::unbounded_channel();
            self.statuses = Some(statuses);
            handles.cut_notices = Some(cut_notices);
            let access = Access::clone(access);
            handles.status_reporter = Some(StatusReporter::new(access, node.clone(), input, cuts));
        }
        handles
    }

    async fn run(self, updates: mpsc::Sender<Update>) -> Result<(), KubernetesError> {
        let snapshot = self.snapshot;
        let restored = snapshot.as_ref().and_then(ClusterSnapshot::restore);
        let saved = restored.as_ref().map(|it| it.saved);
        let earlier = restored.map(|it| it.objects).unwrap_or_default();
        let mut cache = WatchCache::new(&self.scope, earlier, self.ranges_configured);

        let (sender, mut events) = mpsc::channel(QUEUE);
        let mut watches = Watches {
            access: None,
            scope: self.scope,
            health: self.health.clone(),
            recovery: Recovery::default(),
            sender,
            tasks: JoinSet::new(),
            other_pods: None,
        };
        let mut kubeconfig = match self.access {
            AccessFrom::Start(access) => {
                watches.begin_all(*access).await?;
                None
            }
            AccessFrom::Kubeconfig(path) => Some(WatchedKubeconfig::new(path)),
        };

        let mut saving = SnapshotWriter::new(snapshot);
        let recall_at = Instant::now() + RECALL_AFTER;
        let mut findings = Findings::default();
        let mut may_recall = saved;
        loop {
            self.health.awaits(cache.awaited().collect());
            tokio::select! {
                Some((resource, event)) = events.recv() => {
                    cache.handle(resource, event);
                    // Whatever else has been said already: a burst becomes one update.
                    while let Ok((resource, event)) = events.try_recv() {
                        cache.handle(resource, event);
                    }
                }
                () = at(cache.deadline()) => {}
                () = tick(&mut kubeconfig) => {
                    if let Some(kubeconfig) = &mut kubeconfig {
                        watches.look_at(kubeconfig).await?;
                    }
                }
                () = sleep_until(recall_at), if may_recall.is_some() => {
                    let from = may_recall.take();
                    if let Some(update) = cache.recall() {
                        warn_of_age(from, &self.health);
                        self.health.recalled(from);
                        if updates.send(update).await.is_err() {
                            return Ok(());
                        }
                    }
                }
                () = saving.proceed(&cache, &self.health) => {}
                () = updates.closed() => return Ok(()),
            }
            let update = cache.update(Instant::now());
            watches.follow_other_pods(cache.wants_other_pods())?;
            if let Some(update) = update {
                may_recall = None;
                self.health.recalled(None);
                findings.log(&update);
                saving.has_changed();
                if updates.send(update).await.is_err() {
                    return Ok(());
                }
            }
            let input = StatusInput {
                policies: cache.policy_news(),
                nodes: cache.node_news(),
            };
            if let Some(statuses) = &self.statuses
                && input != StatusInput::default()
            {
                // The writer of statuses ends only with the agent.
                let _ = statuses.send(input);
            }
        }
    }
}

/// The watches that run.
struct Watches {
    /// `None` before it is known.
    access: Option<Access>,
    scope: WatchScope,
    health: SourceHealth,
    recovery: Recovery,
    sender: mpsc::Sender<(Resource, WatchEvent)>,
    tasks: JoinSet<()>,
    other_pods: Option<AbortHandle>,
}

impl Watches {
    /// Begins all watches, in the place of those that run. What these have said stands until the
    /// lists are complete again.
    async fn begin_all(&mut self, access: Access) -> Result<(), AccessError> {
        self.tasks.shutdown().await;
        self.health.asks(access.server());
        self.access = Some(access);
        for kind in self.scope.clone().kinds() {
            self.begin(kind)?;
        }
        Ok(())
    }

    /// Asks where the kubeconfig says, once it has changed. While it cannot be used, what runs goes
    /// on.
    async fn look_at(&mut self, kubeconfig: &mut WatchedKubeconfig) -> Result<(), AccessError> {
        let WatchScope::OtherCluster(cluster) = &self.scope else {
            return Ok(());
        };
        match kubeconfig.look().await {
            None => Ok(()),
            Some(Ok(access)) => {
                info!(%cluster, server = access.server(), "watching another cluster");
                self.begin_all(access).await
            }
            Some(Err(error)) => {
                warn!(%cluster, "another cluster's objects stay as they are: {error}");
                self.health.lacks_access(error.to_string());
                Ok(())
            }
        }
    }

    /// `None` while it is not known where the API server is.
    fn begin(&mut self, kind: &'static ResourceKind) -> Result<Option<AbortHandle>, AccessError> {
        let health = self.health.clone();
        let Some(access) = &self.access else {
            return Ok(None);
        };
        // A watch holds its connection anyway.
        let client = access.client_that(move || health.hears())?;
        let watch = resource_watch::follow(
            client,
            kind,
            self.scope.clone(),
            self.health.clone(),
            self.recovery.clone(),
            self.sender.clone(),
        );
        Ok(Some(self.tasks.spawn(watch)))
    }

    /// Of another cluster they are followed anyway.
    fn follow_other_pods(&mut self, wanted: bool) -> Result<(), AccessError> {
        if matches!(self.scope, WatchScope::OtherCluster(_)) {
            return Ok(());
        }
        match (wanted, &self.other_pods) {
            (true, None) => {
                info!("some policy depends on the pods of other nodes: watching them");
                self.other_pods = self.begin(ResourceKind::of(Resource::OtherPods))?;
            }
            (false, Some(watch)) => {
                info!("no policy depends on the pods of other nodes any more");
                watch.abort();
                self.health.is_well(Resource::OtherPods);
                self.other_pods = None;
            }
            (true, Some(_)) | (false, None) => {}
        }
        Ok(())
    }
}

/// Writes the snapshot in the background, a little after what is in force changed.
struct SnapshotWriter {
    snapshot: Option<ClusterSnapshot>,
    due: Option<Instant>,
    /// Not before.
    earliest: Instant,
    writing: Option<JoinHandle<(Result<(), DiskSnapshotError>, Duration)>>,
    failures: LogDedup,
}

impl SnapshotWriter {
    fn new(snapshot: Option<ClusterSnapshot>) -> Self {
        Self {
            snapshot,
            due: None,
            earliest: Instant::now(),
            writing: None,
            failures: LogDedup::default(),
        }
    }

    fn has_changed(&mut self) {
        let soon = Instant::now() + SAVE_AFTER;
        self.due.get_or_insert(soon.max(self.earliest));
    }

    /// The next step, when it is time for one. Can be dropped at any time and called again.
    async fn proceed(&mut self, cache: &WatchCache, health: &SourceHealth) {
        if let Some(writing) = &mut self.writing {
            // The task could only have panicked, and it does not.
            let (written, took) = writing.await.unwrap_or((Ok(()), Duration::ZERO));
            self.writing = None;
            self.earliest = Instant::now() + took * SAVE_SHARE;
            let line = |error| {
                format!(
                    "the objects in force cannot be written down: {error}; an agent that starts while the API server is away will \
                     not know them"
                )
            };
            let failure = written.err().map(|error| (Level::WARN, line(error)));
            for (_, line) in self.failures.replace(failure.into_iter().collect()) {
                warn!("{line}");
            }
            return;
        }
        at(self.due).await;
        self.due = None;
        health.holds(cache.sizes());
        let Some(snapshot) = self.snapshot.clone() else { return };
        let objects = cache.kept_objects();
        self.writing = Some(tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            (snapshot.save(&objects), began.elapsed())
        }));
    }
}

/// Resolves when it is time to look at a kubeconfig; never without one.
async fn tick(kubeconfig: &mut Option<WatchedKubeconfig>) {
    match kubeconfig {
        Some(kubeconfig) => kubeconfig.tick().await,
        None => std::future::pending().await,
    }
}

/// Resolves at this time; never where there is none.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn warn_of_age(saved: Option<SystemTime>, health: &SourceHealth) {
    let age = saved.and_then(|saved| saved.elapsed().ok()).unwrap_or_default();
    let age = Duration::from_secs(age.as_secs());
    let why = health.missing();
    warn!(
        "in force is what an earlier agent wrote down {} ago: {why}",
        humantime::format_duration(age)
    );
}

/// What updates found, each finding logged once for as long as it holds.
#[derive(Default)]
struct Findings {
    lines: LogDedup,
    /// The reports that they are of.
    of: Arc<[ReadReport]>,
}

impl Findings {
    fn log(&mut self, update: &Update) {
        if !Arc::ptr_eq(&self.of, &update.reports) {
            self.of = Arc::clone(&update.reports);
            for (level, line) in self.lines.replace(report_lines(&update.reports)) {
                match level {
                    Level::ERROR => error!("{line}"),
                    _ => warn!("{line}"),
                }
            }
        }
        debug!(changes = update.changes.len(), "objects were read");
    }
}
