//! What an agent leaves behind on purpose, and when it may be taken away.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::{ApiClient, ClientError, ask};
use state_dir::{CLUSTER_FILE, LEDGER_FILE, OBJECTS_FILE};
use thiserror::Error;

use crate::run_dir;

/// Why nothing, or not everything, was removed.
#[derive(Debug, Error)]
pub enum CleanupError {
    /// An agent runs, and would put everything back.
    #[error("an agent is running ({}); stop it first", .0.map_or_else(|| "of an unknown process".into(), |process| format!("process {process}")))]
    Running(Option<u32>),
    /// An agent runs elsewhere: in a container, or with another run directory.
    #[error(
        "an agent renews its heartbeat in the table {0}, with a run directory of its own; stop it first (or, if you know better, use --force)"
    )]
    Beating(String),
    /// Something listens at the socket, and it is not told whether that is an agent.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The socket cannot be asked.
    #[error(transparent)]
    Runtime(io::Error),
    /// Whether an agent runs cannot be found out.
    #[error("cannot tell whether an agent lives: {0}")]
    Unknown(io::Error),
    /// The kernel did not remove the table.
    #[error("cannot remove the table {table}: {error}")]
    Table {
        /// The name of the table.
        table: String,
        /// The enforcer's error.
        error: enforcer::InstallError,
    },
    /// A file was not removed.
    #[error("cannot remove {}: {error}", path.display())]
    File {
        /// The path of the file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
}

/// Where an agent has left something: its ruleset, which stays in force so that nothing opens while
/// the agent is replaced, and its files.
#[derive(Debug, Clone, Copy)]
pub struct Leftovers<'a> {
    /// `--table` of the agent.
    pub table: &'a str,
    /// `--state-dir` of the agent.
    pub state_dir: &'a Path,
    /// `--run-dir` of the agent.
    pub run_dir: &'a Path,
}

impl Leftovers<'_> {
    /// Looks for an agent by its socket, by its lock, and by its heartbeat in the kernel. The
    /// heartbeat does not depend on where the agent runs. Needs CAP_NET_ADMIN.
    pub fn refuse_while_an_agent_lives(&self) -> Result<(), CleanupError> {
        self.refuse_while_one_lives(|| enforcer::writer::agent_is_alive(self.table))
    }

    fn refuse_while_one_lives(&self, beats: impl FnOnce() -> io::Result<bool>) -> Result<(), CleanupError> {
        match ask(ApiClient::new(self.run_dir).status()).map_err(CleanupError::Runtime)? {
            Ok(status) => return Err(CleanupError::Running(Some(status.pid))),
            Err(ClientError::NoAgent { .. }) => {}
            // Something listens there, or this process may not know: then nothing is removed.
            Err(error) => return Err(error.into()),
        }
        if let Some(process) = run_dir::owner(self.run_dir).map_err(CleanupError::Unknown)? {
            return Err(CleanupError::Running(process));
        }
        match beats() {
            Ok(false) => Ok(()),
            Ok(true) => Err(CleanupError::Beating(self.table.to_owned())),
            Err(error) => Err(CleanupError::Unknown(error)),
        }
    }

    /// Removes the table, with the addresses and routes made for interception, and then the files.
    /// Enforcement ends. It can be repeated. Returns the files and directories that were removed.
    pub fn remove(&self) -> Result<Vec<PathBuf>, CleanupError> {
        enforcer::writer::clean_up(self.table).map_err(|error| CleanupError::Table {
            table: self.table.to_owned(),
            error,
        })?;
        remove_files(self.run_dir, self.state_dir)
    }
}

/// Removes Namegate's own files, and the directories if they are empty then. Returns what was
/// removed.
fn remove_files(run: &Path, state_dir: &Path) -> Result<Vec<PathBuf>, CleanupError> {
    let mut removed = Vec::new();
    state_dir::sweep(state_dir, Duration::ZERO);
    let own = [
        run.join(api::SOCKET),
        run.join(run_dir::LOCK),
        state_dir.join(LEDGER_FILE),
        state_dir.join(OBJECTS_FILE),
        state_dir.join(CLUSTER_FILE),
    ];
    for file in own.into_iter().chain(of_other_clusters(state_dir)) {
        if was_removed(&file, fs::remove_file(&file))? {
            removed.push(file);
        }
    }
    for directory in [run, state_dir] {
        if was_removed(directory, fs::remove_dir(directory))? {
            removed.push(directory.to_owned());
        }
    }
    Ok(removed)
}

/// The snapshots of other clusters. A directory that cannot be read holds none that could be
/// removed.
fn of_other_clusters(state_dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(state_dir).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_str().is_some_and(state_dir::is_other_cluster_file))
        .map(|entry| entry.path())
        .collect();
    files.sort_unstable();
    files
}

/// Whether something was removed. What is missing, and a directory with files of others, is no
/// error.
fn was_removed(path: &Path, result: io::Result<()>) -> Result<bool, CleanupError> {
    use io::ErrorKind::{DirectoryNotEmpty, NotADirectory, NotFound};
    match result {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.kind(), NotFound | DirectoryNotEmpty | NotADirectory) => Ok(false),
        Err(error) => Err(CleanupError::File {
            path: path.to_owned(),
            error,
        }),
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn it_removes_its_own_files_and_says_so_once() {
        let dir = TempDir::new().unwrap();
        let (run_dir, state_dir) = (dir.path().join("run"), dir.path().join("state"));
        fs::create_dir(&run_dir).unwrap();
        fs::create_dir(&state_dir).unwrap();
        fs::write(run_dir.join(api::SOCKET), "").unwrap();
        fs::write(run_dir.join(run_dir::LOCK), "").unwrap();
        fs::write(state_dir.join(LEDGER_FILE), "").unwrap();
        fs::write(state_dir.join(CLUSTER_FILE), "").unwrap();
        fs::write(state_dir.join("cluster-west.json"), "").unwrap();
        fs::write(state_dir.join("ledger.json.x.new"), "").unwrap();
        fs::write(state_dir.join(OBJECTS_FILE), "").unwrap();
        fs::write(state_dir.join("other"), "").unwrap();
        let removed = remove_files(&run_dir, &state_dir).unwrap();
        assert_eq!(
            removed,
            [
                run_dir.join(api::SOCKET),
                run_dir.join(run_dir::LOCK),
                state_dir.join(LEDGER_FILE),
                state_dir.join(OBJECTS_FILE),
                state_dir.join(CLUSTER_FILE),
                state_dir.join("cluster-west.json"),
                run_dir.clone()
            ]
        );
        let left = fs::read_dir(&state_dir).unwrap().count();
        assert!(state_dir.join("other").exists() && left == 1);
        assert_eq!(remove_files(&run_dir, &state_dir).unwrap(), [] as [PathBuf; 0]);
    }

    #[test]
    fn nothing_is_removed_while_an_agent_lives_or_may_live() {
        let dir = TempDir::new().unwrap();
        let leftovers = Leftovers {
            table: "namegate",
            state_dir: dir.path(),
            run_dir: dir.path(),
        };
        let refused = |beats| {
            leftovers
                .refuse_while_one_lives(|| beats)
                .map_err(|error| error.to_string())
        };
        assert_eq!(refused(Ok(false)), Ok(()));
        let elsewhere = refused(Ok(true)).unwrap_err();
        assert!(
            elsewhere.contains("renews its heartbeat in the table namegate"),
            "{elsewhere}"
        );
        let unknown = refused(Err(io::ErrorKind::PermissionDenied.into())).unwrap_err();
        assert!(unknown.contains("cannot tell whether an agent lives"), "{unknown}");

        let _lock = run_dir::RunDirClaim::make(dir.path(), std::process::id(), false, None).unwrap();
        let running = refused(Ok(false)).unwrap_err();
        assert!(running.contains("an agent is running"), "{running}");
    }
}
