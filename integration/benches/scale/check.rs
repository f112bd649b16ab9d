//! What `namegate check` costs on a large repository.

use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::objects::ClusterShape;
use crate::usage::{Usage, measured};

/// The repository that the goal is about.
pub(crate) const REPOSITORY: ClusterShape = ClusterShape {
    namespaces: 100,
    apps: 10,
    pods: 3_000,
    services: 300,
    policies: 1_500,
};
/// Its pods are in so many files.
pub(crate) const POD_FILES: usize = 30;

/// What one check took at most.
pub(crate) const GOAL: Duration = Duration::from_secs(1);

/// Checks the repository so often.
pub(crate) fn run(binary: &str, rounds: usize) -> Vec<Usage> {
    let directory = TempDir::new().unwrap();
    REPOSITORY.write(directory.path(), POD_FILES).unwrap();
    let check = || {
        let mut command = Command::new(binary);
        command.arg("check").arg(directory.path());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        measured(&mut command)
    };
    (0..rounds).map(|_| check()).collect()
}
