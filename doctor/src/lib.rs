//! What a node needs for Namegate to keep its promise, and whether it is so.
//!
//! [`Facts`] is what was read of the node (`facts` does the reading, the only I/O); [`examine`]
//! judges it and is pure. Each judgement is a [`Finding`] with a stable code, documented in
//! `docs/kubernetes.md`.

mod bypass;
mod facts;
mod features;
mod foreign;
mod node;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Serialize;
use serde_json::Value;
use settings::InterceptionMode;

pub use bypass::{ANYBODY, DNS_OVER_TLS};
pub use features::Feature;

/// What was read of a node. Where something could not be read, the reason stands in its place.
#[derive(Debug, Clone)]
pub struct Facts {
    /// `uname -r`.
    pub kernel: String,
    /// The effective capabilities of this process, as the kernel's bit mask.
    pub capabilities: u64,
    /// `nft --version`.
    pub nft: Result<String, String>,
    /// What the kernel said of each feature: nothing, or its complaint.
    pub features: BTreeMap<Feature, Result<(), String>>,
    /// Sysctls by their path below `/proc/sys/net/`; a key that is not there is absent.
    pub sysctls: BTreeMap<String, String>,
    /// `nft -j list ruleset`: every table that nft can see.
    pub ruleset: Result<Value, String>,
    /// Tables of the legacy iptables, which nft cannot see.
    pub legacy_tables: Vec<String>,
    /// Bridges and the number of their ports.
    pub bridges: BTreeMap<String, usize>,
    /// Sockets on port 53 of this node.
    pub dns_sockets: Vec<SocketAddr>,
    /// What the running agent says; `None` when none is running.
    pub running: Option<Running>,
    /// How lookups are, or are going to be, intercepted.
    pub interception: InterceptionMode,
    /// Our own table's name.
    pub table: String,
}

/// What the running agent says.
#[derive(Debug, Clone, Default)]
pub struct Running {
    /// The resolvers that it knows.
    pub resolvers: Vec<SocketAddr>,
    /// Endpoints that are closed for egress and may reach [`ANYBODY`] at [`DNS_OVER_TLS`].
    pub open_to_encrypted_dns: Vec<String>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It is as it should be.
    Ok,
    /// Worth knowing; nothing is broken by it.
    Note,
    /// Something does not work, or is open, until it is mended.
    Problem,
}

/// One judgement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its stable code.
    pub code: &'static str,
    /// How bad.
    pub level: Level,
    /// What is so.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Finding {
    fn ok(code: &'static str, found: impl Into<String>) -> Self {
        Self {
            code,
            level: Level::Ok,
            found: found.into(),
            mend: None,
        }
    }

    fn note(code: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            code,
            level: Level::Note,
            found: found.into(),
            mend: Some(mend.into()),
        }
    }

    fn problem(code: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            level: Level::Problem,
            ..Self::note(code, found, mend)
        }
    }
}

/// Reads the node that this process runs on.
pub use facts::read;

/// Judges a node, in the order in which one would mend it.
pub fn examine(facts: &Facts) -> Vec<Finding> {
    let mut findings = node::examine(facts);
    findings.extend(features::examine(facts));
    findings.extend(foreign::examine(facts));
    findings.extend(bypass::examine(facts));
    findings
}
