//! A certificate authority that lives in memory, for TLS that ends at this node.
//!
//! `namegate exec --inspect` makes one for one command, and tells that command alone of it. Keys
//! are never written down, and end with the process.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use l7_proxy::Termination;
use lru::LruCache;
use names::Name;
use parking_lot::Mutex;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use rustls::crypto::ring::{default_provider, sign::any_ecdsa_type};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use thiserror::Error;

/// So many names have a certificate at once; one that was not used for longest is made anew.
const MOST_CERTIFICATES: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
/// The protocol that is read within TLS (RFC 7301).
const PROTOCOL: &[u8] = b"http/1.1";

/// Why there is no authority.
#[derive(Debug, Error)]
pub enum LocalAuthorityError {
    /// A key or certificate cannot be made.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The system trusts nobody.
    #[error("this system trusts no certificate authority: install ca-certificates, or name a file with SSL_CERT_FILE")]
    NoRoots,
}

/// An authority, and whom the node itself trusts.
pub struct LocalAuthority {
    pem: String,
    roots: Vec<CertificateDer<'static>>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl LocalAuthority {
    /// A new authority. `roots` are those whom the node trusts as a client.
    ///
    /// # Errors
    /// When there are no roots, or keys cannot be made.
    pub fn new(roots: Vec<CertificateDer<'static>>) -> Result<Self, LocalAuthorityError> {
        let mut trusted = RootCertStore::empty();
        let (readable, _) = trusted.add_parsable_certificates(roots.iter().cloned());
        if readable == 0 {
            return Err(LocalAuthorityError::NoRoots);
        }
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        // Another subject than that of the certificates, or these pass for self-signed.
        params.distinguished_name = subject("Namegate, of this command alone");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let pem = issuer.as_ref().pem();
        let key = KeyPair::generate()?;
        let certificates = Certificates {
            issuer,
            signing: any_ecdsa_type(&PrivatePkcs8KeyDer::from(key.serialize_der()).into())?,
            key,
            made: Mutex::new(LruCache::new(MOST_CERTIFICATES)),
        };
        let provider = Arc::new(default_provider());
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(certificates));
        server.alpn_protocols = vec![PROTOCOL.to_vec()];
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(trusted)
            .with_no_client_auth();
        client.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Self {
            pem,
            roots,
            server: Arc::new(server),
            client: Arc::new(client),
        })
    }

    /// Its certificate, in PEM.
    pub fn certificate(&self) -> &str {
        &self.pem
    }

    /// Whom the node trusts as a client.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// How TLS for this name ends here.
    pub(crate) fn termination(&self, name: Name) -> Termination {
        Termination {
            server: Arc::clone(&self.server),
            client: Some(Arc::clone(&self.client)),
            name,
        }
    }
}

// It has keys.
impl fmt::Debug for LocalAuthority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LocalAuthority").finish_non_exhaustive()
    }
}

/// A certificate for each name that was asked for, all with one key.
struct Certificates {
    issuer: CertifiedIssuer<'static, KeyPair>,
    key: KeyPair,
    signing: Arc<dyn SigningKey>,
    made: Mutex<LruCache<String, Arc<CertifiedKey>>>,
}

impl Certificates {
    fn make(&self, name: &str) -> Result<CertifiedKey, rcgen::Error> {
        let mut params = CertificateParams::new([name.to_owned()])?;
        params.distinguished_name = subject(name);
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&self.key, &self.issuer)?;
        Ok(CertifiedKey::new(
            vec![certificate.der().clone()],
            Arc::clone(&self.signing),
        ))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name()?;
        if let Some(made) = self.made.lock().get(name) {
            return Some(Arc::clone(made));
        }
        match self.make(name) {
            Ok(made) => {
                let made = Arc::new(made);
                self.made.lock().put(name.to_owned(), Arc::clone(&made));
                Some(made)
            }
            Err(error) => {
                tracing::warn!(name, %error, "a certificate cannot be made");
                None
            }
        }
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Certificates").finish_non_exhaustive()
    }
}

fn subject(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}
