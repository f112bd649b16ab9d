//! The ClientHello of TLS (RFC 8446 §4.1.2), as far as names are concerned.
//!
//! - `reassembly`: the message out of records, however they and their segments are cut.
//! - `message`: what the message says.

mod message;
mod reassembly;
#[cfg(test)]
pub(crate) mod samples;

use names::Name;
use smallvec::SmallVec;

pub(crate) use reassembly::HANDSHAKE;
pub use reassembly::{HelloProgress, HelloReader};

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

/// Why a hello is not one. The words are for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHello {
    /// A record that is no handshake of TLS 1.0 to 1.3, is empty or longer than 2^14 octets.
    #[error("a record is no TLS handshake")]
    Record,
    /// Another handshake message.
    #[error("the first handshake message is no ClientHello")]
    Message,
    /// Octets after the message in its record.
    #[error("the record goes on after the ClientHello")]
    Trailing,
    /// A length that does not fit what it is in.
    #[error("a length in the ClientHello does not fit")]
    Length,
    /// An extension twice.
    #[error("the ClientHello has an extension twice")]
    RepeatedExtension,
    /// A server name list without exactly one host name, or with a name that DNS could not hold.
    #[error("the server name is no host name")]
    ServerName,
}
