//! What was refused, or would have been: `GET /v1/records`.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Refused and audited packets (`GET /v1/records`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records {
    /// Totals, and whether packets are recorded.
    pub summary: RecordsSummary,
    /// Distinct packets of late, the most recent first. A sample: only so many are remembered.
    pub rows: Vec<RecordRow>,
    /// Distinct answers of late that clients did not get, the most recent first. A sample like the
    /// packets.
    #[serde(default)]
    pub withheld: Vec<WithheldRow>,
}

/// Totals of recorded packets since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordsSummary {
    /// Packets are recorded.
    pub on: bool,
    /// Why they are not, although they should be.
    pub failure: Option<String>,
    /// Packets that an audited policy would have refused.
    pub audited: u64,
    /// Records of refused packets; the kernel may log fewer than it refuses.
    pub refused: u64,
    /// How often records were lost because too many came.
    pub overruns: u64,
}

/// Packets that are alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordRow {
    /// Milliseconds since the last of them.
    pub last_seen_ms_ago: u64,
    /// Milliseconds since the first of them.
    pub first_seen_ms_ago: u64,
    /// How many.
    pub count: u64,
    /// `refused`; or `audited`: it passed, because the policy is only audited.
    pub verdict: String,
    /// `namespace/name` of the sender, where its address is a Pod's.
    pub pod: Option<String>,
    /// The sender's address.
    pub source: IpAddr,
    /// Where to. Behind a Service, that is the backend.
    pub destination: IpAddr,
    /// `TCP`, `UDP`, …; a number where it has no common name.
    pub protocol: String,
    /// The destination port.
    pub port: Option<u16>,
    /// The type of ICMP and ICMPv6.
    pub icmp_type: Option<u8>,
    /// The name that last led this Pod to the address.
    pub name: Option<String>,
    /// The policy, or several, that decided.
    pub policy: Option<String>,
    /// The rule that decided; none where no rule allows the packet.
    pub rule: Option<String>,
}

/// Answers that an upstream gave and that a client did not get, and that are alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithheldRow {
    /// Milliseconds since the last of them.
    pub last_seen_ms_ago: u64,
    /// Milliseconds since the first of them.
    pub first_seen_ms_ago: u64,
    /// How many.
    pub count: u64,
    /// `withheld`.
    pub verdict: String,
    /// `namespace/name` of who asked, where its address is a Pod's.
    pub pod: Option<String>,
    /// Who asked; nobody where the answer cache did.
    pub source: Option<IpAddr>,
    /// The name asked for.
    pub name: String,
    /// Who answered.
    pub upstream: SocketAddr,
    /// Why, as the metric says it.
    pub reason: String,
    /// Why, for people.
    pub why: String,
}
