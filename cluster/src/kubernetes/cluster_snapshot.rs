//! The objects in force on disk, for an agent that starts while the API server is away.
//!
//! The file is a memory and no authority: it comes into force only while the API server does not
//! answer, and a version in it stands for a policy only while that is refused.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use state_dir::CLUSTER_FILE;
use state_dir::{Durability, StateDir};
use thiserror::Error;
use tracing::{info, warn};

/// The version of the format.
const VERSION: u32 = 1;
/// Some 100,000 pods, and a bound for what is read into memory.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// The file of one node of one cluster.
#[derive(Debug, Clone)]
pub struct Memory {
    state_dir: StateDir,
    server: String,
    node: String,
}

/// What an earlier process had in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// When it was written down.
    pub saved: SystemTime,
    /// Every object, as a document.
    pub documents: Vec<Arc<str>>,
}

#[derive(Debug, Error)]
enum MemoryError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error("it has version {0}, and this version reads {VERSION}")]
    Version(u32),
    #[error("it is about node {node} at {server}")]
    Elsewhere { server: String, node: String },
    #[error("it would have, or has, more than {} MiB", MAX_BYTES / 1024 / 1024)]
    TooLarge,
}

#[derive(Debug, Serialize, Deserialize)]
struct Saved<'a> {
    version: u32,
    server: String,
    node: String,
    /// Seconds of Unix time.
    saved: u64,
    #[serde(borrow)]
    documents: Vec<&'a RawValue>,
}

impl Memory {
    /// The memory of `node` in the cluster of `server`.
    pub fn new(state_dir: &StateDir, server: String, node: String) -> Self {
        Self {
            state_dir: state_dir.clone(),
            server,
            node,
        }
    }

    /// What an earlier process had in force. Without a file, or with one that cannot be used:
    /// nothing.
    pub fn recall(&self) -> Option<Remembered> {
        let file = self.state_dir.join(CLUSTER_FILE);
        match self.read(&file) {
            Ok(remembered) => Some(remembered),
            Err(MemoryError::Io(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error @ MemoryError::Elsewhere { .. }) => {
                info!(file = %file.display(), "what an earlier agent had in force is not used: {error}");
                None
            }
            Err(error) => {
                warn!(file = %file.display(), "what an earlier agent had in force cannot be used: {error}");
                None
            }
        }
    }

    /// Writes down what is in force now.
    pub fn keep(&self, documents: &[Arc<str>]) -> Result<(), String> {
        self.write(documents).map_err(|error| error.to_string())
    }

    fn read(&self, file: &Path) -> Result<Remembered, MemoryError> {
        let mut text = String::new();
        File::open(file)?.take(MAX_BYTES as u64 + 1).read_to_string(&mut text)?;
        if text.len() > MAX_BYTES {
            return Err(MemoryError::TooLarge);
        }
        let saved: Saved<'_> = serde_json::from_str(&text)?;
        if saved.version != VERSION {
            return Err(MemoryError::Version(saved.version));
        }
        if (&saved.server, &saved.node) != (&self.server, &self.node) {
            return Err(MemoryError::Elsewhere {
                server: saved.server,
                node: saved.node,
            });
        }
        Ok(Remembered {
            saved: super::health::unix(saved.saved),
            documents: saved
                .documents
                .iter()
                .map(|document| Arc::from(document.get()))
                .collect(),
        })
    }

    fn write(&self, documents: &[Arc<str>]) -> Result<(), MemoryError> {
        let since_epoch = super::health::unix_now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let raw = documents.iter().map(|document| serde_json::from_str(document));
        let bytes = serde_json::to_vec(&Saved {
            version: VERSION,
            server: self.server.clone(),
            node: self.node.clone(),
            saved: since_epoch.as_secs(),
            documents: raw.collect::<Result<_, _>>()?,
        })?;
        if bytes.len() > MAX_BYTES {
            // The older file stays: an older state is better than none.
            return Err(MemoryError::TooLarge);
        }
        Ok(state_dir::replace(
            &self.state_dir,
            CLUSTER_FILE,
            &bytes,
            Durability::PowerCut,
        )?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn what_is_kept_is_recalled_by_the_same_node_of_the_same_cluster_only() {
        let dir = TempDir::new().unwrap();
        let memory =
            |server: &str, node: &str| Memory::new(&StateDir::new(dir.path().to_owned()), server.into(), node.into());
        let documents: Vec<Arc<str>> = vec![r#"{"kind":"x","n":1.50}"#.into(), "{}".into()];
        assert_eq!(memory("s", "n").recall(), None);
        memory("s", "n").keep(&documents).unwrap();
        let recalled = memory("s", "n").recall().unwrap();
        assert_eq!(recalled.documents, documents);
        assert!(recalled.saved <= super::super::health::unix_now());
        assert_eq!(memory("other", "n").recall(), None);
        assert_eq!(memory("s", "other").recall(), None);
    }

    #[test]
    fn a_file_that_is_not_ours_is_no_memory() {
        let dir = TempDir::new().unwrap();
        let memory = Memory::new(&StateDir::new(dir.path().to_owned()), "s".into(), "n".into());
        for text in [
            "",
            "{",
            "[]",
            r#"{"version":2,"server":"s","node":"n","saved":1,"documents":[]}"#,
            r#"{"version":1,"server":"s","node":"n","saved":-1,"documents":[]}"#,
        ] {
            fs::write(dir.path().join(CLUSTER_FILE), text).unwrap();
            assert_eq!(memory.recall(), None, "{text}");
        }
    }
}
