//! The facts of the host that defaults come from.

use std::io;

/// Facts of the host that defaults come from.
#[derive(Debug)]
pub struct HostFacts {
    /// The name of the host, which is the node's unless `--node` names another.
    pub name: String,
    /// The text of its `/etc/resolv.conf`.
    pub resolv_conf: io::Result<String>,
}

impl HostFacts {
    /// Reads the facts of this host.
    pub fn read() -> Self {
        Self {
            name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            resolv_conf: std::fs::read_to_string("/etc/resolv.conf"),
        }
    }
}
