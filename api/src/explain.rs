//! Why a connection is let through, or why not: `GET /v1/explain`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// The question. Its strings are as typed, and the agent parses them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainQuestion {
    /// The source: a pod, as `NAMESPACE/NAME`, or `NAME` in the namespace `default`; or an address.
    pub from: String,
    /// A name, an address, or a pod as `NAMESPACE/NAME`.
    pub to: String,
    /// The port, or the type of an ICMP message; any where absent.
    pub port: Option<u16>,
    /// `tcp` (the default), `udp`, `sctp`, `icmp` or `icmpv6`.
    pub protocol: Option<String>,
    /// The TLS server name that the connection announces, where somebody looks into it.
    pub sni: Option<String>,
    /// The method of the request that it announces; with any of the three, absent is `GET`.
    pub method: Option<String>,
    /// The request's path with the query; absent is `/`.
    pub path: Option<String>,
    /// The request's host.
    pub host: Option<String>,
}

/// What happens to the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExplainVerdict {
    /// The traffic passes.
    Allowed,
    /// The traffic passes, although a policy in mode audit would refuse it.
    Audited,
    /// The traffic is refused.
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

/// The answer, which `namegate explain -o json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainAnswer {
    /// The verdict on the whole. With several addresses (of a name, a Pod, a Service) it is allowed
    /// if any of them is, else audited if any is.
    pub verdict: ExplainVerdict,
    /// The source as it was asked for.
    pub from: String,
    /// The destination as it was asked for.
    pub to: String,
    /// `443/TCP`, or `any port`.
    pub port: String,
    /// Whether the pod may look the name up. Only with a running agent, and only for names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lookup: Option<LookupAnswer>,
    /// One for each address that is known, or one without an address.
    pub parts: Vec<AddressAnswer>,
    /// The live flows between the two ends, which may have begun under other policies. Only with a
    /// running agent.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub flows: Vec<FlowAnswer>,
    /// Notes on the whole answer, for people.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub remarks: Vec<String>,
}

/// A live flow, as connection tracking knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowAnswer {
    /// `TCP`, `UDP`, …
    pub protocol: String,
    /// Who opened it; port 0 where the protocol has none.
    pub source: SocketAddr,
    /// Whom it goes to, behind any translation.
    pub destination: SocketAddr,
    /// What becomes of it.
    pub fate: FlowFate,
    /// Why, in a sentence.
    pub reason: String,
}

/// What becomes of a live flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlowFate {
    /// It goes on.
    Kept,
    /// Its packets are refused both ways.
    Cut,
}

impl fmt::Display for FlowFate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            FlowFate::Kept => "kept",
            FlowFate::Cut => "cut",
        })
    }
}

/// Whether a name may be looked up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookupAnswer {
    /// Whether the Pod may look the name up.
    pub allowed: bool,
    /// Why it may not; or a note, when it may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Which end's rules decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrafficDirection {
    /// Those of the sender, about where it may connect to.
    Egress,
    /// Those of the receiver, about who may connect to it.
    Ingress,
}

impl fmt::Display for TrafficDirection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            TrafficDirection::Egress => "egress",
            TrafficDirection::Ingress => "ingress",
        })
    }
}

/// The verdict on one address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressAnswer {
    /// The address; absent where only the name is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// What happens to traffic to this address: it passes if both ends let it through.
    pub verdict: ExplainVerdict,
    /// Whose rules decide: those of the first end that refuses, else the sender's. Absent where
    /// traffic passes without any rule: to the pod's own address, or to an intercepted resolver.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub direction: Option<TrafficDirection>,
    /// Why, in a sentence.
    pub reason: String,
    /// The policy that decides, as `namespace/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The kind of that policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The path of the deciding rule in that policy, as `spec.egress[0]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Seconds that the name's lease on the address has left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_left_seconds: Option<u64>,
    /// Which elements for this address the kernel's sets hold now for the sender's names, in words.
    /// Only with a running agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// The rules that nearly allow it, the nearest first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub nearest: Vec<String>,
    /// What each end that is a Pod decides by itself, the sender first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub decisions: Vec<DirectionAnswer>,
}

/// What one end of a connection decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectionAnswer {
    /// Whose rules these are.
    pub direction: TrafficDirection,
    /// The address of the other end; absent where only its name is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<IpAddr>,
    /// What this end does with the traffic.
    pub verdict: ExplainVerdict,
    /// Why, in a sentence.
    pub reason: String,
    /// The policy that decides, as `namespace/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The kind of that policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The path of the deciding rule in that policy, as `spec.ingress[0]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Seconds that the name's lease on the address has left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_left_seconds: Option<u64>,
    /// The rules that nearly allow it, the nearest first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub nearest: Vec<String>,
}
