//! What the program in a Pod says that it has seen: the lines of `integration/node/probe`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

/// What was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttemptStep {
    /// To resolve the name that is allowed.
    Lookup,
    /// To connect to its address.
    Connect,
    /// To resolve the name that is denied, and to connect to its address if that is answered
    /// (`dns-questions: any`).
    Denied,
    /// To connect to an address that no name opens.
    Closed,
}

/// One line of the program.
#[derive(Debug, Clone, Deserialize)]
pub struct PodAttempt {
    /// What was tried.
    pub step: AttemptStep,
    /// `done`, `refused`, `no-such-name`, `timeout`, or the text of an error.
    pub outcome: String,
    /// Microseconds from the start of the container's process.
    pub began: u64,
    /// Microseconds that it took.
    pub took: u64,
}

impl PodAttempt {
    /// Whether the outcome is what the policy says.
    pub fn is_right(&self) -> bool {
        match self.step {
            AttemptStep::Lookup | AttemptStep::Connect => self.outcome == "done",
            AttemptStep::Denied => self.outcome == "no-such-name" || self.outcome == "refused",
            AttemptStep::Closed => self.outcome == "refused",
        }
    }

    /// Whether something passed that the policy forbids.
    pub fn is_leak(&self) -> bool {
        self.outcome == "done" && matches!(self.step, AttemptStep::Closed | AttemptStep::Denied)
    }

    /// From the start of the process to the end of the attempt.
    pub fn ended(&self) -> Duration {
        Duration::from_micros(self.began + self.took)
    }
}

/// The attempts of the containers that ran in a Pod one after the other, each container's from its
/// start. `directory` is the Pod's under `/var/log/pods`.
pub(super) fn read(directory: &Path) -> Vec<Vec<PodAttempt>> {
    let logs = fs::read_dir(directory.join("main")).into_iter().flatten().flatten();
    let mut logs: Vec<(u32, String)> = logs
        .filter_map(|entry| {
            let path = entry.path();
            let number = path.file_stem()?.to_str()?.parse().ok()?;
            Some((number, fs::read_to_string(path).ok()?))
        })
        .collect();
    logs.sort_unstable();
    logs.iter().map(|(_, text)| parse(text)).collect()
}

/// Lines of the container runtime's log: time, stream, `F` or `P`, and what the program wrote.
fn parse(log: &str) -> Vec<PodAttempt> {
    // What follows the last newline is still being written.
    let complete = log.rfind('\n').map_or("", |end| &log[..end]);
    complete
        .lines()
        .map(|line| {
            let said = line.splitn(4, ' ').nth(3).unwrap_or_default();
            serde_json::from_str(said).unwrap_or_else(|error| panic!("{error}: {line}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_being_written_is_left_for_later() {
        let log = "2026-01-01T00:00:00Z stdout F {\"step\":\"denied\",\"outcome\":\"no-such-name\",\"began\":5,\"took\":7}\n\
                   2026-01-01T00:00:00Z stdout F {\"step\":\"clo";
        let attempts = parse(log);
        assert_eq!(attempts.len(), 1);
        assert!(attempts[0].is_right());
        assert_eq!(attempts[0].ended(), Duration::from_micros(12));
    }
}
