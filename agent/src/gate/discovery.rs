//! Names with which a client discovers encrypted DNS servers.
//!
//! Namegate cannot see the answers of such a server, so that these questions get a response that
//! makes the client stay with plain DNS.

use dns_proxy::Rcode;
use names::Name;

/// The response code that makes the client stay with plain DNS; `None` for all other names.
pub(super) fn discovery_rcode(name: &Name) -> Option<Rcode> {
    let name = name.as_str();
    match name {
        // Firefox's canary domain: DNS over HTTPS stays off unless the name exists
        // (support.mozilla.org/kb/canary-domain-use-application-dnsnet).
        "use-application-dns.net." => Some(Rcode::NxDomain),
        // Discovery of designated resolvers: none is designated (RFC 9462 §6.4). Each resolver
        // answers for this zone itself.
        "resolver.arpa." => Some(Rcode::NoError),
        _ if name.ends_with(".resolver.arpa.") => Some(Rcode::NoError),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_discovery_names_get_a_response_code() {
        let answer = |name: &str| discovery_rcode(&Name::parse(name).unwrap());
        assert_eq!(answer("Use-Application-DNS.net"), Some(Rcode::NxDomain));
        assert_eq!(answer("_dns.resolver.arpa"), Some(Rcode::NoError));
        assert_eq!(answer("resolver.arpa"), Some(Rcode::NoError));
        for other in ["a.use-application-dns.net", "notresolver.arpa", "resolver.arpa.example"] {
            assert_eq!(answer(other), None, "{other}");
        }
    }
}
