//! The lab: a node with pods, a resolver and an internet, each in a network namespace of its own.
//!
//! The demo and the end-to-end scenarios run in it. It uses no network of the machine, and nothing
//! outlives the [`Lab`]: namespaces are anonymous, and servers end when they are dropped.
//!
//! ```text
//!   pod 0 ─┐                 ┌─ resolver   10.53.0.53   fd00:53::53
//!   pod 1 ─┼─ node (routes) ─┤
//!   …     ─┘                 └─ internet   198.51.100.0/24, 203.0.113.0/24,
//!                                          198.18.0.0/15, 2001:db8::/32
//! ```

mod address;
pub mod client;
pub mod cpu_time;
pub mod hostile;
pub mod internet;
mod node;
pub mod process;
pub mod resolver;
mod zone;

use std::io;
use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

pub use address::{BAD_RESOLVER, DEAD_RESOLVER, NODE4, NODE6, RESOLVER, RESOLVER6, UNTRUSTED_RESOLVER};
pub use node::{Lab, LabBuilder, Pod, Topology};
pub use zone::{NumberedNames, ScriptedAnswer, ZoneError};

/// The port that every resolver of the lab answers on.
pub const DNS_PORT: u16 = 53;

/// Why a lab could not be built.
#[derive(Debug, Error)]
#[error("cannot set up {what}: {error}")]
pub struct LabError {
    what: String,
    error: io::Error,
}

/// The socket address of a DNS server at `address`.
pub fn dns(address: impl Into<IpAddr>) -> SocketAddr {
    SocketAddr::new(address.into(), DNS_PORT)
}

/// Names the part of the lab that an error belongs to.
trait SettingUp<T> {
    fn setting_up(self, what: impl Into<String>) -> Result<T, LabError>;
}

impl<T> SettingUp<T> for io::Result<T> {
    fn setting_up(self, what: impl Into<String>) -> Result<T, LabError> {
        self.map_err(|error| LabError {
            what: what.into(),
            error,
        })
    }
}
