//! Encrypted upstreams: DNS over TLS (RFC 7858), HTTPS (RFC 8484) and QUIC (RFC 9250), by hickory's
//! clients.
//!
//! Each has one connection that all lookups share, since all three protocols carry many questions
//! at once. It is opened when it is first needed, and again when it turns out to be dead.
//!
//! As over TCP, the bytes of a query go in and those of its answer come out. The answer is
//! validated like any other: the connection proves who has answered, not that the answer is to the
//! question.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ahash::RandomState;
use futures::StreamExt;
use hickory_net::NetError;
use hickory_net::h2::HttpsClientStream;
use hickory_net::quic::QuicClientStream;
use hickory_net::runtime::TokioRuntimeProvider;
use hickory_net::tls::tls_client_connect;
use hickory_net::xfer::{DnsExchange, DnsHandle, DnsMultiplexer, DnsRequestSender};
use hickory_proto::op::{DnsRequest, DnsRequestOptions, Edns, Message};
use hickory_proto::rr::rdata::opt::EdnsOption;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time::timeout_at;

use super::UpstreamFailure;
use crate::client_query::Query;
use crate::edns::PADDING;
use crate::question::Transport;
use crate::wire_format::Header;

/// Queries are padded to a multiple of this, so that their length tells little (RFC 8467 §4.1).
const PADDED_TO: usize = 128;

/// Queries in flight on a connection over TLS.
const IN_FLIGHT: usize = 4_096;

/// The timeout of the layer below an exchange, which has a deadline of its own.
const PATIENCE: Duration = Duration::from_secs(5);

/// An upstream that is asked over an encrypted connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncryptedUpstream {
    /// Its address, which identifies it.
    pub address: SocketAddr,
    /// The protocol that it speaks.
    pub protocol: EncryptedProtocol,
    /// The DNS name or IP address that its certificate must be for.
    pub name: String,
    /// The certificate authorities, in DER, of which one must have signed its certificate.
    pub authorities: Arc<[Vec<u8>]>,
}

/// The protocol of an encrypted upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EncryptedProtocol {
    /// DNS over TLS.
    Tls,
    /// DNS over HTTPS, version 2.
    Https {
        /// The path of its URL.
        path: String,
    },
    /// DNS over QUIC.
    Quic,
}

/// Why an encrypted upstream cannot be asked at all.
#[derive(Debug, Error)]
pub enum UnusableUpstream {
    /// No certificate could be verified.
    #[error("none of the certificates of authorities can be read")]
    NoAuthorities,
    /// No certificate can be for this name.
    #[error("{name:?} is no name that a certificate could be for: {why}")]
    Name {
        /// The name in the settings.
        name: String,
        /// What is wrong with it.
        why: InvalidDnsNameError,
    },
    /// The TLS library rejects the settings.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// All encrypted upstreams, by address.
pub(crate) struct EncryptedUpstreams {
    upstreams: HashMap<SocketAddr, Arc<EncryptedEndpoint>, RandomState>,
}

/// One encrypted upstream.
pub(crate) struct EncryptedEndpoint {
    pub(super) transport: Transport,
    /// The address alone where no client could be made from the settings. Such an upstream is not
    /// asked in plain text instead.
    client: Result<EncryptedClient, SocketAddr>,
}

struct EncryptedClient {
    address: SocketAddr,
    protocol: EncryptedProtocol,
    name: ServerName<'static>,
    tls: ClientConfig,
    connection: Mutex<Option<Arc<EncryptedConnection>>>,
}

struct EncryptedConnection {
    exchange: DnsExchange<TokioRuntimeProvider>,
    /// Answers that came over it.
    answers: AtomicU64,
}

impl EncryptedProtocol {
    pub(crate) fn transport(&self) -> Transport {
        match self {
            Self::Tls => Transport::Tls,
            Self::Https { .. } => Transport::Https,
            Self::Quic => Transport::Quic,
        }
    }
}

impl EncryptedUpstream {
    /// Checks the settings, without connecting.
    pub fn check(&self) -> Result<(), UnusableUpstream> {
        EncryptedClient::new(self).map(|_| ())
    }
}

impl EncryptedUpstreams {
    pub(crate) fn new(upstreams: &[EncryptedUpstream]) -> Self {
        let upstreams = upstreams.iter().map(|it| {
            let upstream = EncryptedClient::new(it).inspect_err(|why| {
                tracing::error!(upstream = %it.address, %why, "an upstream cannot be asked");
            });
            let endpoint = EncryptedEndpoint {
                transport: it.protocol.transport(),
                client: upstream.map_err(|_| it.address),
            };
            (it.address, Arc::new(endpoint))
        });
        Self {
            upstreams: upstreams.collect(),
        }
    }

    /// The encrypted upstream at this address.
    pub(crate) fn of(&self, server: SocketAddr) -> Option<Arc<EncryptedEndpoint>> {
        self.upstreams.get(&server).cloned()
    }
}

impl EncryptedEndpoint {
    /// Asks it, until `until`.
    pub(crate) async fn ask(
        &self,
        query: &Query<'_>,
        until: Instant,
        mismatched: &mut usize,
    ) -> Result<Vec<u8>, UpstreamFailure> {
        let upstream = match &self.client {
            Ok(upstream) => upstream,
            Err(server) => return Err(unreachable(*server, "its settings cannot be used")),
        };
        let answer = upstream.ask(query, until).await?;
        // hickory's client has matched the id already, and may have used one of its own.
        let id = Header::read(&answer).map_or(0, |header| header.id);
        if query.is_answered_by(id, &answer) {
            return Ok(answer);
        }
        *mismatched += 1;
        Err(unreachable(upstream.address, "it answered another question"))
    }
}

impl fmt::Debug for EncryptedEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self
            .client
            .as_ref()
            .map_or_else(|address| address, |upstream| &upstream.address);
        f.debug_tuple("EncryptedEndpoint").field(address).finish()
    }
}

impl fmt::Debug for EncryptedUpstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.upstreams.keys()).finish()
    }
}

impl EncryptedClient {
    fn new(spec: &EncryptedUpstream) -> Result<Self, UnusableUpstream> {
        let name = ServerName::try_from(spec.name.clone()).map_err(|why| UnusableUpstream::Name {
            name: spec.name.clone(),
            why,
        })?;
        let mut roots = RootCertStore::empty();
        let (usable, _) =
            roots.add_parsable_certificates(spec.authorities.iter().map(|der| CertificateDer::from(&der[..])));
        if usable == 0 {
            return Err(UnusableUpstream::NoAuthorities);
        }
        let mut tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = match spec.protocol {
            EncryptedProtocol::Tls => vec![b"dot".to_vec()],
            EncryptedProtocol::Https { .. } => vec![b"h2".to_vec()],
            EncryptedProtocol::Quic => vec![b"doq".to_vec()],
        };
        Ok(Self {
            address: spec.address,
            protocol: spec.protocol.clone(),
            name,
            tls,
            connection: Mutex::default(),
        })
    }

    async fn ask(&self, query: &Query<'_>, until: Instant) -> Result<Vec<u8>, UpstreamFailure> {
        let server = self.address;
        let request = padded(query.as_bytes()).map_err(|why| unreachable(server, why))?;
        loop {
            let connected = timeout_at(until.into(), self.connection()).await;
            let (connection, kept) = connected.map_err(|_| UpstreamFailure::TimedOut { server })??;
            let before = connection.answers.load(Ordering::Relaxed);
            let mut answers = connection.exchange.send(request.clone());
            match timeout_at(until.into(), answers.next()).await {
                Ok(Some(Ok(answer))) => {
                    connection.answers.fetch_add(1, Ordering::Relaxed);
                    return Ok(answer.as_buffer().to_vec());
                }
                Err(_) => {
                    // No lookup got an answer meanwhile, so the next one opens a new connection.
                    if connection.answers.load(Ordering::Relaxed) == before {
                        self.forget(&connection).await;
                    }
                    return Err(UpstreamFailure::TimedOut { server });
                }
                Ok(lost) => {
                    self.forget(&connection).await;
                    // Servers close what was idle for a while, perhaps while this was on its way.
                    if !kept {
                        let why = lost.and_then(Result::err).map(|why| why.to_string());
                        return Err(unreachable(
                            server,
                            why.unwrap_or("it has closed the connection".into()),
                        ));
                    }
                }
            }
        }
    }

    /// The connection, and whether it was open before.
    async fn connection(&self) -> Result<(Arc<EncryptedConnection>, bool), UpstreamFailure> {
        // Locked while it is made: the others wait for the same.
        let mut kept = self.connection.lock().await;
        if let Some(connection) = &*kept {
            return Ok((Arc::clone(connection), true));
        }
        let exchange = self.connect().await.map_err(|why| unreachable(self.address, why))?;
        let connection = Arc::new(EncryptedConnection {
            exchange,
            answers: AtomicU64::new(0),
        });
        *kept = Some(Arc::clone(&connection));
        Ok((connection, false))
    }

    async fn connect(&self) -> Result<DnsExchange<TokioRuntimeProvider>, NetError> {
        let provider = TokioRuntimeProvider::new();
        let name = || Arc::<str>::from(self.name.to_str());
        match &self.protocol {
            EncryptedProtocol::Tls => {
                // Not `tls_exchange`, which does not tell the server the name that it is asked by.
                let tls = Arc::new(self.tls.clone());
                let (stream, sender) = tls_client_connect(self.address, self.name.clone(), tls, provider);
                let multiplexer = DnsMultiplexer::new(stream.await?, sender)
                    .with_timeout(PATIENCE)
                    .with_max_active_requests(IN_FLIGHT);
                Ok(driven(multiplexer))
            }
            EncryptedProtocol::Https { path } => {
                let tls = Arc::new(self.tls.clone());
                let builder = HttpsClientStream::builder(tls, provider);
                Ok(driven(builder.build(self.address, name(), path.as_str().into()).await?))
            }
            EncryptedProtocol::Quic => {
                let builder = QuicClientStream::builder().crypto_config(self.tls.clone());
                Ok(driven(builder.build(self.address, name()).await?))
            }
        }
    }

    /// Forgets a dead connection, so that the next lookup opens a new one.
    async fn forget(&self, connection: &Arc<EncryptedConnection>) {
        let mut kept = self.connection.lock().await;
        kept.take_if(|kept| Arc::ptr_eq(kept, connection));
    }
}

fn driven(stream: impl DnsRequestSender + 'static) -> DnsExchange<TokioRuntimeProvider> {
    let (exchange, driver) = DnsExchange::from_stream(stream);
    // It ends with the exchange or the connection. A handle of the provider would end it with
    // itself.
    tokio::spawn(driver);
    exchange
}

/// The query with an OPT that pads it.
fn padded(query: &[u8]) -> Result<DnsRequest, hickory_proto::ProtoError> {
    /// Code and length of an option.
    const OPTION: usize = 4;
    let mut message = Message::from_vec(query)?;
    message.edns.get_or_insert_with(Edns::new);
    let length = message.to_vec()?.len() + OPTION;
    let missing = length.next_multiple_of(PADDED_TO) - length;
    if let Some(edns) = &mut message.edns {
        edns.options_mut()
            .insert(EdnsOption::Unknown(PADDING, vec![0; missing]));
    }
    Ok(DnsRequest::new(message, DnsRequestOptions::default()))
}

fn unreachable(server: SocketAddr, why: impl ToString) -> UpstreamFailure {
    UpstreamFailure::Unreachable {
        server,
        error: io::Error::other(why.to_string()),
    }
}
