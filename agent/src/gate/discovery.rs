//! Names with which a client discovers encrypted DNS servers. Namegate sees none of the answers of
//! such a server, so it answers these questions in a way that keeps the client here.

use dns_proxy::Rcode;
use names::Name;

/// The response code that keeps the client from switching; `None` for all other names.
pub(super) fn answer_that_keeps(name: &Name) -> Option<Rcode> {
    let name = name.as_str();
    match name {
        // Firefox's canary: its own DNS over HTTPS stays off unless the name exists
        // (support.mozilla.org/kb/canary-domain-use-application-dnsnet).
        "use-application-dns.net." => Some(Rcode::NxDomain),
        // Discovery of designated resolvers: nobody is designated (RFC 9462 §6.4). The zone is each
        // resolver's own.
        "resolver.arpa." => Some(Rcode::NoError),
        _ if name.ends_with(".resolver.arpa.") => Some(Rcode::NoError),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_names_of_discovery_are_answered() {
        let answer = |name: &str| answer_that_keeps(&Name::parse(name).unwrap());
        assert_eq!(answer("Use-Application-DNS.net"), Some(Rcode::NxDomain));
        assert_eq!(answer("_dns.resolver.arpa"), Some(Rcode::NoError));
        assert_eq!(answer("resolver.arpa"), Some(Rcode::NoError));
        for other in ["a.use-application-dns.net", "notresolver.arpa", "resolver.arpa.example"] {
            assert_eq!(answer(other), None, "{other}");
        }
    }
}
