//! Whose the run directory is: one agent's at a time.
//!
//! An agent holds a lock on a file there for as long as it lives; under supervision the supervisor
//! holds it through the crashes of its agents, since the lock belongs to the open file, of which it
//! has a duplicate.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dns_proxy::SocketStore;
use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

/// The file in the run directory.
pub const LOCK: &str = "namegate.lock";

/// An agent that was told to end has ended after so long; whoever starts the next one need not wait
/// for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// That the run directory is ours. It ends when this is dropped.
#[derive(Debug)]
pub struct RunDirClaim {
    _lock: File,
}

/// Why it is not.
#[derive(Debug, Error)]
pub enum RunDirError {
    /// Another agent has it.
    #[error(
        "another agent ({}) serves {}; stop it first, or start this one with --take-over to replace it, or with a --run-dir of its own",
        holder(.process), directory.display()
    )]
    Held {
        /// The run directory.
        directory: PathBuf,
        /// Whose it is, if that is written there.
        process: Option<u32>,
    },
    /// The file system.
    #[error("cannot lock {}: {error}; choose another directory with --run-dir", path.display())]
    Io {
        /// The file that could not be used.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
}

fn holder(process: &Option<u32>) -> String {
    process.map_or_else(
        || "of an unknown process".to_owned(),
        |process| format!("process {process}"),
    )
}

impl RunDirClaim {
    /// Claims the directory, which is made if it is missing, for `process`. Waits a little for an
    /// agent that is about to end. `take_over`: another one's claim counts no more; it goes on, and
    /// whoever started this one ends it.
    pub fn make(
        directory: &Path,
        process: u32,
        take_over: bool,
        kept: Option<&dyn SocketStore>,
    ) -> Result<Self, RunDirError> {
        let path = directory.join(LOCK);
        let failed = |error| RunDirError::Io {
            path: path.clone(),
            error,
        };
        if let Some(lock) = kept.and_then(|kept| left(kept, &path)) {
            return Ok(Self { _lock: lock });
        }
        fs::create_dir_all(directory).map_err(failed)?;
        let started = Instant::now();
        let lock = loop {
            if let Some(lock) = lock(&path).map_err(failed)? {
                break lock;
            }
            if take_over {
                break replace(&path).map_err(failed)?;
            }
            if started.elapsed() > PATIENCE {
                let (directory, process) = (directory.to_owned(), written(&path));
                return Err(RunDirError::Held { directory, process });
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        write_down(&lock, process).map_err(failed)?;
        if let Some(kept) = kept {
            kept.keep(&name(&lock.metadata().map_err(failed)?), lock.as_fd());
        }
        Ok(Self { _lock: lock })
    }
}

/// The process whose the directory is, if an agent has it.
pub fn owner(directory: &Path) -> io::Result<Option<Option<u32>>> {
    let path = directory.join(LOCK);
    match File::open(&path) {
        Ok(file) => Ok(match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => None,
            Err(rustix::io::Errno::WOULDBLOCK) => Some(written(&path)),
            Err(error) => return Err(error.into()),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The lock, if nobody has it.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let file = open(File::options().truncate(false), path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    // Whoever took over, or cleaned up, since it was opened has put another file there, or none.
    let still_there =
        fs::symlink_metadata(path).is_ok_and(|there| file.metadata().is_ok_and(|ours| same(&there, &ours)));
    Ok(still_there.then_some(file))
}

/// A lock in place of the one that another agent has.
fn replace(path: &Path) -> io::Result<File> {
    let fresh = path.with_extension(format!("{}.new", std::process::id()));
    let file = open(File::options().truncate(true), &fresh)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    fs::rename(fresh, path)?;
    Ok(file)
}

fn open(options: &mut fs::OpenOptions, path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    options
        .read(true)
        .write(true)
        .create(true)
        .mode(0o600)
        .custom_flags(flags)
        .open(path)
}

/// The lock that the supervisor has kept, if it is still the one that counts.
fn left(kept: &dyn SocketStore, path: &Path) -> Option<File> {
    let there = fs::symlink_metadata(path).ok()?;
    kept.take(&name(&there)).map(File::from)
}

fn name(lock: &fs::Metadata) -> String {
    format!("lock {}:{}", lock.dev(), lock.ino())
}

fn same(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

fn write_down(mut lock: &File, process: u32) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    lock.write_all(format!("{process}\n").as_bytes())
}

fn written(path: &Path) -> Option<u32> {
    let mut text = String::new();
    // A number, whatever else somebody has put there.
    File::open(path).ok()?.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn claim(directory: &Path, process: u32, take_over: bool) -> Result<RunDirClaim, RunDirError> {
        RunDirClaim::make(directory, process, take_over, None)
    }

    #[test]
    fn a_second_agent_is_told_whose_the_directory_is_and_may_take_it_over() {
        let dir = TempDir::new().unwrap();
        let directory = dir.path().join("made");
        let first = claim(&directory, 11, false).unwrap();
        assert_eq!(owner(&directory).unwrap(), Some(Some(11)));
        let error = claim(&directory, 12, false).unwrap_err().to_string();
        assert!(error.contains("process 11") && error.contains("--take-over"), "{error}");
        let second = claim(&directory, 12, true).unwrap();
        drop(first);
        assert_eq!(
            owner(&directory).unwrap(),
            Some(Some(12)),
            "the end of the first changes nothing"
        );
        drop(second);
        assert_eq!(owner(&directory).unwrap(), None);
        drop(claim(&directory, 13, false).unwrap());
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
    }

    #[test]
    fn an_agent_that_is_about_to_end_is_waited_for() {
        let dir = TempDir::new().unwrap();
        let first = claim(dir.path(), 11, false).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| claim(dir.path(), 12, false));
            std::thread::sleep(Duration::from_millis(100));
            drop(first);
            second.join().unwrap().unwrap();
        });
    }

    #[test]
    fn a_link_is_not_followed() {
        let dir = TempDir::new().unwrap();
        let elsewhere = dir.path().join("elsewhere");
        fs::write(&elsewhere, "precious").unwrap();
        std::os::unix::fs::symlink(&elsewhere, dir.path().join(LOCK)).unwrap();
        assert!(matches!(claim(dir.path(), 1, false), Err(RunDirError::Io { .. })));
        assert_eq!(fs::read_to_string(elsewhere).unwrap(), "precious");
    }
}
