//! The source of a cluster's objects and of those of other clusters, whose pods and nodes are
//! peers.
//!
//! The own cluster does not depend on the others: what one of them says late comes into force late,
//! and one that is away keeps what it said last.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{error, warn};

use crate::directory::DirectorySource;
use crate::kubernetes::KubernetesSource;
use crate::object::{Object, ObjectChange, ObjectKey, Update};
use crate::report::ReadReport;
use crate::source::{ObjectSource, SourceHandles};

/// How long the own cluster's first objects wait for those of others. Longer than a list of many
/// pods takes, and short enough that an agent whose neighbours are away is ready soon.
const PATIENCE: Duration = Duration::from_secs(5);

/// A source of the own cluster's objects, and those of other clusters.
#[derive(Debug)]
pub struct Mesh<S> {
    /// Where the own cluster's objects come from.
    pub own: S,
    /// The other clusters.
    pub others: Vec<OtherClusterSource>,
}

/// Where the objects of another cluster come from.
#[derive(Debug)]
pub struct OtherClusterSource {
    /// The name of the cluster.
    pub name: Arc<str>,
    /// Where they are.
    pub place: OtherClusterPlace,
}

/// Where the objects of another cluster are.
#[derive(Debug)]
pub enum OtherClusterPlace {
    /// In a directory.
    Directory(DirectorySource),
    /// In an API server.
    ApiServer(KubernetesSource),
}

impl<S: ObjectSource> ObjectSource for Mesh<S> {
    type Error = S::Error;

    fn handles(&mut self) -> SourceHandles {
        let others = self.others.iter_mut().map(|other| {
            let health = match &mut other.place {
                OtherClusterPlace::ApiServer(source) => source.handles().health,
                OtherClusterPlace::Directory(_) => None,
            };
            (Arc::clone(&other.name), health)
        });
        SourceHandles {
            others: others.collect(),
            ..self.own.handles()
        }
    }

    async fn run(self, updates: mpsc::Sender<Update>) -> Result<(), S::Error> {
        let names: Vec<Arc<str>> = self.others.iter().map(|other| Arc::clone(&other.name)).collect();
        let mut merged = MergedUpdates::new(names);
        // They end with this future.
        let mut tasks = JoinSet::new();
        let (of_others, mut told_by_others) = mpsc::channel(16);
        for other in self.others {
            tasks.spawn(other.run(of_others.clone()));
        }
        drop(of_others);
        let (of_own, mut told_by_own) = mpsc::channel(1);
        let own = self.own.run(of_own);
        tokio::pin!(own);
        loop {
            tokio::select! {
                ended = &mut own => return ended,
                Some(update) = told_by_own.recv() => merged.take_own(update, Instant::now()),
                Some((name, update)) = told_by_others.recv() => merged.take_other(&name, update),
                () = patience_ends(merged.deadline()) => {}
                () = updates.closed() => return Ok(()),
            }
            // What else there is becomes one update with it.
            while let Ok((name, update)) = told_by_others.try_recv() {
                merged.take_other(&name, update);
            }
            if let Some(update) = merged.update(Instant::now())
                && updates.send(update).await.is_err()
            {
                return Ok(());
            }
        }
    }
}

impl OtherClusterSource {
    /// Runs until the source ends or nobody listens, and names the cluster with each update.
    async fn run(self, updates: mpsc::Sender<(Arc<str>, Update)>) {
        let Self { name, place } = self;
        let (sender, mut told) = mpsc::channel(1);
        let forward = async {
            while let Some(update) = told.recv().await {
                if updates.send((Arc::clone(&name), update)).await.is_err() {
                    return;
                }
            }
        };
        let run = async {
            let ended = match place {
                OtherClusterPlace::Directory(source) => source.run(sender).await.map_err(|error| error.to_string()),
                OtherClusterPlace::ApiServer(source) => source.run(sender).await.map_err(|error| error.to_string()),
            };
            if let Err(failure) = ended {
                error!(cluster = %name, %failure, "nothing more is heard of another cluster; what it said stays in force");
            }
        };
        tokio::join!(run, forward);
    }
}

async fn patience_ends(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Updates of several clusters over time → those of all. Pure.
#[derive(Debug, Default)]
struct MergedUpdates {
    next: Update,
    /// Whether there is something to tell.
    is_news: bool,
    own_reports: Arc<[ReadReport]>,
    reports: BTreeMap<Arc<str>, Vec<ReadReport>>,
    /// All of them, as the last update told them; `None` where they are others since.
    told_reports: Option<Arc<[ReadReport]>>,
    /// Clusters that have said nothing yet.
    awaited: BTreeSet<Arc<str>>,
    /// When the own cluster's first objects came; `None` before.
    began: Option<Instant>,
    begun: bool,
}

impl MergedUpdates {
    fn new(others: Vec<Arc<str>>) -> Self {
        Self {
            awaited: others.into_iter().collect(),
            ..Self::default()
        }
    }

    fn take_own(&mut self, update: Update, now: Instant) {
        let Update { changes, reports, .. } = update;
        self.next.changes.extend(changes);
        if !Arc::ptr_eq(&self.own_reports, &reports) {
            self.own_reports = reports;
            self.told_reports = None;
        }
        self.began.get_or_insert(now);
        self.is_news = true;
    }

    /// Policies and CIDR groups of other clusters are no business of this one.
    fn take_other(&mut self, cluster: &Arc<str>, update: Update) {
        let Update { changes, reports, .. } = update;
        let changes = changes.into_iter().filter(is_of_peers);
        let changes = changes.map(|change| (Arc::clone(cluster), change));
        self.next.of_others.extend(changes);
        let reports = reports.iter().filter(|report| !report.is_policy());
        let reports = reports.map(|report| ReadReport {
            object: match report.object.as_str() {
                "" => format!("cluster {cluster}"),
                object => format!("{object} of the cluster {cluster}"),
            },
            ..report.clone()
        });
        let reports: Vec<ReadReport> = reports.collect();
        if self.reports.get(cluster) != Some(&reports) {
            self.reports.insert(Arc::clone(cluster), reports);
            self.told_reports = None;
        }
        self.awaited.remove(cluster);
        self.is_news = true;
    }

    /// When the first update no longer waits for other clusters.
    fn deadline(&self) -> Option<Instant> {
        self.began.filter(|_| !self.begun).map(|began| began + PATIENCE)
    }

    /// What has not been told, once the own cluster has begun. Its first objects wait for those of
    /// the others, so that no rule about these is in force without them.
    fn update(&mut self, now: Instant) -> Option<Update> {
        let began = self.began?;
        if !self.is_news || !self.begun && !self.awaited.is_empty() && now < began + PATIENCE {
            return None;
        }
        if !self.begun && !self.awaited.is_empty() {
            let awaited: Vec<&str> = self.awaited.iter().map(|name| &**name).collect();
            warn!(
                clusters = awaited.join(", "),
                "other clusters have not told their objects yet: what policies say of these matches nothing until they do"
            );
        }
        self.begun = true;
        self.is_news = false;
        let mut update = std::mem::take(&mut self.next);
        let reports = self.told_reports.get_or_insert_with(|| {
            let reports = self.own_reports.iter().chain(self.reports.values().flatten());
            reports.cloned().collect()
        });
        update.reports = Arc::clone(reports);
        Some(update)
    }
}

fn is_of_peers(change: &ObjectChange) -> bool {
    !matches!(
        change,
        ObjectChange::Apply(Object::Policy(_) | Object::CidrGroup(_))
            | ObjectChange::Delete(ObjectKey::Policy(_) | ObjectKey::CidrGroup(_))
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::report::ReportState;

    use super::*;

    fn update(pod: &str) -> Update {
        let object = json!({"metadata": {"name": pod, "namespace": "shop"}});
        let report = |object: String| ReadReport::new(None, object, ReportState::Rejected, Vec::new());
        Update {
            changes: vec![
                ObjectChange::Apply(Object::Pod(Arc::new(serde_json::from_value(object).unwrap()))),
                ObjectChange::Delete(ObjectKey::CidrGroup("g".into())),
            ],
            reports: Arc::new([report(format!("Pod shop/{pod}")), report("NetworkPolicy shop/p".into())]),
            ..Update::default()
        }
    }

    fn names(update: &Update) -> (usize, Vec<String>, Vec<String>) {
        let others = update.of_others.iter().map(|(name, change)| match change {
            ObjectChange::Apply(Object::Pod(pod)) => format!("{name} {}", pod.name),
            other => panic!("{other:?}"),
        });
        let reports = update.reports.iter().map(|report| report.object.clone());
        (update.changes.len(), others.collect(), reports.collect())
    }

    #[test]
    fn the_first_update_waits_for_other_clusters_and_not_for_ever() {
        let now = Instant::now();
        let west = Arc::from("west");
        let mut merged = MergedUpdates::new(vec![Arc::clone(&west), "north".into()]);
        merged.take_other(&west, update("a"));
        assert_eq!(merged.update(now), None, "the own cluster has not begun");
        merged.take_own(update("b"), now);
        assert_eq!((merged.update(now), merged.deadline()), (None, Some(now + PATIENCE)));
        let first = merged.update(now + PATIENCE).unwrap();
        assert_eq!(
            names(&first),
            (
                2,
                vec!["west a".to_owned()],
                ["Pod shop/b", "NetworkPolicy shop/p", "Pod shop/a of the cluster west"]
                    .map(str::to_owned)
                    .into()
            )
        );
        assert_eq!((merged.update(now + PATIENCE), merged.deadline()), (None, None));
        merged.take_other(&"north".into(), update("c"));
        let second = merged.update(now + PATIENCE).unwrap();
        assert_eq!(names(&second).1, ["north c"]);
        assert_eq!(second.reports.len(), 4, "reports are complete");
    }

    #[test]
    fn with_every_cluster_known_nothing_waits() {
        let now = Instant::now();
        let mut merged = MergedUpdates::new(vec!["west".into()]);
        merged.take_own(update("b"), now);
        merged.take_other(&"west".into(), update("a"));
        assert!(merged.update(now).is_some());
        merged.take_own(update("c"), now);
        assert_eq!(merged.update(now).unwrap().changes.len(), 2);
    }
}
