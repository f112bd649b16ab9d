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
    /// The name of its cluster.
    #[serde(default = "default_cluster")]
    pub cluster: String,
    /// The process id of the agent.
    pub pid: u32,
    /// Seconds since the agent's start.
    pub uptime_seconds: u64,
    /// The supervisor that starts the agent again when it dies (`--supervise`).
    #[serde(default)]
    pub supervisor: Option<SupervisorStatus>,
    /// Whether the agent is ready.
    pub ready: bool,
    /// What is missing while it is not ready.
    pub not_ready_because: Option<String>,
    /// `dnat`, `tproxy` or `off`.
    pub interception: String,
    /// `open` or `closed`.
    pub fail_mode: String,
    /// The resolvers whose lookups are intercepted.
    pub resolvers: Vec<String>,
    /// The addresses of `--listen` on which it serves lookups.
    pub listening: Vec<String>,
    /// The endpoints of this node.
    pub endpoints: Vec<EndpointRow>,
    /// The files and objects that were read, with their findings.
    pub reports: Vec<ReportRow>,
    /// How many names have live leases.
    pub names: usize,
    /// How many live leases there are: pairs of a name and an address.
    pub addresses: usize,
    /// How many elements the kernel's sets hold for leases and members.
    pub elements: u64,
    /// How often the heartbeat lapsed, so that lookups were not intercepted.
    #[serde(default)]
    pub heartbeat_gaps: u64,
    /// Upstreams that do not answer, one line each: which, and for how long.
    #[serde(default)]
    pub silent_upstreams: Vec<String>,
    /// Totals of recorded packets.
    pub records: RecordsSummary,
    /// State that must outlive the process and cannot be written, one line each.
    #[serde(default)]
    pub state_troubles: Vec<String>,
    /// Why rules cannot be installed, and for how many seconds; `None` when they can.
    pub install_error: Option<String>,
    /// Changes of others to what the agent installed that are not repaired yet.
    #[serde(default)]
    pub damage: Vec<String>,
    /// Sysctls that policy relies on and that somebody changed since the agent's start. The agent
    /// does not set them back; the node's owner has to.
    #[serde(default)]
    pub changed_sysctls: Vec<String>,
    /// The last repair of such changes.
    #[serde(default)]
    pub last_repair: Option<RepairStatus>,
    /// The API server that objects come from; `None` when they come from a directory.
    #[serde(default)]
    pub source: Option<SourceStatus>,
    /// Other clusters, whose pods and nodes are peers.
    #[serde(default)]
    pub other_clusters: Vec<OtherClusterStatus>,
}

/// What an older agent, which knows one cluster alone, calls it.
fn default_cluster() -> String {
    "default".to_owned()
}

/// A cluster besides the own one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherClusterStatus {
    /// Its name.
    pub name: String,
    /// How many pods of it are known.
    pub pods: usize,
    /// How many nodes of it are known.
    pub nodes: usize,
    /// What of it cannot be told from what another cluster has, one line each.
    pub contested: Vec<String>,
    /// Refused sources that are probably pods of it, masked on the way by a node's address; one
    /// line each.
    #[serde(default)]
    pub masked: Vec<String>,
    /// Its API server; `None` where its objects come from a directory.
    pub source: Option<SourceStatus>,
}

/// Changes of others that were repaired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairStatus {
    /// The changes, one line each.
    pub damage: Vec<String>,
    /// Seconds since the repair.
    pub seconds_ago: u64,
    /// Milliseconds from when the change was noticed to the end of the repair.
    pub took_ms: u64,
}

/// The process that starts the agent again when it dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisorStatus {
    /// Its process id; 0 where another PID namespace hides it.
    pub pid: u32,
    /// How many of its agents have died.
    pub deaths: u32,
}

/// The state of an API server as a source of objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// The URL of the API server.
    pub server: String,
    /// Seconds since the API server last sent something; what is in force may be as old.
    pub age_seconds: u64,
    /// Whether the objects in force come from a snapshot of an earlier agent, because the API
    /// server does not answer.
    pub recalled: bool,
    /// The kinds of objects that it has not listed yet.
    pub awaited: Vec<String>,
    /// The kinds of objects that it does not know.
    #[serde(default)]
    pub absent: Vec<String>,
    /// The watches that do not work now, and why, one line each.
    pub troubles: Vec<String>,
}

/// One local endpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EndpointRow {
    /// The endpoint, as `namespace/name`.
    pub endpoint: String,
    /// The addresses of the endpoint.
    pub addresses: Vec<IpAddr>,
    /// `default-deny`, `allow` (selected, but open), `unselected`, or `contested`: another Pod
    /// claims one of its addresses, from which nothing passes.
    pub egress: String,
    /// The same of ingress: what becomes of connections to it.
    #[serde(default = "unselected")]
    pub ingress: String,
    /// The id of its egress program; `None` where no policy selects it for egress.
    pub program: Option<String>,
    /// The id of its ingress program; `None` where no policy selects it for ingress.
    #[serde(default)]
    pub ingress_program: Option<String>,
    /// The policies that select it.
    pub policies: Vec<String>,
}

impl EndpointRow {
    /// Whether a program governs it, in either direction.
    pub fn is_governed(&self) -> bool {
        self.program.is_some() || self.ingress_program.is_some()
    }
}

/// What an older agent, which knows egress alone, says of ingress.
fn unselected() -> String {
    "unselected".to_owned()
}

/// The outcome of reading one file or object.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReportRow {
    /// The file; `None` for an object from the API server.
    pub file: Option<String>,
    /// The object, as `kind namespace/name`; empty where a file as a whole is meant.
    pub object: String,
    /// `accepted`; `partial`: a part is not enforced; `kept-last-good`: an earlier version stays in
    /// force; `rejected`.
    pub state: String,
    /// One line each: `file:line:column: severity: path: reason (suggestion)`.
    pub findings: Vec<String>,
}
