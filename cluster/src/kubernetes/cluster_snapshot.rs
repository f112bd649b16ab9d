//! The objects in force on disk, for an agent that starts while the API server is away.
//!
//! The snapshot comes into force only while the API server does not answer, and a version in it
//! stands for a policy only while that is refused.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use state_dir::{CLUSTER_FILE, DiskSnapshot, DiskSnapshotError, StateDir};
use thiserror::Error;
use tracing::{info, warn};

use crate::kept_object::KeptObject;
use crate::slim::Interner;

use super::health::{unix, unix_now};

/// The version of the format.
const VERSION: u32 = 1;

/// The snapshot of one node of one cluster.
#[derive(Debug, Clone)]
pub(super) struct ClusterSnapshot {
    file: DiskSnapshot,
    server: String,
    node: String,
}

/// What an earlier process had in force.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RestoredCluster {
    /// When the snapshot was written.
    pub(super) saved: SystemTime,
    /// Every object.
    pub(super) objects: Vec<KeptObject>,
}

#[derive(Debug, Error)]
enum ClusterRestoreError {
    #[error(transparent)]
    Snapshot(#[from] DiskSnapshotError),
    #[error("it is about node {node} at {server}")]
    OtherCluster { server: String, node: String },
}

#[derive(Debug, Serialize)]
struct WrittenCluster<'a> {
    server: &'a str,
    node: &'a str,
    /// Seconds of Unix time.
    saved: u64,
    documents: &'a [KeptObject],
}

/// As [`WrittenCluster`].
#[derive(Debug, Deserialize)]
struct SavedCluster<'a> {
    server: String,
    node: String,
    saved: u64,
    #[serde(borrow)]
    documents: Vec<&'a RawValue>,
}

impl ClusterSnapshot {
    /// The snapshot of `node` in the cluster of `server`.
    pub(super) fn new(state_dir: &StateDir, server: String, node: String) -> Self {
        Self {
            file: DiskSnapshot::new(state_dir, CLUSTER_FILE, VERSION),
            server,
            node,
        }
    }

    /// The snapshot of another cluster, which is known by its name: its API server may move.
    pub(super) fn of_other(state_dir: &StateDir, cluster: &str) -> Self {
        Self {
            file: DiskSnapshot::new(state_dir, &state_dir::other_cluster_file(cluster), VERSION),
            server: format!("the cluster {cluster}"),
            node: String::new(),
        }
    }

    /// What an earlier process had in force; `None` without a file, or with one that cannot be
    /// used.
    pub(super) fn restore(&self) -> Option<RestoredCluster> {
        let file = self.file.path();
        match self.read() {
            Ok(restored) => Some(restored),
            Err(ClusterRestoreError::Snapshot(error)) if error.is_absent() => None,
            Err(error @ ClusterRestoreError::OtherCluster { .. }) => {
                info!(file = %file.display(), "what an earlier agent had in force is not used: {error}");
                None
            }
            Err(error) => {
                warn!(file = %file.display(), "what an earlier agent had in force cannot be used: {error}");
                None
            }
        }
    }

    /// Writes what is in force now.
    pub(super) fn save(&self, objects: &[KeptObject]) -> Result<(), DiskSnapshotError> {
        let since_epoch = unix_now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.file.write(&WrittenCluster {
            server: &self.server,
            node: &self.node,
            saved: since_epoch.as_secs(),
            documents: objects,
        })
    }

    fn read(&self) -> Result<RestoredCluster, ClusterRestoreError> {
        let text = self.file.read()?;
        let saved: SavedCluster<'_> = self.file.parse(&text)?;
        if (&saved.server, &saved.node) != (&self.server, &self.node) {
            return Err(ClusterRestoreError::OtherCluster {
                server: saved.server,
                node: saved.node,
            });
        }
        let mut interner = Interner::default();
        let objects = saved.documents.iter();
        Ok(RestoredCluster {
            saved: unix(saved.saved),
            objects: objects
                .filter_map(|document| KeptObject::read(document.get(), &mut interner))
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn what_is_saved_is_restored_by_the_same_node_of_the_same_cluster_only() {
        let dir = TempDir::new().unwrap();
        let snapshot = |server: &str, node: &str| {
            ClusterSnapshot::new(&StateDir::new(dir.path().to_owned()), server.into(), node.into())
        };
        let pod = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"status":{"podIP":"10.0.0.1"}}"#;
        let policy = r#"{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"p"},"spec":{"podSelector":{},"policyTypes":["Egress"]}}"#;
        let objects: Vec<KeptObject> = [pod, policy]
            .iter()
            .filter_map(|it| KeptObject::read(it, &mut Interner::default()))
            .collect();
        assert!(matches!(objects[..], [KeptObject::Slim(_), KeptObject::Document(_)]));
        assert_eq!(snapshot("s", "n").restore(), None);
        snapshot("s", "n").save(&objects).unwrap();
        let restored = snapshot("s", "n").restore().unwrap();
        assert_eq!(restored.objects, objects);
        assert!(restored.saved <= unix_now());
        assert_eq!(snapshot("other", "n").restore(), None);
        assert_eq!(snapshot("s", "other").restore(), None);
    }

    #[test]
    fn a_file_that_is_not_ours_is_no_snapshot() {
        let dir = TempDir::new().unwrap();
        let snapshot = ClusterSnapshot::new(&StateDir::new(dir.path().to_owned()), "s".into(), "n".into());
        for text in [
            "",
            "{",
            "[]",
            r#"{"version":2,"server":"s","node":"n","saved":1,"documents":[]}"#,
            r#"{"version":1,"server":"s","node":"n","saved":-1,"documents":[]}"#,
        ] {
            fs::write(dir.path().join(CLUSTER_FILE), text).unwrap();
            assert_eq!(snapshot.restore(), None, "{text}");
        }
    }
}
