//! The state directory (`--state-dir`): files that outlive the process, and how they are replaced.
//!
//! In an upgrade two agents share the directory. Each writes to a new file and renames it over the
//! old one, so that every file is whole and the last writer wins.
//!
//! - [`DiskSnapshot`]: versioned JSON of bounded size.
//! - [`replace`], [`replace_with`]: any other content.

mod disk_snapshot;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tempfile::NamedTempFile;

pub use disk_snapshot::{DiskSnapshot, DiskSnapshotError, MAX_SNAPSHOT_BYTES};

/// The snapshot of the ledger of leases.
pub const LEDGER_FILE: &str = "ledger.json";
/// The snapshot of the objects of a cluster.
pub const CLUSTER_FILE: &str = "cluster.json";
/// The snapshot of the objects of another cluster, between which its name stands.
const OTHER_CLUSTER_FILE: (&str, &str) = ("cluster-", ".json");
/// The snapshot of the last good versions of objects in a directory.
pub const OBJECTS_FILE: &str = "objects.json";

/// The snapshot of the objects of another cluster.
pub fn other_cluster_file(cluster: &str) -> String {
    let (before, after) = OTHER_CLUSTER_FILE;
    format!("{before}{cluster}{after}")
}

/// Whether a file of this name is the snapshot of the objects of another cluster.
pub fn is_other_cluster_file(name: &str) -> bool {
    let (before, after) = OTHER_CLUSTER_FILE;
    name.starts_with(before) && name.ends_with(after)
}

/// The state directory, with the failed writes of its files. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
    troubles: Arc<Mutex<BTreeMap<String, String>>>,
}

impl StateDir {
    /// The state directory at `path`, which the first write creates.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            troubles: Arc::default(),
        }
    }

    /// One line for each file whose last write failed: which, and why.
    pub fn troubles(&self) -> Vec<String> {
        let troubles = self.troubles.lock();
        let shown = troubles
            .iter()
            .map(|(name, reason)| format!("{} cannot be written: {reason}", self.path.join(name).display()));
        shown.collect()
    }

    fn note(&self, name: &str, trouble: Option<&io::Error>) {
        let mut troubles = self.troubles.lock();
        match trouble {
            Some(error) => drop(troubles.insert(name.to_owned(), error.to_string())),
            None => drop(troubles.remove(name)),
        }
    }
}

impl Deref for StateDir {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl AsRef<Path> for StateDir {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

/// The suffix of files that are still being written.
const UNFINISHED: &str = ".new";
/// No write takes this long: an older unfinished file is left over.
pub const ABANDONED: Duration = Duration::from_secs(600);

/// What a replaced file must survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A crash of the process.
    ProcessCrash,
    /// A power cut too.
    PowerCut,
}

/// Writes a new file and renames it over the old one, so that a crash leaves one or the other. Only
/// the owner may read it.
pub fn replace(directory: &StateDir, name: &str, content: &[u8], durability: Durability) -> io::Result<()> {
    replace_with(directory, name, durability, |file| file.write_all(content))
}

/// As [`replace`], for content that is written piece by piece.
pub fn replace_with(
    directory: &StateDir,
    name: &str,
    durability: Durability,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let replaced = put(directory, name, durability, write);
    directory.note(name, replaced.as_ref().err());
    replaced
}

fn put(
    directory: &Path,
    name: &str,
    durability: Durability,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    // A random name that does not exist yet: another agent may be writing the same file, and what a
    // crash left behind may have other permissions.
    let mut fresh: NamedTempFile = tempfile::Builder::new()
        .prefix(&format!("{name}."))
        .suffix(UNFINISHED)
        .tempfile_in(directory)?;
    write(fresh.as_file_mut())?;
    if durability == Durability::PowerCut {
        fresh.as_file().sync_all()?;
    }
    fresh.persist(directory.join(name)).map_err(|error| error.error)?;
    Ok(())
}

/// Removes the unfinished files of killed agents that are older than `age`.
pub fn sweep(directory: &Path, age: Duration) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let written = entry.metadata().and_then(|metadata| metadata.modified());
        let is_old = written.is_ok_and(|modified| modified.elapsed().is_ok_and(|passed| passed >= age));
        if is_old && entry.file_name().to_string_lossy().ends_with(UNFINISHED) {
            // A file that stays only takes room.
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_is_its_owners_alone() {
        let dir = TempDir::new().unwrap();
        let state = StateDir::new(dir.path().join("made/state"));
        for content in ["one", "two"] {
            replace(&state, "a", content.as_bytes(), Durability::PowerCut).unwrap();
            assert_eq!(fs::read_to_string(state.join("a")).unwrap(), content);
            let mode = fs::metadata(state.join("a")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(&*state).unwrap().count(), 1);
    }

    #[test]
    fn two_agents_that_write_at_once_leave_the_whole_file_of_one() {
        let dir = TempDir::new().unwrap();
        let state = StateDir::new(dir.path().to_owned());
        replace_with(&state, "a", Durability::ProcessCrash, |file| {
            file.write_all(b"the first ")?;
            replace(&state, "a", b"the second", Durability::ProcessCrash)?;
            assert_eq!(fs::read_to_string(state.join("a"))?, "the second");
            file.write_all(b"goes on")
        })
        .unwrap();
        assert_eq!(fs::read_to_string(state.join("a")).unwrap(), "the first goes on");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_written_is_told_until_it_can() {
        let dir = TempDir::new().unwrap();
        let state = StateDir::new(dir.path().to_owned());
        let full = |_: &mut File| Err(io::ErrorKind::StorageFull.into());
        replace_with(&state, "a", Durability::ProcessCrash, full).unwrap_err();
        assert_eq!(state.troubles().len(), 1);
        assert!(
            state.troubles()[0].contains("/a cannot be written: no storage space"),
            "{state:?}"
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        replace(&state, "a", b"", Durability::ProcessCrash).unwrap();
        assert_eq!(state.troubles(), [""; 0]);
    }

    #[test]
    fn what_a_killed_agent_left_is_swept_away_when_it_is_old() {
        let dir = TempDir::new().unwrap();
        for name in ["a.1x.new", "a.2x.new", "a"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let old = File::options().write(true).open(dir.path().join("a.1x.new")).unwrap();
        old.set_modified(std::time::UNIX_EPOCH).unwrap();
        sweep(dir.path(), ABANDONED);
        let mut left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|it| it.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["a", "a.2x.new"]);
    }
}
