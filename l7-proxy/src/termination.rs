//! TLS that ends here: the proxy is the server for the client, and a client towards the server.

use std::fmt;
use std::sync::Arc;

use names::Name;
use rustls::{ClientConfig, ServerConfig};

/// What the proxy is on a connection whose TLS it ends.
#[derive(Clone)]
pub struct Termination {
    /// For the client. Its ALPN, where it has one, offers `http/1.1` alone.
    pub server: Arc<ServerConfig>,
    /// Towards the server, whose certificate must be for [`name`](Self::name). `None`: in clear.
    pub client: Option<Arc<ClientConfig>>,
    /// The server that the client named (SNI), and that the proxy names in its turn.
    pub name: Name,
}

// Configurations hold keys.
impl fmt::Debug for Termination {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Termination")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
