//! Snapshots: JSON objects with the version of their format, bounded in size.
//!
//! A snapshot is a hint and no authority: whoever reads one decides when its content counts.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{Durability, StateDir, replace_with};

/// What a snapshot may take on disk, and in memory while it is read: some 300,000 pods.
pub const MAX_SNAPSHOT_BYTES: usize = 128 * 1024 * 1024;

/// One snapshot in the state directory. It survives a power cut. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DiskSnapshot {
    directory: StateDir,
    name: Arc<str>,
    version: u32,
}

/// Why a snapshot cannot be read or written.
#[derive(Debug, Error)]
pub enum DiskSnapshotError {
    /// The file cannot be opened, read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file does not hold JSON of the expected shape.
    #[error("it is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Another version of Namegate has written the file.
    #[error("it has version {found}, and this version reads {supported}")]
    Version {
        /// The version of the format in the file.
        found: u32,
        /// The version of the format that is read here.
        supported: u32,
    },
    /// The content is larger than [`MAX_SNAPSHOT_BYTES`].
    #[error("it would have, or has, more than {} MiB", MAX_SNAPSHOT_BYTES / 1024 / 1024)]
    TooLarge,
}

impl DiskSnapshotError {
    /// Whether there is no such file, which is how every state directory begins.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// The beginning of every snapshot.
#[derive(Deserialize)]
struct SnapshotHeader {
    version: u32,
}

#[derive(Serialize)]
struct VersionedContent<'a, T> {
    version: u32,
    #[serde(flatten)]
    content: &'a T,
}

impl DiskSnapshot {
    /// The snapshot in the file `name` of `directory`, in this version of its format.
    pub fn new(directory: &StateDir, name: &str, version: u32) -> Self {
        Self {
            directory: directory.clone(),
            name: name.into(),
            version,
        }
    }

    /// The path of the file.
    pub fn path(&self) -> PathBuf {
        self.directory.join(&*self.name)
    }

    /// Reads the text, for [`parse`](Self::parse), whose result may borrow from it.
    pub fn read(&self) -> Result<String, DiskSnapshotError> {
        let mut text = String::new();
        let file = File::open(self.path())?;
        file.take(MAX_SNAPSHOT_BYTES as u64 + 1).read_to_string(&mut text)?;
        if text.len() > MAX_SNAPSHOT_BYTES {
            return Err(DiskSnapshotError::TooLarge);
        }
        Ok(text)
    }

    /// The content of a text that [`read`](Self::read) gave.
    pub fn parse<'t, T: Deserialize<'t>>(&self, text: &'t str) -> Result<T, DiskSnapshotError> {
        let SnapshotHeader { version } = serde_json::from_str(text)?;
        if version != self.version {
            return Err(DiskSnapshotError::Version {
                found: version,
                supported: self.version,
            });
        }
        Ok(serde_json::from_str(text)?)
    }

    /// Replaces the file. `content` must be a struct or a map. Where it is too large the file stays
    /// as it was: an older state is better than none.
    pub fn write(&self, content: &impl Serialize) -> Result<(), DiskSnapshotError> {
        let mut is_too_large = false;
        let content = VersionedContent {
            version: self.version,
            content,
        };
        // Piece by piece: the text of 150,000 pods is as long as everything that an agent holds.
        let written = replace_with(&self.directory, &self.name, Durability::PowerCut, |file| {
            let mut file = LimitedWriter {
                file: BufWriter::new(file),
                left: MAX_SNAPSHOT_BYTES,
            };
            let written = serde_json::to_writer(&mut file, &content);
            is_too_large = file.left == 0;
            written?;
            file.flush()
        });
        match written {
            Err(_) if is_too_large => Err(DiskSnapshotError::TooLarge),
            other => Ok(other?),
        }
    }
}

/// Takes so many bytes, and none when there are more.
struct LimitedWriter<W> {
    file: W,
    left: usize,
}

impl<W: Write> Write for LimitedWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.left {
            self.left = 0;
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        let written = self.file.write(bytes)?;
        self.left -= written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Numbers {
        numbers: Vec<u32>,
    }

    #[test]
    fn only_a_snapshot_of_the_same_version_is_read() {
        let dir = TempDir::new().unwrap();
        let state = StateDir::new(dir.path().to_owned());
        let snapshot = DiskSnapshot::new(&state, "a.json", 1);
        assert!(snapshot.read().unwrap_err().is_absent());
        let content = Numbers { numbers: vec![1, 2] };
        snapshot.write(&content).unwrap();
        let text = snapshot.read().unwrap();
        assert_eq!(text, r#"{"version":1,"numbers":[1,2]}"#);
        assert_eq!(snapshot.parse::<Numbers>(&text).unwrap(), content);
        let newer = DiskSnapshot::new(&state, "a.json", 2);
        let error = newer.parse::<Numbers>(&text).unwrap_err().to_string();
        assert_eq!(error, "it has version 1, and this version reads 2");
        for text in ["", "{", "[]", r#"{"version":1}"#, r#"{"version":-1,"numbers":[]}"#] {
            assert!(snapshot.parse::<Numbers>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_too_large_leaves_the_file_as_it_was() {
        let dir = TempDir::new().unwrap();
        let snapshot = DiskSnapshot::new(&StateDir::new(dir.path().to_owned()), "a.json", 1);
        let content = Numbers { numbers: vec![1] };
        snapshot.write(&content).unwrap();
        let text = "x".repeat(MAX_SNAPSHOT_BYTES);
        let written = snapshot.write(&std::collections::BTreeMap::from([("text", text)]));
        assert!(matches!(written, Err(DiskSnapshotError::TooLarge)), "{written:?}");
        assert_eq!(snapshot.parse::<Numbers>(&snapshot.read().unwrap()).unwrap(), content);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_huge_file_is_not_read_into_memory() {
        let dir = TempDir::new().unwrap();
        let snapshot = DiskSnapshot::new(&StateDir::new(dir.path().to_owned()), "a.json", 1);
        let file = fs::File::create(snapshot.path()).unwrap();
        file.set_len(MAX_SNAPSHOT_BYTES as u64 + 1).unwrap();
        assert!(matches!(snapshot.read(), Err(DiskSnapshotError::TooLarge)));
    }
}
