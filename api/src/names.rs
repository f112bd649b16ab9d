//! The live leases: `GET /v1/names`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// One live lease: a name and one of its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameRow {
    /// The name, without trailing dot.
    pub name: String,
    /// One of its addresses.
    pub address: IpAddr,
    /// Milliseconds until the lease ends.
    pub lease_left_ms: u64,
    /// The address of the teacher: the resolver whose answer made the lease.
    pub source: IpAddr,
    /// Whether that is a private teacher: a resolver that only policies' DNS rules name, which
    /// teaches only the endpoints of these policies. It says nothing of the address range.
    #[serde(default)]
    pub private: bool,
    /// The selectors (patterns) that match the name.
    pub selectors: Vec<String>,
    /// The policies that these selectors come from, as `namespace/name`.
    pub policies: Vec<String>,
}

/// What a Pod was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnsweredNameRow {
    /// `namespace/name` of the Pod.
    pub pod: String,
    /// The name, without trailing dot.
    pub name: String,
    /// The addresses that this name led the Pod to last.
    pub addresses: Vec<IpAddr>,
}
