//! What the proxy is told when it starts.

use std::net::SocketAddr;

use crate::limits::PassageLimits;

/// What an [`L7Server`](crate::L7Server) is to do.
#[derive(Debug, Clone)]
pub struct L7ServerConfig {
    /// Where the kernel redirects to, one address for each family. Port 0 takes one that is free.
    pub addresses: Vec<SocketAddr>,
    /// How many threads share the connections.
    pub workers: usize,
    /// How servers are dialled.
    pub dial: DialOptions,
    /// Bounds of connections.
    pub limits: PassageLimits,
}

/// How servers are dialled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DialOptions {
    /// The mark of packets to servers (`SO_MARK`), by which the ruleset puts their flows into a
    /// conntrack zone of their own. Needs CAP_NET_ADMIN.
    pub mark: Option<u32>,
    /// Whether servers see the client's own address and port (`IP_TRANSPARENT`). Needs
    /// CAP_NET_ADMIN, and a ruleset that brings the answers back.
    pub keeps_source: bool,
}
