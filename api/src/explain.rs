//! Why a pod may reach a destination, or why not: `GET /v1/explain`.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The question. Its texts are as a person types them; the agent reads them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainQuestion {
    /// The pod, as `NAMESPACE/NAME`, or `NAME` in the namespace `default`.
    pub from: String,
    /// A name, an address, or a pod as `NAMESPACE/NAME`.
    pub to: String,
    /// The port, or the type of an ICMP message; without it, any.
    pub port: Option<u16>,
    /// `tcp` (the default), `udp`, `sctp`, `icmp` or `icmpv6`.
    pub protocol: Option<String>,
}

/// What is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExplainVerdict {
    /// It passes.
    Allowed,
    /// It passes; a policy in mode audit would refuse it.
    Audited,
    /// It is refused.
    Denied,
}

impl fmt::Display for ExplainVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            ExplainVerdict::Allowed => "allowed",
            ExplainVerdict::Audited => "audited",
            ExplainVerdict::Denied => "denied",
        })
    }
}

/// The answer (`-o json`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainAnswer {
    /// `allowed`, `audited` or `denied`. Of a name with several addresses: the best of them.
    pub verdict: ExplainVerdict,
    /// The pod.
    pub from: String,
    /// The destination as it was asked for.
    pub to: String,
    /// `443/TCP`, or `any port`.
    pub port: String,
    /// May the name be asked? Only with a running agent, and only for names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lookup: Option<LookupAnswer>,
    /// One for each address that is known, or one without an address.
    pub parts: Vec<AddressAnswer>,
    /// What else is to be known.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub remarks: Vec<String>,
}

/// Whether a name may be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookupAnswer {
    /// Whether it may.
    pub allowed: bool,
    /// Why not, or what is to be known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What is decided for one address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressAnswer {
    /// Whether the rules were asked at all.
    #[serde(skip)]
    pub by_rules: bool,
    /// The address; absent where only the name is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// `allowed`, `audited` or `denied`.
    pub verdict: ExplainVerdict,
    /// Why, in a sentence.
    pub reason: String,
    /// The policy that decides, as `namespace/name`, and its kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Its kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The rule in it, as `spec.egress[0]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Seconds that the name's lease on the address has left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_left_seconds: Option<u64>,
    /// What the kernel's sets hold of it. Only with a running agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// What nearly would have allowed it, the nearest first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub nearest: Vec<String>,
}
