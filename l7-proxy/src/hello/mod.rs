//! The ClientHello of TLS (RFC 8446 §4.1.2), as far as names are concerned.

use names::Name;
use smallvec::SmallVec;

/// What a ClientHello says of the server that the client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientHello {
    /// The `host_name` of extension `server_name` (RFC 6066 §3).
    pub server_name: Option<Name>,
    /// Whether extension `encrypted_client_hello` (0xfe0d) is there: [`server_name`] may then be
    /// that of a front. Clients also send it as noise (GREASE), which cannot be told apart.
    ///
    /// [`server_name`]: Self::server_name
    pub is_encrypted: bool,
    /// The protocols of ALPN (RFC 7301), in the client's order.
    pub protocols: SmallVec<[Box<[u8]>; 2]>,
}
