//! Where TLS ends at the node.

/// With what the node takes the server's place for a client, and the client's for the server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TlsEnd {
    /// With certificates of an authority of its own, which lives in memory and which the client was
    /// told of; towards the server as any client of this system.
    LocalAuthority,
}
