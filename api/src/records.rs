//! Refused and audited packets, refused lookups, and withheld answers: `GET /v1/records`.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Refused and audited packets, and withheld answers (`GET /v1/records`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records {
    /// Totals, and whether packets are recorded.
    pub summary: RecordsSummary,
    /// Distinct packets, the most recent first. A sample, because only the latest are kept.
    pub rows: Vec<RecordRow>,
    /// Distinct answers that clients did not get, the most recent first. A sample, as the packets
    /// are.
    #[serde(default)]
    pub withheld: Vec<WithheldRow>,
    /// Distinct lookups that policies refused, the most recent first. A sample, as the packets are.
    #[serde(default)]
    pub lookups: Vec<RefusedLookupRow>,
}

/// Totals of recorded packets since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordsSummary {
    /// Whether packets are recorded.
    pub on: bool,
    /// Why packets are not recorded although they should be.
    pub failure: Option<String>,
    /// Packets that an audited policy would have refused.
    pub audited: u64,
    /// Records of refused packets; the kernel may log fewer than it refuses.
    pub refused: u64,
    /// How often records were lost because too many came.
    pub overruns: u64,
    /// Packets that were refused, by the kernel's own counters: `refused` of so many are recorded.
    /// `None` where they cannot be read.
    #[serde(default)]
    pub refused_packets: Option<u64>,
    /// Packets that an audited policy would have refused, by the kernel's own counters.
    #[serde(default)]
    pub audited_packets: Option<u64>,
    /// Events that were not recorded, because their Pod had too many.
    #[serde(default)]
    pub left_out: u64,
}

/// When and how often what a row is about was seen. Its fields are the row's own in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sightings {
    /// The last time, as RFC 3339 writes it.
    #[serde(default)]
    pub last_seen: String,
    /// The first time.
    #[serde(default)]
    pub first_seen: String,
    /// Milliseconds since the last time.
    pub last_seen_ms_ago: u64,
    /// Milliseconds since the first time.
    pub first_seen_ms_ago: u64,
    /// How many were recorded.
    pub count: u64,
}

/// Packets with the same sender, destination, port, direction and verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordRow {
    /// What the row is about: `flow`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// When, and how many packets were recorded.
    #[serde(flatten)]
    pub seen: Sightings,
    /// `egress`: what policies let the sender send decided. `ingress`: what they let the receiver
    /// get.
    #[serde(default = "egress")]
    pub direction: String,
    /// `refused`, or `audited`: the packets passed, because the policy is only audited.
    pub verdict: String,
    /// `namespace/name` of the Pod that was judged, the sender at egress and the receiver at
    /// ingress; `None` where its address is no Pod's.
    pub pod: Option<String>,
    /// The sender's address.
    pub source: IpAddr,
    /// The destination. Behind a Service it is the backend.
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
    /// The rule that decided; `None` where the packet was refused because no rule allows it.
    pub rule: Option<String>,
}

/// What agents without ingress mean.
fn egress() -> String {
    "egress".to_owned()
}

/// Answers that an upstream gave and a client did not get, with the same client, name, upstream and
/// reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithheldRow {
    /// What the row is about: `answer`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// When, and how many answers were withheld.
    #[serde(flatten)]
    pub seen: Sightings,
    /// Always `withheld`, so that rows of both lists can be told apart.
    pub verdict: String,
    /// `namespace/name` of the client, where its address is a Pod's.
    pub pod: Option<String>,
    /// The client's address; `None` where the answer cache asked on its own.
    pub source: Option<IpAddr>,
    /// The name asked for.
    pub name: String,
    /// The upstream that answered.
    pub upstream: SocketAddr,
    /// The reason, as a label of the metric.
    pub reason: String,
    /// The reason in a sentence.
    pub why: String,
}

/// Refused lookups of one client for one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedLookupRow {
    /// What the row is about: `lookup`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// When, and how many lookups were recorded.
    #[serde(flatten)]
    pub seen: Sightings,
    /// Always `refused`.
    pub verdict: String,
    /// `namespace/name` of the client, where its address is a Pod's.
    pub pod: Option<String>,
    /// The client's address.
    pub source: IpAddr,
    /// The name asked for.
    pub name: String,
    /// Why the last was refused, in a sentence.
    pub reason: String,
    /// The policies that decided.
    pub policies: Vec<String>,
}
