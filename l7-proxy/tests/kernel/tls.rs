//! Requests within TLS that ends at the proxy.

use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;

use l7_proxy::Termination;
use names::Name;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::lab::{Lab, LabJudge, OUTSIDE, serve_http};

const NAME: &str = "requests.example";

/// An authority of the test's own.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Another name than that of the certificates, or these pass for self-signed.
        params.distinguished_name.push(DnType::CommonName, "authority");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A server that shows a certificate for `name`.
    fn server(&self, name: &str) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()])
            .unwrap()
            .signed_by(&key, &self.0)
            .unwrap();
        let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, key);
        Arc::new(config.unwrap())
    }

    /// A client that trusts it alone.
    fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.as_ref().der().clone()).unwrap();
        Arc::new(
            ClientConfig::builder()
                .with_root_certificates(roots)
                .with_no_client_auth(),
        )
    }

    /// Its certificate as a file, for curl.
    fn file(&self, directory: &tempfile::TempDir) -> PathBuf {
        let path = directory.path().join("authority.pem");
        std::fs::write(&path, self.0.as_ref().pem()).unwrap();
        path
    }
}

/// A node whose proxy ends TLS, and the outside's server, which shows a certificate for `shown`.
struct Scene {
    lab: Lab,
    judge: Arc<LabJudge>,
    trusted: PathBuf,
    _proxy: l7_proxy::L7Server,
    _directory: tempfile::TempDir,
}

impl Scene {
    fn new(shown: &str) -> Option<Self> {
        let lab = Lab::new()?;
        let (own, outside) = (Authority::new(), Authority::new());
        let judge = Arc::new(LabJudge {
            termination: Some(Termination {
                server: own.server(NAME),
                client: Some(outside.client()),
                name: Name::parse(NAME).unwrap(),
            }),
            ..LabJudge::default()
        });
        let proxy = lab.proxy(&judge);
        let config = outside.server(shown);
        lab.serve(443, move |stream| serve_https(stream, Arc::clone(&config)));
        let directory = tempfile::tempdir().unwrap();
        Some(Self {
            lab,
            judge,
            trusted: own.file(&directory),
            _proxy: proxy,
            _directory: directory,
        })
    }

    fn curl(&self, arguments: &[&str]) -> String {
        let mut all = vec!["--cacert".to_owned(), self.trusted.display().to_string()];
        for address in OUTSIDE {
            let address = if address.contains(':') {
                format!("[{address}]")
            } else {
                address.to_owned()
            };
            all.extend(["--resolve".to_owned(), format!("{NAME}:443:{address}")]);
        }
        let all: Vec<&str> = all
            .iter()
            .map(String::as_str)
            .chain(arguments.iter().copied())
            .collect();
        self.lab.curl(&all)
    }
}

fn serve_https(stream: TcpStream, config: Arc<ServerConfig>) {
    let peer = stream.peer_addr().unwrap();
    let connection = ServerConnection::new(config).unwrap();
    let mut stream = StreamOwned::new(connection, stream);
    serve_http(&mut stream, peer);
    stream.conn.send_close_notify();
    let _ = stream.flush();
}

#[test]
fn each_request_within_tls_is_judged() {
    let Some(scene) = Scene::new(NAME) else { return };
    let allowed = scene.curl(&["https://requests.example/allowed/1"]);
    assert!(allowed.starts_with("GET /allowed/1 HTTP/1.1 from "), "{allowed}");
    assert!(allowed.ends_with(" 200"), "{allowed}");
    let refused = scene.curl(&["https://requests.example/other"]);
    assert_eq!(refused, "Access denied\r\n 403");
    // One connection: the second is answered here, and the third goes on.
    let three = scene.curl(&[
        "https://requests.example/allowed/1",
        "https://requests.example/other",
        "https://requests.example/allowed/3",
    ]);
    assert_eq!(three.matches(" 200").count(), 2, "{three}");
    assert_eq!(three.matches(" 403").count(), 1, "{three}");
}

#[test]
fn long_bodies_pass_both_ways_within_tls() {
    let Some(scene) = Scene::new(NAME) else { return };
    let large = scene.curl(&[
        "https://requests.example/allowed/large",
        "-o",
        "/dev/null",
        "-w",
        "%{size_download}",
    ]);
    assert_eq!(large, "20000000");
    let body = "x".repeat(100_000);
    let sent = scene.curl(&["https://requests.example/allowed", "--data-binary", &body]);
    assert!(sent.ends_with("with 100000 200"), "{sent}");
}

#[test]
fn a_server_that_shows_another_name_is_not_reached() {
    let Some(scene) = Scene::new("other.example") else {
        return;
    };
    let answer = scene.curl(&["https://requests.example/allowed/1"]);
    assert!(answer.ends_with(" 502"), "{answer}");
    scene.judge.noted("DialFailed(Tls)");
}

#[test]
fn a_client_that_trusts_somebody_else_is_told_so() {
    let Some(scene) = Scene::new(NAME) else { return };
    let address = format!("requests.example:443:{}", OUTSIDE[0]);
    let answer = scene
        .lab
        .curl(&["--resolve", &address, "https://requests.example/allowed/1"]);
    assert!(answer.contains("certificate"), "{answer}");
    scene.judge.noted("FailedHandshake");
}
