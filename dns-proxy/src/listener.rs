//! Where the proxy listens.

use std::net::SocketAddr;

/// One place to listen: UDP and TCP on the same address and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Listener {
    /// The address and port that it listens on.
    pub address: SocketAddr,
    /// What lookups that arrive there mean.
    pub kind: ListenerKind,
}

/// What lookups that arrive at a listener mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListenerKind {
    /// They were sent to this resolver and dnat brought them here.
    Dnat(SocketAddr),
    /// Transparent (`IP_TRANSPARENT`): each was sent to the address it still carries, and is
    /// answered from it.
    Tproxy,
    /// They were sent to us.
    Plain,
}
