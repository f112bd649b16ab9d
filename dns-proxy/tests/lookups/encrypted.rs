//! Upstreams that are asked over TLS, HTTPS and QUIC: real servers, with certificates of an
//! authority made here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use dns_proxy::{EncryptedProtocol, EncryptedUpstream, ServerConfig};
use hickory_proto::op::{Metadata, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record};
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ResolvesServerCert;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::net::{TcpListener, UdpSocket};

use crate::agent::{Agent, Proxy, free_address, patient};
use crate::client::{UdpClient, answers, rcode};
use crate::packets;

const NAME: &str = "dns.example";

/// How long a handshake may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn each_protocol_answers_over_one_kept_connection_with_padded_queries() {
    for protocol in protocols() {
        let authority = Authority::new();
        let resolver = Resolver::start(free_address(), &protocol, &authority).await;
        let proxy = proxy(&[resolver.upstream(&authority)]).await;
        for _ in 0..3 {
            let reply = ask(&proxy).await;
            let why = packets::extended_error(&reply);
            assert_eq!((rcode(&reply), answers(&reply)), (0, 1), "{protocol:?}: {why:?}");
        }
        let transport = match protocol {
            EncryptedProtocol::Tls => "Tls",
            EncryptedProtocol::Https { .. } => "Https",
            EncryptedProtocol::Quic => "Quic",
        };
        proxy.agent.observed(&format!("upstream {transport} Answered"), 3).await;
        assert_eq!(proxy.agent.count("upstream Tcp Answered"), 0, "{protocol:?}");
        assert_eq!(proxy.agent.count("upstream Udp Answered"), 0, "{protocol:?}");
        assert_eq!(resolver.log.asked.load(Ordering::Relaxed), 3, "{protocol:?}");
        assert_eq!(resolver.log.unpadded.load(Ordering::Relaxed), 0, "{protocol:?}");
        assert_eq!(resolver.log.clients.lock().unwrap().len(), 1, "{protocol:?}");
    }
}

#[tokio::test]
async fn a_client_without_edns_is_told_nothing_of_ours() {
    let authority = Authority::new();
    let resolver = Resolver::start(free_address(), &EncryptedProtocol::Tls, &authority).await;
    let proxy = proxy(&[resolver.upstream(&authority)]).await;
    let client = UdpClient::of(proxy.address).await;
    let reply = client.ask(&packets::query("a.example.", "A")).await;
    assert_eq!(answers(&reply), 1);
    assert_eq!(reply[10..12], [0, 0], "no additional record");
}

#[tokio::test]
async fn whoever_has_no_certificate_for_the_name_is_not_believed() {
    for protocol in protocols() {
        let authority = Authority::new();
        let resolver = Resolver::start(free_address(), &protocol, &authority).await;
        let other_name = EncryptedUpstream {
            name: "other.example".into(),
            ..resolver.upstream(&authority)
        };
        let other_authority = resolver.upstream(&Authority::new());
        for upstream in [other_name, other_authority] {
            let proxy = proxy(&[upstream]).await;
            let reply = ask(&proxy).await;
            assert_eq!(rcode(&reply), 2, "{protocol:?}");
            let (_, text) = packets::extended_error(&reply).unwrap();
            assert!(text.contains("ertificate"), "{protocol:?}: {text}");
        }
        assert_eq!(resolver.log.asked.load(Ordering::Relaxed), 0, "{protocol:?}");
    }
}

#[tokio::test]
async fn a_server_that_went_away_is_servfail_and_is_asked_again_when_it_is_back() {
    for protocol in protocols() {
        let authority = Authority::new();
        let address = free_address();
        let resolver = Resolver::start(address, &protocol, &authority).await;
        let proxy = proxy(&[resolver.upstream(&authority)]).await;
        assert_eq!(rcode(&ask(&proxy).await), 0);
        resolver.stop().await;
        assert_eq!(rcode(&ask(&proxy).await), 2, "{protocol:?}");

        let resolver = Resolver::start(address, &protocol, &authority).await;
        while rcode(&ask(&proxy).await) != 0 {}
        assert_eq!(resolver.log.asked.load(Ordering::Relaxed), 1, "{protocol:?}");
    }
}

#[tokio::test]
async fn a_connection_that_the_server_has_closed_costs_no_lookup() {
    let authority = Authority::new();
    let address = free_address();
    let resolver = Resolver::start(address, &EncryptedProtocol::Tls, &authority).await;
    let proxy = proxy(&[resolver.upstream(&authority)]).await;
    assert_eq!(rcode(&ask(&proxy).await), 0);
    resolver.stop().await;
    let _resolver = Resolver::start(address, &EncryptedProtocol::Tls, &authority).await;
    assert_eq!(rcode(&ask(&proxy).await), 0, "the first one after it");
}

#[tokio::test]
async fn another_upstream_stands_in() {
    let authority = Authority::new();
    let gone = Resolver::start(free_address(), &EncryptedProtocol::Tls, &authority).await;
    let dead = gone.upstream(&authority);
    gone.stop().await;
    let resolver = Resolver::start(free_address(), &EncryptedProtocol::Quic, &authority).await;
    let proxy = proxy(&[dead.clone(), resolver.upstream(&authority)]).await;
    for _ in 0..6 {
        assert_eq!(rcode(&ask(&proxy).await), 0);
    }
    // Three lookups have shown that it is dead, and the others go past it.
    assert_eq!(proxy.agent.count("upstream Tls Unreachable"), 3);
    let told = format!("upstream {} answers=false", dead.address);
    assert_eq!(proxy.agent.count(&told), 1);
}

async fn proxy(upstreams: &[EncryptedUpstream]) -> Proxy {
    let addresses: Vec<SocketAddr> = upstreams.iter().map(|it| it.address).collect();
    let config = ServerConfig {
        encrypted: upstreams.into(),
        ..patient()
    };
    Proxy::start_with(Agent::new(&addresses), config).await
}

async fn ask(proxy: &Proxy) -> Vec<u8> {
    let client = UdpClient::of(proxy.address).await;
    client.ask(&packets::query_with_edns("a.example.", "A", 1_232)).await
}

fn protocols() -> [EncryptedProtocol; 3] {
    let path = "/dns-query".into();
    [
        EncryptedProtocol::Tls,
        EncryptedProtocol::Https { path },
        EncryptedProtocol::Quic,
    ]
}

/// Signs certificates.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    fn certificate(&self) -> Arc<dyn ResolvesServerCert> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([NAME.to_owned()]).unwrap();
        let certificate: CertificateDer<'static> = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let key = ring::sign::any_supported_type(&key).unwrap();
        Arc::new(SingleCertAndKey::from(CertifiedKey::new(vec![certificate], key)))
    }
}

/// What a resolver was asked.
#[derive(Default)]
struct Log {
    asked: AtomicUsize,
    unpadded: AtomicUsize,
    clients: std::sync::Mutex<std::collections::BTreeSet<SocketAddr>>,
}

/// Has one address for every name.
struct Resolver {
    address: SocketAddr,
    protocol: EncryptedProtocol,
    log: Arc<Log>,
    server: Server<Handler>,
}

impl Resolver {
    async fn start(address: SocketAddr, protocol: &EncryptedProtocol, authority: &Authority) -> Self {
        let log = Arc::new(Log::default());
        let mut server = Server::new(Handler(Arc::clone(&log)));
        let certificate = authority.certificate();
        match protocol {
            EncryptedProtocol::Quic => {
                let socket = UdpSocket::bind(address).await.unwrap();
                server.register_quic_listener(socket, PATIENCE, certificate).unwrap();
            }
            EncryptedProtocol::Tls => {
                let listener = TcpListener::bind(address).await.unwrap();
                server.register_tls_listener(listener, PATIENCE, certificate).unwrap();
            }
            EncryptedProtocol::Https { path } => {
                let listener = TcpListener::bind(address).await.unwrap();
                server
                    .register_https_listener(listener, PATIENCE, certificate, Some(NAME.into()), path.clone())
                    .unwrap();
            }
        }
        Self {
            address,
            protocol: protocol.clone(),
            log,
            server,
        }
    }

    fn upstream(&self, authority: &Authority) -> EncryptedUpstream {
        EncryptedUpstream {
            address: self.address,
            protocol: self.protocol.clone(),
            name: NAME.into(),
            authorities: Arc::new([authority.issuer.der().to_vec()]),
        }
    }

    async fn stop(mut self) {
        self.server.shutdown_gracefully().await.unwrap();
    }
}

struct Handler(Arc<Log>);

#[async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut handle: R) -> ResponseInfo {
        self.0.asked.fetch_add(1, Ordering::Relaxed);
        let padded = request.as_slice().len().is_multiple_of(128);
        self.0.unpadded.fetch_add(usize::from(!padded), Ordering::Relaxed);
        self.0.clients.lock().unwrap().insert(request.src());
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.recursion_available = true;
        metadata.response_code = ResponseCode::NoError;
        let name = request.queries.queries()[0].name().into();
        let record = Record::from_rdata(name, 60, RData::A(A::new(192, 0, 2, 1)));
        let builder = MessageResponseBuilder::new(&request.queries, request.edns.as_ref());
        let records = [record];
        let response = builder.build(metadata, &records, [], [], []);
        handle.send_response(response).await.unwrap()
    }
}
