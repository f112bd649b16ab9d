//! Where the services are served.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio::net::{TcpListener, UnixListener};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::transport::server::Router;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic_health::ServingStatus;

use crate::observer::NodeObserver;
use crate::proto::observer::observer_server::ObserverServer;
use crate::proto::peer::peer_server::PeerServer;

/// The name by which Hubble's clients ask whether the service is well.
const HEALTH_NAME: &str = "hubble.server.Observer";
/// Questions at a time over one connection.
const STREAMS_PER_CONNECTION: u32 = 32;

/// The files of TLS, in PEM. Both ends show a certificate: flows tell who talks to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, with its chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authorities that a client's certificate must come from.
    pub client_authorities: PathBuf,
}

/// Why the services cannot be served.
#[derive(Debug, Error)]
pub enum ListenError {
    /// A file of TLS cannot be read.
    #[error("cannot read {}: {error}; check the paths given to --hubble-tls-cert, --hubble-tls-key and --hubble-tls-client-ca", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// TLS or the server.
    #[error("cannot serve Hubble's observer API: {0}")]
    Server(#[from] tonic::transport::Error),
}

/// Serves on a Unix socket until the future is dropped. Who may open the socket may ask.
pub async fn serve_unix(listener: UnixListener, observer: NodeObserver) -> Result<(), ListenError> {
    let router = router(Server::builder(), observer).await;
    Ok(router.serve_with_incoming(UnixListenerStream::new(listener)).await?)
}

/// Serves on a port, over TLS with certificates of both ends, until the future is dropped.
pub async fn serve_tls(listener: TcpListener, tls: ServerTlsConfig, observer: NodeObserver) -> Result<(), ListenError> {
    let router = router(Server::builder().tls_config(tls)?, observer).await;
    Ok(router.serve_with_incoming(TcpListenerStream::new(listener)).await?)
}

/// Reads the files of TLS.
pub fn read_tls(files: &TlsFiles) -> Result<ServerTlsConfig, ListenError> {
    let read = |path: &Path| {
        fs::read(path).map_err(|error| ListenError::File {
            path: path.to_owned(),
            error,
        })
    };
    let identity = Identity::from_pem(read(&files.certificate)?, read(&files.key)?);
    let authorities = Certificate::from_pem(read(&files.client_authorities)?);
    Ok(ServerTlsConfig::new().identity(identity).client_ca_root(authorities))
}

async fn router(mut server: Server, observer: NodeObserver) -> Router {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status(HEALTH_NAME, ServingStatus::Serving).await;
    server = server.max_concurrent_streams(Some(STREAMS_PER_CONNECTION));
    server
        .add_service(health_service)
        .add_service(ObserverServer::new(observer.clone()))
        .add_service(PeerServer::new(observer))
}
