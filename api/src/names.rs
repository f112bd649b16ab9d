//! What names resolved to: `GET /v1/names`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

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
    /// Whether that is a server which only some policies' DNS rules name: it teaches only the pods
    /// that these select.
    #[serde(default)]
    pub private: bool,
    /// The selectors (patterns) that match the name.
    pub selectors: Vec<String>,
    /// The policies that these selectors come from.
    pub policies: Vec<String>,
}
