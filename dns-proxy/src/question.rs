//! What a client asks, and whom.

use std::net::SocketAddr;

use names::Name;

/// How a DNS message travels: from a client to the proxy, or between the proxy and an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// UDP, where long answers are truncated.
    Udp,
    /// A TCP connection in plain text (RFC 7766).
    Tcp,
    /// DNS over TLS (RFC 7858), to upstreams only.
    Tls,
    /// DNS over HTTPS (RFC 8484), to upstreams only.
    Https,
    /// DNS over QUIC (RFC 9250), to upstreams only.
    Quic,
}

/// The server that a client sent its query to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryTarget {
    /// This resolver: the kernel intercepted the query on its way there.
    Resolver(SocketAddr),
    /// The proxy itself, at its own listener (`--listen`): any upstream may answer.
    Proxy,
}

/// The question of a query, as far as the gate needs it.
#[derive(Debug, Clone)]
pub struct DnsQuestion {
    /// The name in lower case. The client's own spelling stays in the message.
    pub name: Name,
    /// The type, for example 1 for A.
    pub qtype: u16,
    /// The class; 1 is IN.
    pub qclass: u16,
    /// Whether the client sent OPT, so that a refusal can carry its reason (RFC 8914).
    pub takes_reasons: bool,
}
