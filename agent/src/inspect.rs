//! What the running agent shows of itself.

use std::net::IpAddr;

use enforcer::writer::WriterStats;
use serde::{Deserialize, Serialize};

use crate::objects::Report;

/// Asked by the local API, `/readyz` and `/metrics`.
pub trait Inspect: Send + Sync + 'static {
    /// The whole state, for `namegate status`.
    fn status(&self) -> Status;
    /// Every live lease, for `namegate names`, ordered by name and address.
    fn names(&self) -> Vec<NameRow>;
    /// Ready only when the ruleset is in the kernel and all DNS listeners are bound; otherwise what is missing.
    fn readiness(&self) -> Result<(), String>;
    /// Figures for the gauges of `/metrics`.
    fn figures(&self) -> Figures;
}

/// Figures that are read when scraped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// The writer's.
    pub writer: WriterStats,
    /// Names with live leases.
    pub names: usize,
    /// Name–address pairs with live leases.
    pub addresses: usize,
    /// Names forgotten to make room, since the start.
    pub evicted_names: u64,
    /// Local endpoints with a program.
    pub endpoints_selected: usize,
    /// Local endpoints in all.
    pub endpoints: usize,
    /// Distinct programs.
    pub programs: usize,
    /// Policies by state: accepted, partial, kept-last-good, rejected.
    pub policies: [usize; 4],
    /// Lookups in flight.
    pub lookups_in_flight: usize,
    /// Packets refused, from the kernel's counters: IPv4, IPv6.
    pub refused_packets: [u64; 2],
}

/// The state of the agent (`namegate status -o json`).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The version of the binary.
    pub version: String,
    /// The node's name.
    pub node: String,
    /// Process id.
    pub pid: u32,
    /// Seconds since the start.
    pub uptime_seconds: u64,
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
    /// Live names, addresses, kernel elements.
    pub names: usize,
    /// Name–address pairs with live leases.
    pub addresses: usize,
    /// Elements in the kernel.
    pub elements: u64,
    /// Rules could not be installed: why, and since when in seconds.
    pub install_error: Option<String>,
}

/// One local endpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EndpointRow {
    /// `namespace/name`.
    pub endpoint: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// `default-deny`, `allow` (selected, but open) or `unselected`.
    pub egress: String,
    /// The program's id, where selected.
    pub program: Option<String>,
    /// The policies that select it.
    pub policies: Vec<String>,
}

/// One live lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameRow {
    /// The name, without trailing dot.
    pub name: String,
    /// One of its addresses.
    pub address: IpAddr,
    /// Milliseconds until the lease ends.
    pub lease_left_ms: u64,
    /// Who taught it.
    pub source: IpAddr,
    /// The selectors (patterns) that match the name.
    pub selectors: Vec<String>,
    /// The policies that these selectors come from.
    pub policies: Vec<String>,
}

/// A [`Report`] as it crosses the local API.
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

impl From<&Report> for ReportRow {
    fn from(report: &Report) -> Self {
        todo!("{report:?}")
    }
}
