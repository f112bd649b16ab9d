//! The last good versions on disk: a pod that waits for the agent to crash after an operator's
//! mistake waits in vain (docs/security.md, 7).
//!
//! A version in the snapshot comes into force only for an object that is still defined, or whose
//! file is still there, and cannot be read now; and it is read as if it stood in that file.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use state_dir::{DiskSnapshot, DiskSnapshotError, OBJECTS_FILE, StateDir};
use thiserror::Error;
use tracing::{Level, info, warn};

use crate::catalogue::{LastGood, SavedObjects, SavedVersion};
use crate::kept_object::KeptObject;
use crate::log_dedup::LogDedup;

/// The version of the format.
const VERSION: u32 = 1;

/// The snapshot for one directory of objects.
#[derive(Debug)]
pub(crate) struct LastGoodSnapshot {
    file: DiskSnapshot,
    objects: PathBuf,
    /// Whether the file was written by this process, so that what did not change stands in it.
    is_ours: bool,
    /// What is not written yet.
    pending: SavedObjects,
    failures: LogDedup,
}

/// What came of writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SaveOutcome {
    /// The file holds everything, or will with the next call.
    Done,
    /// The file is not there any more, or somebody else's: everything must be told again.
    Lost,
}

#[derive(Debug, Error)]
enum LastGoodRestoreError {
    #[error(transparent)]
    Snapshot(#[from] DiskSnapshotError),
    /// Of another `--objects`, where a file of the same name is another file.
    #[error("it is about the objects in {0}")]
    OtherDirectory(String),
}

#[derive(Debug, Serialize)]
struct WrittenDirectory<'a> {
    /// The absolute path of `--objects`.
    directory: String,
    objects: Vec<WrittenVersion<'a>>,
}

#[derive(Debug, Serialize)]
struct WrittenVersion<'a> {
    /// The path below the directory.
    file: &'a str,
    document: &'a KeptObject,
}

/// As [`WrittenDirectory`].
#[derive(Debug, Deserialize)]
struct SavedDirectory<'a> {
    directory: String,
    #[serde(borrow)]
    objects: Vec<SavedObject<'a>>,
}

#[derive(Debug, Deserialize)]
struct SavedObject<'a> {
    file: String,
    #[serde(borrow)]
    document: &'a RawValue,
}

impl LastGoodSnapshot {
    /// The snapshot of `objects`, the directory as it stands before the paths of files.
    pub(crate) fn new(state_dir: &StateDir, objects: &Path) -> Self {
        Self {
            file: DiskSnapshot::new(state_dir, OBJECTS_FILE, VERSION),
            objects: objects.to_owned(),
            is_ours: false,
            pending: SavedObjects::default(),
            failures: LogDedup::default(),
        }
    }

    /// What an earlier process had in force; empty without a file, or with one that cannot be used.
    pub(crate) fn restore(&self) -> Vec<LastGood> {
        let file = self.file.path();
        match self.read() {
            Ok(objects) => objects,
            Err(LastGoodRestoreError::Snapshot(error)) if error.is_absent() => Vec::new(),
            Err(error @ LastGoodRestoreError::OtherDirectory(_)) => {
                info!(file = %file.display(), "the last good versions of an earlier agent are not used: {error}");
                Vec::new()
            }
            Err(error) => {
                warn!(file = %file.display(), "the last good versions of an earlier agent cannot be used: {error}");
                Vec::new()
            }
        }
    }

    /// Writes what changed; the first time, that is everything. What did not change is taken from
    /// the file, and not kept in memory. A failure is logged once as long as it lasts, and the next
    /// call tries again.
    pub(crate) fn save(&mut self, changed: SavedObjects) -> SaveOutcome {
        self.pending.update(changed);
        if self.pending.is_empty() {
            return SaveOutcome::Done;
        }
        let mut failure = BTreeSet::new();
        let mut outcome = SaveOutcome::Done;
        let written = match self.merged() {
            Ok(objects) => self.write(&objects),
            Err(error) => {
                outcome = SaveOutcome::Lost;
                self.is_ours = false;
                Err(error)
            }
        };
        match written {
            Ok(()) => {
                self.is_ours = true;
                self.pending = SavedObjects::default();
            }
            Err(error) => {
                failure.insert((
                    Level::WARN,
                    format!(
                        "the objects in force cannot be written down: {error}; an agent that starts while one of their files is \
                         broken will not know its last good version"
                    ),
                ));
            }
        }
        for (_, line) in self.failures.replace(failure) {
            warn!(file = %self.file.path().display(), "{line}");
        }
        outcome
    }

    /// Whether something is still to be written.
    pub(crate) fn has_failed(&self) -> bool {
        !self.pending.is_empty()
    }

    /// What the file holds, and over it what is pending.
    fn merged(&self) -> Result<SavedObjects, DiskSnapshotError> {
        let mut objects = SavedObjects::default();
        if self.is_ours {
            let known = self.read().map_err(|error| match error {
                LastGoodRestoreError::Snapshot(error) => error,
                other => DiskSnapshotError::from(io::Error::other(other)),
            })?;
            for LastGood { file, document } in known {
                let versions = objects.files.entry(file).or_default();
                versions.push(SavedVersion::Kept(KeptObject::Document(document)));
            }
        }
        objects.update(self.pending.clone());
        Ok(objects)
    }

    fn read(&self) -> Result<Vec<LastGood>, LastGoodRestoreError> {
        let text = self.file.read()?;
        let saved: SavedDirectory<'_> = self.file.parse(&text)?;
        if saved.directory != self.directory().map_err(DiskSnapshotError::from)? {
            return Err(LastGoodRestoreError::OtherDirectory(saved.directory));
        }
        let objects = saved.objects.into_iter().map(|object| LastGood {
            file: self.objects.join(object.file),
            document: Arc::from(object.document.get()),
        });
        Ok(objects.collect())
    }

    fn write(&self, objects: &SavedObjects) -> Result<(), DiskSnapshotError> {
        self.file.write(&WrittenDirectory {
            directory: self.directory()?,
            objects: objects
                .kept()
                .filter_map(|(file, document)| self.written(file, document))
                .collect(),
        })
    }

    /// `None` for a file whose name is not text, which JSON cannot hold.
    fn written<'a>(&self, file: &'a Path, document: &'a KeptObject) -> Option<WrittenVersion<'a>> {
        let file = file.strip_prefix(&self.objects).ok()?.to_str()?;
        Some(WrittenVersion { file, document })
    }

    fn directory(&self) -> io::Result<String> {
        Ok(std::path::absolute(&self.objects)?.to_string_lossy().into_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    fn version(file: &str, document: &str) -> LastGood {
        LastGood {
            file: file.into(),
            document: document.into(),
        }
    }

    fn changed(objects: &[LastGood]) -> SavedObjects {
        let mut changed = SavedObjects::default();
        for LastGood { file, document } in objects {
            let versions = changed.files.entry(file.clone()).or_default();
            versions.push(SavedVersion::Kept(KeptObject::Document(Arc::clone(document))));
        }
        changed
    }

    fn gone(file: &str) -> SavedObjects {
        SavedObjects {
            files: [(file.into(), Vec::new())].into(),
        }
    }

    #[test]
    fn what_is_saved_is_restored_for_the_same_directory_only() {
        let dir = TempDir::new().unwrap();
        let objects = vec![
            version("objects/a.yaml", r#"{"kind":"x","n":1.50}"#),
            version("objects/b/c.yaml", "{}"),
        ];
        let snapshot = |of: &str| LastGoodSnapshot::new(&StateDir::new(dir.path().to_owned()), Path::new(of));
        assert_eq!(snapshot("objects").restore(), []);
        let mut ours = snapshot("objects");
        ours.save(changed(&objects));
        assert_eq!(snapshot("objects").restore(), objects);
        assert_eq!(snapshot("other").restore(), []);
        // What did not change stays.
        ours.save(gone("objects/a.yaml"));
        assert_eq!(snapshot("objects").restore(), objects[1..]);
        // What another process has left is replaced.
        snapshot("objects").save(gone("objects/a.yaml"));
        assert_eq!(snapshot("objects").restore(), []);
    }

    #[test]
    fn what_has_not_changed_is_not_written_again_and_a_failure_is_made_good() {
        let dir = TempDir::new().unwrap();
        let state = dir.path().join("state");
        fs::write(&state, "in the way").unwrap();
        let mut snapshot = LastGoodSnapshot::new(&StateDir::new(state.clone()), Path::new("objects"));
        let objects = vec![version("objects/a.yaml", "{}")];
        snapshot.save(changed(&objects));
        assert!(!snapshot.failures.is_empty());
        fs::remove_file(&state).unwrap();
        snapshot.save(SavedObjects::default());
        assert_eq!((snapshot.failures.is_empty(), snapshot.restore()), (true, objects));
        fs::remove_file(snapshot.file.path()).unwrap();
        assert_eq!(snapshot.save(SavedObjects::default()), SaveOutcome::Done);
        assert!(!snapshot.file.path().exists());
        // What did not change is needed, and not there.
        assert_eq!(snapshot.save(gone("objects/b.yaml")), SaveOutcome::Lost);
        let all = vec![version("objects/a.yaml", "{}"), version("objects/c.yaml", "[]")];
        assert_eq!(snapshot.save(changed(&all)), SaveOutcome::Done);
        assert_eq!(snapshot.restore(), all);
    }

    #[test]
    fn a_version_that_is_kept_is_taken_from_the_file() {
        let dir = TempDir::new().unwrap();
        let mut snapshot = LastGoodSnapshot::new(&StateDir::new(dir.path().to_owned()), Path::new("objects"));
        let pod = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}}"#;
        snapshot.save(changed(&[version("objects/a.yaml", pod)]));
        // Its file was renamed, and holds a refused version of it now.
        let mut moved = gone("objects/a.yaml");
        let as_before = vec![SavedVersion::AsBefore("Pod default/a".into())];
        moved.files.insert("objects/b.yaml".into(), as_before);
        snapshot.save(moved);
        assert_eq!(snapshot.restore(), [version("objects/b.yaml", pod)]);
    }

    #[test]
    fn a_file_that_is_not_ours_is_no_snapshot() {
        let dir = TempDir::new().unwrap();
        let snapshot = LastGoodSnapshot::new(&StateDir::new(dir.path().to_owned()), Path::new("/objects"));
        for text in [
            "",
            "{",
            "[]",
            r#"{"version":2,"directory":"/objects","objects":[]}"#,
            r#"{"version":1,"directory":"/objects","objects":[{"file":"a"}]}"#,
            r#"{"version":1,"directory":"/objects","objects":[{"file":1,"document":{}}]}"#,
        ] {
            fs::write(snapshot.file.path(), text).unwrap();
            assert_eq!(snapshot.restore(), [], "{text}");
            assert!(snapshot.read().is_err(), "{text}");
        }
    }
}
