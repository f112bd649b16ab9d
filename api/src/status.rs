//! The state of the agent: `GET /v1/status`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::records::RecordsSummary;

/// The state of the agent (`namegate status -o json`).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AgentStatus {
    /// The version of the binary.
    pub version: String,
    /// The node's name.
    pub node: String,
    /// The process id of the agent.
    pub pid: u32,
    /// Seconds since the agent's start.
    pub uptime_seconds: u64,
    /// Who starts it again when it dies (`--supervise`).
    #[serde(default)]
    pub supervisor: Option<SupervisorStatus>,
    /// Whether it is ready, and what is missing otherwise.
    pub ready: bool,
    /// What is missing for readiness.
    pub not_ready_because: Option<String>,
    /// `dnat`, `tproxy` or `off`.
    pub interception: String,
    /// `open` or `closed`.
    pub fail_mode: String,
    /// The resolvers whose lookups are intercepted.
    pub resolvers: Vec<String>,
    /// Addresses of `--listen`.
    pub listening: Vec<String>,
    /// Local endpoints.
    pub endpoints: Vec<EndpointRow>,
    /// What was read, and what was found.
    pub reports: Vec<ReportRow>,
    /// Names with live leases.
    pub names: usize,
    /// Name–address pairs with live leases.
    pub addresses: usize,
    /// Elements in the kernel.
    pub elements: u64,
    /// How often the heartbeat had lapsed, so that lookups went past the agent.
    #[serde(default)]
    pub heartbeat_gaps: u64,
    /// Upstreams that do not answer, one line each: who, and for how long.
    #[serde(default)]
    pub silent_upstreams: Vec<String>,
    /// Recorded packets.
    pub records: RecordsSummary,
    /// What must outlive the process and cannot be written.
    #[serde(default)]
    pub state_troubles: Vec<String>,
    /// Rules could not be installed: why, and since when in seconds.
    pub install_error: Option<String>,
    /// What others have changed in the kernel and is not repaired.
    #[serde(default)]
    pub damage: Vec<String>,
    /// Sysctls that policy relies on and that somebody has changed since the agent's start. They
    /// are the node owner's to set back.
    #[serde(default)]
    pub changed_sysctls: Vec<String>,
    /// The last repair of such a thing.
    #[serde(default)]
    pub last_repair: Option<RepairStatus>,
    /// The API server that objects come from, if they do.
    #[serde(default)]
    pub source: Option<SourceStatus>,
}

/// What somebody else had changed, and is as it should be again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairStatus {
    /// What had been changed.
    pub damage: Vec<String>,
    /// Seconds since it was in order again.
    pub seconds_ago: u64,
    /// Milliseconds from when it was noticed.
    pub took_ms: u64,
}

/// Who starts the agent again when it dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisorStatus {
    /// Its process id; 0 where that cannot be seen.
    pub pid: u32,
    /// How many agents of this supervisor have died.
    pub deaths: u32,
}

/// The state of an API server as a source of objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// The URL of the API server.
    pub server: String,
    /// Seconds since something came from it: so old may be what is in force.
    pub age_seconds: u64,
    /// Whether what is in force was written down by an earlier agent, because the API server does
    /// not answer.
    pub recalled: bool,
    /// The kinds that it has not told yet.
    pub awaited: Vec<String>,
    /// The kinds that the API server does not have.
    #[serde(default)]
    pub absent: Vec<String>,
    /// The watches that do not work now, and why.
    pub troubles: Vec<String>,
}

/// One local endpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EndpointRow {
    /// `namespace/name`.
    pub endpoint: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// `default-deny`, `allow` (selected, but open), `unselected`, or `contested` (nothing passes
    /// from an address of it that another Pod claims).
    pub egress: String,
    /// The program's id, where selected.
    pub program: Option<String>,
    /// The policies that select it.
    pub policies: Vec<String>,
}

/// How the reading of a file or an object went.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReportRow {
    /// The file.
    pub file: Option<String>,
    /// `kind namespace/name`.
    pub object: String,
    /// `accepted`, `partial`, `kept-last-good`, `rejected`.
    pub state: String,
    /// One line each: `file:line:column: severity: path: reason (suggestion)`.
    pub findings: Vec<String>,
}
