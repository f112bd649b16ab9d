//! Whom the command is to trust, where its TLS ends here.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use agent::local_authority::{LocalAuthority, LocalAuthorityError};
use rustls_native_certs::load_native_certs;
use thiserror::Error;

use crate::report::LiveReport;

/// The variables by which programs are told of a file with authorities: OpenSSL and Go, curl,
/// Python's requests, Node, git, cargo, pip, the AWS tools, Deno.
pub(crate) const VARIABLES: [&str; 9] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "PIP_CERT",
    "AWS_CA_BUNDLE",
    "DENO_CERT",
];

/// The name of the file with authorities.
const FILE: &str = "authorities.pem";

/// Why the command cannot be told.
#[derive(Debug, Error)]
pub(crate) enum TrustError {
    #[error("--inspect: {0}")]
    Authority(#[from] LocalAuthorityError),
    #[error("--inspect: cannot write the certificates for the command: {0}")]
    Write(#[from] io::Error),
}

/// A new authority, and the file that names it beside those whom this system trusts: connections
/// that nobody looks into are still the command's own.
pub(crate) fn authority(live: &LiveReport) -> Result<(Arc<LocalAuthority>, PathBuf), TrustError> {
    let authority = LocalAuthority::new(load_native_certs().certs)?;
    let mut bundle = authority.certificate().to_owned();
    for root in authority.roots() {
        bundle.push_str(&pem::encode(&pem::Pem::new("CERTIFICATE", root.to_vec())));
    }
    let file = live.add(FILE, &bundle)?;
    Ok((Arc::new(authority), file))
}
