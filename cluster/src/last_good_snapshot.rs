//! The last good versions on disk: a pod that waits for the agent to crash after an operator's
//! mistake waits in vain (docs/security.md, 7).
//!
//! The file is a memory and no authority: what it holds comes into force only for an object that is
//! still defined, or whose file is still there, and cannot be read now; and it is read as if it
//! stood in that file.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use state_dir::OBJECTS_FILE;
use state_dir::{Durability, StateDir};
use thiserror::Error;
use tracing::{info, warn};

use super::catalogue::LastGood;

/// The version of the format.
const VERSION: u32 = 1;
/// Far above the objects of any one node, and a bound for what is read into memory.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// The file for one directory of objects.
#[derive(Debug)]
pub struct Memory {
    state_dir: StateDir,
    objects: PathBuf,
    written: Option<Vec<LastGood>>,
    trouble: Option<String>,
}

/// Why there is nothing to remember, or nothing can be written down.
#[derive(Debug, Error)]
pub enum MemoryError {
    /// The file system.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Not JSON, or not of this shape.
    #[error("it is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Written by another version.
    #[error("it has version {0}, and this version reads {VERSION}")]
    Version(u32),
    /// Of another `--objects`, where a file of the same name is another file.
    #[error("it is about the objects in {0}")]
    OtherDirectory(String),
    /// Too many or too large objects.
    #[error("it would have, or has, more than {} MiB", MAX_BYTES / 1024 / 1024)]
    TooLarge,
}

#[derive(Debug, Serialize, Deserialize)]
struct Saved<'a> {
    version: u32,
    /// The absolute path of `--objects`.
    directory: String,
    #[serde(borrow)]
    objects: Vec<SavedObject<'a>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedObject<'a> {
    /// Below the directory.
    file: String,
    #[serde(borrow)]
    document: &'a RawValue,
}

impl Memory {
    /// `objects` is the directory as it stands before the paths of files.
    pub fn new(state_dir: &StateDir, objects: &Path) -> Self {
        Self {
            state_dir: state_dir.clone(),
            objects: objects.to_owned(),
            written: None,
            trouble: None,
        }
    }

    /// What an earlier process had in force. Without a file, or with one that cannot be used:
    /// nothing.
    pub fn recall(&self) -> Vec<LastGood> {
        match self.read() {
            Ok(objects) => objects,
            Err(MemoryError::Io(error)) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error @ MemoryError::OtherDirectory(_)) => {
                info!(file = %self.file().display(), "the last good versions of an earlier agent are not used: {error}");
                Vec::new()
            }
            Err(error) => {
                warn!(file = %self.file().display(), "the last good versions of an earlier agent cannot be used: {error}");
                Vec::new()
            }
        }
    }

    /// Writes them down, if they are not. What stops that is said once as long as it stands; it is
    /// tried again at the next call.
    pub fn keep(&mut self, objects: Vec<LastGood>) {
        if self.written.as_ref() == Some(&objects) {
            return;
        }
        let trouble = self.write(&objects).err().map(|error| error.to_string());
        match &trouble {
            None => self.written = Some(objects),
            Some(trouble) if self.trouble.as_ref() != Some(trouble) => {
                warn!(
                    file = %self.file().display(),
                    "the objects in force cannot be written down: {trouble}; an agent that starts while one of their files is broken will not know its last good version"
                );
            }
            Some(_) => {}
        }
        self.trouble = trouble;
    }

    fn read(&self) -> Result<Vec<LastGood>, MemoryError> {
        let mut text = String::new();
        let file = File::open(self.file())?;
        file.take(MAX_BYTES as u64 + 1).read_to_string(&mut text)?;
        if text.len() > MAX_BYTES {
            return Err(MemoryError::TooLarge);
        }
        let saved: Saved<'_> = serde_json::from_str(&text)?;
        if saved.version != VERSION {
            return Err(MemoryError::Version(saved.version));
        }
        if saved.directory != self.directory()? {
            return Err(MemoryError::OtherDirectory(saved.directory));
        }
        let objects = saved.objects.into_iter().map(|object| LastGood {
            file: self.objects.join(object.file),
            document: Arc::from(object.document.get()),
        });
        Ok(objects.collect())
    }

    fn write(&self, objects: &[LastGood]) -> Result<(), MemoryError> {
        let saved = Saved {
            version: VERSION,
            directory: self.directory()?,
            objects: objects.iter().filter_map(|object| self.saved(object)).collect(),
        };
        let bytes = serde_json::to_vec(&saved)?;
        if bytes.len() > MAX_BYTES {
            // The older file stays: an old good version is better than none.
            return Err(MemoryError::TooLarge);
        }
        Ok(state_dir::replace(
            &self.state_dir,
            OBJECTS_FILE,
            &bytes,
            Durability::PowerCut,
        )?)
    }

    /// `None` for a file whose name is not text, which JSON cannot hold.
    fn saved<'a>(&self, object: &'a LastGood) -> Option<SavedObject<'a>> {
        Some(SavedObject {
            file: object.file.strip_prefix(&self.objects).ok()?.to_str()?.to_owned(),
            document: serde_json::from_str(&object.document).ok()?,
        })
    }

    fn directory(&self) -> io::Result<String> {
        Ok(std::path::absolute(&self.objects)?.to_string_lossy().into_owned())
    }

    fn file(&self) -> PathBuf {
        self.state_dir.join(OBJECTS_FILE)
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

    #[test]
    fn what_is_kept_is_recalled_for_the_same_directory_only() {
        let dir = TempDir::new().unwrap();
        let objects = vec![
            version("objects/a.yaml", r#"{"kind":"x","n":1.50}"#),
            version("objects/b/c.yaml", "{}"),
        ];
        let memory = |of: &str| Memory::new(&StateDir::new(dir.path().to_owned()), Path::new(of));
        assert_eq!(memory("objects").recall(), []);
        memory("objects").keep(objects.clone());
        assert_eq!(memory("objects").recall(), objects);
        assert_eq!(memory("other").recall(), []);
        memory("objects").keep(Vec::new());
        assert_eq!(memory("objects").recall(), []);
    }

    #[test]
    fn what_has_not_changed_is_not_written_again_and_a_failure_is_made_good() {
        let dir = TempDir::new().unwrap();
        let state = dir.path().join("state");
        fs::write(&state, "in the way").unwrap();
        let mut memory = Memory::new(&StateDir::new(state.clone()), Path::new("objects"));
        let objects = vec![version("objects/a.yaml", "{}")];
        memory.keep(objects.clone());
        assert!(memory.trouble.is_some());
        fs::remove_file(&state).unwrap();
        memory.keep(objects.clone());
        assert_eq!((memory.trouble.as_ref(), memory.recall()), (None, objects.clone()));
        fs::remove_file(memory.file()).unwrap();
        memory.keep(objects);
        assert!(!memory.file().exists());
    }

    #[test]
    fn a_file_that_is_not_ours_is_no_memory() {
        let dir = TempDir::new().unwrap();
        let memory = Memory::new(&StateDir::new(dir.path().to_owned()), Path::new("/objects"));
        for text in [
            "",
            "{",
            "[]",
            r#"{"version":2,"directory":"/objects","objects":[]}"#,
            r#"{"version":1,"directory":"/objects","objects":[{"file":"a"}]}"#,
            r#"{"version":1,"directory":"/objects","objects":[{"file":1,"document":{}}]}"#,
        ] {
            fs::write(memory.file(), text).unwrap();
            assert_eq!(memory.recall(), [], "{text}");
            assert!(memory.read().is_err(), "{text}");
        }
        File::create(memory.file())
            .unwrap()
            .set_len(MAX_BYTES as u64 + 1)
            .unwrap();
        assert!(matches!(memory.read(), Err(MemoryError::TooLarge)));
    }
}
