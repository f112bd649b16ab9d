//! Where the agent listens, and whom it asks.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use dns_proxy::EncryptedUpstream;

use crate::dns_address::DnsAddress;
use crate::host::HostFacts;
use crate::rejected::{RejectedOption, rejected};
use crate::upstream::UpstreamAddress;

/// The addresses of `--listen`, each once.
pub(super) fn listeners(given: Vec<DnsAddress>) -> Result<Vec<SocketAddr>, RejectedOption> {
    let mut listen = Vec::new();
    for DnsAddress(address) in given {
        if address.ip().is_multicast() {
            return Err(rejected("listen", address, "it is a multicast address"));
        }
        if !listen.contains(&address) {
            listen.push(address);
        }
    }
    Ok(listen)
}

/// The addresses of `given`, or of the resolvers that the host itself asks.
pub(super) fn upstreams(
    given: Vec<UpstreamAddress>,
    listen: &[SocketAddr],
    host: &HostFacts,
) -> Result<Vec<SocketAddr>, RejectedOption> {
    let candidates: Vec<SocketAddr> = if given.is_empty() {
        let text = host
            .resolv_conf
            .as_ref()
            .map_err(|error| RejectedOption::NoUpstream(format!("/etc/resolv.conf cannot be read: {error}")))?;
        // What the host itself uses is taken as it is, less what would make a loop.
        let found: Vec<_> = nameservers(text)
            .map(|ip| SocketAddr::new(ip, 53))
            .filter(|address| !answers_itself(*address, listen))
            .collect();
        if found.is_empty() {
            return Err(RejectedOption::NoUpstream("/etc/resolv.conf names none".into()));
        }
        found
    } else {
        given.iter().map(UpstreamAddress::address).collect()
    };
    let mut upstreams = Vec::new();
    for address in candidates {
        let refuse = |reason: &str| Err(rejected("upstream", address, reason));
        if address.ip().is_unspecified() || address.ip().is_multicast() {
            return refuse("a resolver has a unicast address");
        }
        if address.port() == 0 {
            return refuse("0 is no port");
        }
        if answers_itself(address, listen) {
            return refuse("the agent listens there itself (--listen), and would ask itself for ever");
        }
        if !upstreams.contains(&address) {
            upstreams.push(address);
        }
    }
    Ok(upstreams)
}

/// The encrypted ones of `given`, with the authorities that vouch for them.
pub(super) fn encrypted(
    given: &[UpstreamAddress],
    authorities_in: Option<&Path>,
) -> Result<Vec<EncryptedUpstream>, RejectedOption> {
    let mut encrypted: Vec<EncryptedUpstream> = Vec::new();
    let mut authorities = None;
    for (place, upstream) in given.iter().enumerate() {
        let UpstreamAddress::Encrypted {
            address,
            protocol,
            name,
        } = upstream
        else {
            continue;
        };
        let others = given.iter().take(place).chain(given.iter().skip(place + 1));
        if others
            .clone()
            .any(|other| other.address() == *address && other != upstream)
        {
            let reason = "another upstream has the same address and port, and answers are told apart by these";
            return Err(rejected("upstream", upstream, reason));
        }
        if encrypted.iter().any(|it| it.address == *address) {
            continue;
        }
        if authorities.is_none() {
            let found = load_authorities(authorities_in).map_err(|reason| match authorities_in {
                Some(file) => rejected("upstream-ca", file.display(), reason),
                None => rejected("upstream", upstream, reason),
            })?;
            authorities = Some(found);
        }
        let one = EncryptedUpstream {
            address: *address,
            protocol: protocol.clone(),
            name: name.clone(),
            authorities: authorities.clone().unwrap_or_default(),
        };
        one.check().map_err(|why| rejected("upstream", upstream, why))?;
        encrypted.push(one);
    }
    Ok(encrypted)
}

fn answers_itself(upstream: SocketAddr, listen: &[SocketAddr]) -> bool {
    listen.iter().any(|own| {
        own.port() == upstream.port()
            && (own.ip() == upstream.ip() || own.ip().is_unspecified() && upstream.ip().is_loopback())
    })
}

/// The `nameserver` lines of resolv.conf(5). Addresses that cannot be used as such (a zone by
/// interface name) are left out.
fn nameservers(text: &str) -> impl Iterator<Item = IpAddr> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver"))
            .then(|| words.next()?.parse().ok())
            .flatten()
    })
}

/// The certificates of authorities that encrypted upstreams are checked against: those of a file in
/// PEM, or the system's. In DER; an error says what to do.
fn load_authorities(file: Option<&Path>) -> Result<Arc<[Vec<u8>]>, String> {
    let found = match file {
        Some(file) => rustls_native_certs::load_certs_from_paths(Some(file), None),
        None => rustls_native_certs::load_native_certs(),
    };
    let certificates: Vec<Vec<u8>> = found.certs.iter().map(|certificate| certificate.to_vec()).collect();
    if !certificates.is_empty() {
        return Ok(certificates.into());
    }
    let why = found
        .errors
        .first()
        .map_or("there is none".to_owned(), ToString::to_string);
    Err(match file {
        Some(_) => format!("no certificate in PEM can be read there: {why}"),
        None => format!(
            "this system has no certificates of authorities to check it against ({why}); install them (ca-certificates), or name \
             a file with --upstream-ca"
        ),
    })
}
