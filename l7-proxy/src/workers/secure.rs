//! The handshakes of TLS that ends here.

use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConnection};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::termination::Termination;

/// Agrees with a client that has sent `hello`, and perhaps what follows it.
pub(super) async fn accept(
    termination: Termination,
    hello: Vec<u8>,
    stream: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    let mut replayed = Ok(());
    let accepting =
        TlsAcceptor::from(termination.server).accept_with(stream, |connection| replayed = replay(connection, &hello));
    replayed?;
    Ok(TlsStream::Server(accepting.await?))
}

/// Gives a connection what was read already. What is wrong in it, the handshake finds again, and
/// answers with an alert.
fn replay(connection: &mut ServerConnection, mut hello: &[u8]) -> io::Result<()> {
    while !hello.is_empty() {
        connection.read_tls(&mut hello)?;
        if connection.process_new_packets().is_err() {
            break;
        }
    }
    Ok(())
}

/// Agrees with a server, whose certificate must be for the name that the client asked for.
pub(super) async fn connect(
    config: Arc<ClientConfig>,
    termination: &Termination,
    stream: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    let name = termination.name.as_str().trim_end_matches('.').to_owned();
    let name = ServerName::try_from(name).map_err(io::Error::other)?;
    Ok(TlsStream::Client(
        TlsConnector::from(config).connect(name, stream).await?,
    ))
}
