//! What happened on the node: `GET /v1/events`, one JSON object a line.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Which events are asked for. Of a list one is enough; lists are separated by commas.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventQuery {
    /// Pods at either end, as `NAMESPACE/NAME`.
    pub pod: String,
    /// Namespaces of Pods at either end.
    pub namespace: String,
    /// Names that were asked for or led there, with stars patterns.
    pub to_fqdn: String,
    /// Addresses or networks of destinations and answers.
    pub to_ip: String,
    /// Ports at either end.
    pub port: String,
    /// `allowed`, `refused`, `audited`, `failed`, `noted`.
    pub verdict: String,
    /// `lookup`, `flow`, `request`, `policy`, `agent`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Not older than this, in milliseconds.
    pub since_ms: Option<u64>,
    /// Of what is remembered only the last so many.
    pub last: Option<usize>,
    /// Whether what comes is wanted too. Then the answer has no end.
    pub follow: bool,
}

/// Something that happened. Fields that mean nothing for its type are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventRow {
    /// When, as RFC 3339 writes it, in UTC.
    pub time: String,
    /// The number of the event on its node, from 1, without a gap as long as the agent runs; 0 for
    /// news of events that were lost.
    pub sequence: u64,
    /// The node.
    pub node: String,
    /// `lookup`, `flow`, `request`, `policy`, `agent`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `allowed`; `refused` by policies; `audited`: it passed, and would have been refused;
    /// `failed` although it was allowed; `noted`: nothing was decided.
    pub verdict: String,
    /// `egress`: what policies let the source send decided. `ingress`: what they let the
    /// destination get.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<String>,
    /// Who asked, or opened the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<EventEndRow>,
    /// Whom it was meant for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<EventEndRow>,
    /// `TCP`, `UDP`, …; a number where it has no common name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The type of ICMP and ICMPv6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    /// What NAT made of a flow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nat: Option<FlowNatRow>,
    /// What a flow that has ended carried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub totals: Option<FlowTotalsRow>,
    /// What was asked for and answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lookup: Option<LookupAnswerRow>,
    /// What was requested inside the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestRow>,
    /// The policies that decided, or that are spoken of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
    /// The rule of them that decided alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Why it was refused or failed, or what the news is, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// So many events were lost here: recorded and forgotten before they were read, or not recorded
    /// because their Pod had too many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
}

/// One end of an event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventEndRow {
    /// The namespace of the Pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The name of the Pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The labels of the Pod as it is now, as `KEY=VALUE`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// The address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The names that led the other end there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
}

/// A lookup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LookupAnswerRow {
    /// The name that was asked for.
    pub name: String,
    /// The upstream that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<SocketAddr>,
    /// The addresses of the answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
}

/// The other side of a NAT.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FlowNatRow {
    /// Whom the first packet was sent to, where that is not the event's destination: behind a
    /// Service, the Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<SocketAddr>,
    /// What the source became.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_as: Option<SocketAddr>,
}

/// What a flow carried, both ways together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FlowTotalsRow {
    /// Packets, where the kernel counts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packets: Option<u64>,
    /// Octets, IP headers included, where the kernel counts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// How long it lasted, until the kernel closed or forgot it.
    pub duration_ms: u64,
}

/// A request inside a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestRow {
    /// The method of HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The host that was asked for.
    pub host: String,
    /// The path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The status of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}
