//! Checks whether a node has what Namegate needs.
//!
//! `running_agent` asks the agent, if there is one, and [`read()`] reads the [`NodeFacts`]; these
//! are the only I/O. [`examine`] judges them and is pure. Each judgement is a [`NodeFinding`] with
//! a stable code, which `docs/kubernetes.md` explains.

mod bypass;
mod clusters;
mod features;
mod foreign_tables;
mod node;
mod read;
mod running_agent;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use api::{ApiClient, ClientError, OtherClusterStatus};
use serde::Serialize;
use serde_json::Value;
use settings::InterceptionMode;
use thiserror::Error;

pub use bypass::DOCUMENTATION_ADDRESSES;
pub use features::KernelFeature;
pub use read::read;

/// What was read of a node. `Err` holds the reason why something could not be read.
#[derive(Debug, Clone)]
pub struct NodeFacts {
    /// The kernel's release, as `uname -r` shows it.
    pub kernel: String,
    /// The effective capabilities of this process, as the kernel's bit mask.
    pub capabilities: u64,
    /// What `nft --version` prints, or why it does not run.
    pub nft: Result<String, String>,
    /// Whether the kernel has each feature; `Err` holds the message of nft.
    pub features: BTreeMap<KernelFeature, Result<(), String>>,
    /// Sysctls by their path below `/proc/sys/net/`, without those that the kernel does not have.
    pub sysctls: BTreeMap<String, String>,
    /// The output of `nft -j list ruleset`: every table that nft can see.
    pub ruleset: Result<Value, String>,
    /// Tables of the legacy iptables, which nft cannot see.
    pub legacy_tables: Vec<String>,
    /// Bridges and the number of their ports.
    pub bridges: BTreeMap<String, usize>,
    /// Sockets on port 53 of this node.
    pub dns_sockets: Vec<SocketAddr>,
    /// `None` when no agent runs on the node.
    pub running: Option<RunningAgent>,
    /// How lookups are intercepted, or will be.
    pub interception: InterceptionMode,
    /// The name of the agent's own table.
    pub table: String,
}

/// What the running agent reports about itself.
#[derive(Debug, Clone, Default)]
pub struct RunningAgent {
    /// How it intercepts lookups; `None` for a mode that only another version knows.
    pub interception: Option<InterceptionMode>,
    /// The resolvers whose answers it learns from.
    pub resolvers: Vec<SocketAddr>,
    /// Endpoints that are closed for egress and may reach [`DOCUMENTATION_ADDRESSES`] at
    /// the port of DNS over
    /// TLS.
    pub open_to_encrypted_dns: Vec<String>,
    /// Endpoints that are closed for egress and may reach known servers of encrypted DNS.
    pub open_providers: Vec<OpenProviders>,
    /// The other clusters that it knows.
    pub other_clusters: Vec<OtherClusterStatus>,
}

/// The [`PROVIDERS`](policy::encrypted_dns::PROVIDERS) that an endpoint may reach.
#[derive(Debug, Clone)]
pub struct OpenProviders {
    /// The endpoint, as `namespace/name`.
    pub endpoint: String,
    /// The names of the providers.
    pub providers: Vec<&'static str>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FindingLevel {
    /// The node is as it should be.
    Ok,
    /// Worth knowing, and not broken.
    Note,
    /// Something does not work, or is not enforced, until it is mended.
    Problem,
}

/// One check and its result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeFinding {
    /// The stable code of the check.
    pub code: &'static str,
    /// How bad it is.
    pub level: FindingLevel,
    /// What was found.
    pub found: String,
    /// How to mend it; `None` when nothing needs to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl NodeFinding {
    fn ok(code: &'static str, found: impl Into<String>) -> Self {
        Self {
            code,
            level: FindingLevel::Ok,
            found: found.into(),
            mend: None,
        }
    }

    fn note(code: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            code,
            level: FindingLevel::Note,
            found: found.into(),
            mend: Some(mend.into()),
        }
    }

    fn problem(code: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            level: FindingLevel::Problem,
            ..Self::note(code, found, mend)
        }
    }
}

/// Why a node cannot be examined.
#[derive(Debug, Error)]
pub enum DoctorError {
    /// The agent is there, and does not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The agent cannot be asked.
    #[error(transparent)]
    Runtime(#[from] io::Error),
}

/// Examines the node that this process runs on, beside the agent of `run_dir` if one runs. Without
/// `interception`, the mode is the agent's, or else the default.
pub fn examine_node(
    run_dir: &Path,
    interception: Option<InterceptionMode>,
    table: &str,
) -> Result<Vec<NodeFinding>, DoctorError> {
    let running = api::ask(running_agent::find(&ApiClient::new(run_dir)))??;
    let interception = mode_to_examine(interception, running.as_ref());
    Ok(examine(&read(interception, table, running)))
}

fn mode_to_examine(wanted: Option<InterceptionMode>, running: Option<&RunningAgent>) -> InterceptionMode {
    wanted
        .or(running.and_then(|agent| agent.interception))
        .unwrap_or(InterceptionMode::Dnat)
}

/// Whether something is to be mended before the node does what Namegate needs.
pub fn has_problem(findings: &[NodeFinding]) -> bool {
    findings.iter().any(|finding| finding.level == FindingLevel::Problem)
}

/// Judges a node. The findings are in the order in which one would mend them.
pub fn examine(facts: &NodeFacts) -> Vec<NodeFinding> {
    let mut findings = node::examine(facts);
    findings.extend(features::examine(facts));
    findings.extend(foreign_tables::examine(facts));
    findings.extend(bypass::examine(facts));
    findings.extend(clusters::examine(facts));
    findings
}
