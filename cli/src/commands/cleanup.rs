//! `namegate cleanup`: takes away what an agent leaves behind on purpose.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::run_dir;
use api::ask;
use api::{ApiClient, ClientError};
use settings::{DEFAULT_RUN_DIR, DEFAULT_STATE_DIR, DEFAULT_TABLE};
use state_dir::{CLUSTER_FILE, LEDGER_FILE, OBJECTS_FILE};
use thiserror::Error;

use crate::VerbOutcome;

/// Removes the ruleset and files that an agent has left: enforcement ends
///
/// An agent that stops leaves its ruleset in force, so that nothing opens while it is replaced.
/// This removes it, with the addresses and routes made for interception. It can be repeated.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  systemctl stop namegate && namegate cleanup")]
pub(crate) struct Args {
    /// The agent's --table
    #[arg(long, value_name = "NAME", default_value = DEFAULT_TABLE)]
    table: String,
    /// The agent's --state-dir
    #[arg(long, value_name = "DIR", default_value = DEFAULT_STATE_DIR)]
    state_dir: PathBuf,
    /// The agent's --run-dir
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_DIR)]
    run_dir: PathBuf,
    /// Also when an agent lives, which will put everything back when it notices
    #[arg(long)]
    force: bool,
}

/// Why nothing, or not everything, was removed.
#[derive(Debug, Error)]
pub(crate) enum CleanupError {
    /// An agent runs, and would put everything back.
    #[error("an agent is running ({}); stop it first", .0.map_or_else(|| "of an unknown process".into(), |process| format!("process {process}")))]
    Running(Option<u32>),
    /// An agent runs elsewhere: in a container, or with another run directory.
    #[error(
        "an agent renews its heartbeat in the table {0}, with a run directory of its own; stop it first (or, if you know better, use --force)"
    )]
    Beating(String),
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

/// Runs the verb.
pub(crate) fn run(args: &Args) -> crate::Result {
    if !args.force {
        refuse_while_an_agent_lives(args)?;
    }
    enforcer::writer::clean_up(&args.table).map_err(|error| CleanupError::Table {
        table: args.table.clone(),
        error,
    })?;
    let mut text = format!("table inet {} is not in the kernel any more\n", args.table);
    for path in remove_files(&args.run_dir, &args.state_dir)? {
        text += &format!("{} is removed\n", path.display());
    }
    crate::print(&text)?;
    Ok(VerbOutcome::Positive)
}

/// Looks for an agent by its socket, by its lock, and by its heartbeat in the kernel. The heartbeat
/// does not depend on where the agent runs.
fn refuse_while_an_agent_lives(args: &Args) -> Result<(), Box<dyn Error>> {
    match ask(ApiClient::new(&args.run_dir).status())? {
        Ok(status) => return Err(CleanupError::Running(Some(status.pid)).into()),
        Err(ClientError::NoAgent { .. }) => {}
        // Something listens there, or this process may not know: then nothing is removed.
        Err(error) => return Err(error.into()),
    }
    if let Some(process) = run_dir::owner(&args.run_dir).map_err(CleanupError::Unknown)? {
        return Err(CleanupError::Running(process).into());
    }
    match enforcer::writer::agent_is_alive(&args.table) {
        Ok(false) => Ok(()),
        Ok(true) => Err(CleanupError::Beating(args.table.clone()).into()),
        Err(error) => Err(CleanupError::Unknown(error).into()),
    }
}

/// Removes Namegate's own files, and the directories if they are empty then. Returns what was
/// removed.
fn remove_files(run: &Path, state_dir: &Path) -> Result<Vec<PathBuf>, CleanupError> {
    let mut removed = Vec::new();
    state_dir::sweep(state_dir, Duration::ZERO);
    for file in [
        run.join(api::SOCKET),
        run.join(run_dir::LOCK),
        state_dir.join(LEDGER_FILE),
        state_dir.join(OBJECTS_FILE),
        state_dir.join(CLUSTER_FILE),
    ] {
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
                run_dir.clone()
            ]
        );
        let left = fs::read_dir(&state_dir).unwrap().count();
        assert!(state_dir.join("other").exists() && left == 1);
        assert_eq!(remove_files(&run_dir, &state_dir).unwrap(), [] as [PathBuf; 0]);
    }
}
