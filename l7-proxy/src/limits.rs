//! How much a connection may take, and how long.

use std::time::Duration;

/// Bounds of every connection. The defaults are what [`Default`] gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassageLimits {
    /// A ClientHello with its framing, in octets: 16 KiB. Post-quantum hellos have some 2 KiB.
    pub hello_octets: usize,
    /// From the accept to the whole hello: 5 s.
    pub hello_time: Duration,
    /// From the hello to the end of a handshake with the client, where TLS ends here: 10 s.
    pub handshake_time: Duration,
    /// The head of a request or response, in octets: 64 KiB.
    pub head_octets: usize,
    /// From the first to the last octet of a request's head: 30 s.
    pub head_time: Duration,
    /// For the server to accept, and to agree on TLS where the proxy speaks it: 3 s.
    pub connect_time: Duration,
    /// Between two requests: 5 min.
    pub idle_time: Duration,
    /// Without an octet in an opaque connection: 1 h.
    pub opaque_idle_time: Duration,
    /// Connections of one source address: 4,096.
    pub connections_of_a_pod: usize,
    /// How many connections a second a source may open while it has more than half of what it may
    /// have: 64.
    pub connections_per_second: u32,
    /// How many of these it may open at once: 512.
    pub connection_burst: u32,
    /// Connections of all sources: 65,536.
    pub connections: usize,
}

impl Default for PassageLimits {
    fn default() -> Self {
        Self {
            hello_octets: 16 << 10,
            hello_time: Duration::from_secs(5),
            handshake_time: Duration::from_secs(10),
            head_octets: 64 << 10,
            head_time: Duration::from_secs(30),
            connect_time: Duration::from_secs(3),
            idle_time: Duration::from_secs(300),
            opaque_idle_time: Duration::from_secs(3600),
            connections_of_a_pod: 4096,
            connections_per_second: 64,
            connection_burst: 512,
            connections: 65_536,
        }
    }
}
