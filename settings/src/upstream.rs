//! `--upstream`: a resolver by its address, or how it is asked over an encrypted connection.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use dns_proxy::EncryptedProtocol;
use thiserror::Error;

use super::dns_address::DnsAddress;

/// A resolver to ask.
///
/// `192.0.2.53`, `tls://192.0.2.53#dns.example`, `https://192.0.2.53/dns-query#dns.example`,
/// `quic://[2001:db8::53]:8853#dns.example`. Behind `#` stands the name that its certificate must
/// be for; without it, its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamAddress {
    /// Over UDP, and TCP where an answer is long.
    Plain(SocketAddr),
    /// Over an encrypted connection.
    Encrypted {
        /// The address and port of the resolver.
        address: SocketAddr,
        /// The protocol that it is asked over.
        protocol: EncryptedProtocol,
        /// The name or address that its certificate must be for.
        name: String,
    },
}

/// Why a text is not an [`UpstreamAddress`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotAnUpstream {
    /// It is neither a plain address nor a URL.
    #[error(
        "write an IP address, with a port if it is not 53 (192.0.2.1, [2001:db8::1]:5353), or an encrypted resolver: \
         tls://192.0.2.1#dns.example, https://192.0.2.1/dns-query#dns.example, quic://192.0.2.1#dns.example"
    )]
    Address,
    /// There is no such protocol.
    #[error("{0}:// is not known; there are tls://, https:// and quic://")]
    Scheme(String),
    /// A name stands in place of the address.
    #[error(
        "{host:?} is no IP address, and a name would have to be resolved first; write the resolver's address, and its name \
         behind it: {scheme}://192.0.2.1#{host}"
    )]
    HostFacts {
        /// The scheme of the URL.
        scheme: &'static str,
        /// The name, as written.
        host: String,
    },
    /// Only HTTPS has paths.
    #[error("{0}:// takes no path")]
    Path(&'static str),
    /// It is empty or holds what no name does.
    #[error("{0:?} is no name of a resolver; behind # stands what its certificate is for, as in #dns.example")]
    Name(String),
}

impl UpstreamAddress {
    /// The address and port of the resolver.
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Plain(address) | Self::Encrypted { address, .. } => *address,
        }
    }
}

impl FromStr for UpstreamAddress {
    type Err = NotAnUpstream;

    fn from_str(text: &str) -> Result<Self, NotAnUpstream> {
        let Some((scheme, rest)) = text.split_once("://") else {
            let DnsAddress(address) = text.parse().map_err(|_| NotAnUpstream::Address)?;
            return Ok(Self::Plain(address));
        };
        let (scheme, default_port) = match scheme {
            "tls" => ("tls", 853),
            "https" => ("https", 443),
            "quic" => ("quic", 853),
            other => return Err(NotAnUpstream::Scheme(other.to_owned())),
        };
        let (rest, name) = match rest.split_once('#') {
            Some((rest, name)) => (rest, Some(name)),
            None => (rest, None),
        };
        let (host, path) = match rest.find('/') {
            Some(at) => (&rest[..at], &rest[at..]),
            None => (rest, ""),
        };
        let address = host
            .parse::<SocketAddr>()
            .ok()
            .or_else(|| Some(SocketAddr::new(ip(host)?, default_port)))
            .ok_or_else(|| NotAnUpstream::HostFacts {
                scheme,
                host: host.to_owned(),
            })?;
        let protocol = match scheme {
            "https" => EncryptedProtocol::Https {
                path: if path.len() > 1 {
                    path.to_owned()
                } else {
                    "/dns-query".to_owned()
                },
            },
            _ if path.len() > 1 => return Err(NotAnUpstream::Path(scheme)),
            "tls" => EncryptedProtocol::Tls,
            _ => EncryptedProtocol::Quic,
        };
        let name = match name {
            Some(name) if is_name(name) => name.to_owned(),
            Some(name) => return Err(NotAnUpstream::Name(name.to_owned())),
            None => address.ip().to_string(),
        };
        Ok(Self::Encrypted {
            address,
            protocol,
            name,
        })
    }
}

/// As a flag would give it.
impl fmt::Display for UpstreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(address) => address.fmt(f),
            Self::Encrypted {
                address,
                protocol,
                name,
            } => match protocol {
                EncryptedProtocol::Tls => write!(f, "tls://{address}#{name}"),
                EncryptedProtocol::Https { path } => write!(f, "https://{address}{path}#{name}"),
                EncryptedProtocol::Quic => write!(f, "quic://{address}#{name}"),
            },
        }
    }
}

fn ip(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inside) => inside.parse().ok().map(IpAddr::V6),
        None => host.parse().ok(),
    }
}

fn is_name(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok() || names::Name::parse(text).is_ok_and(|name| name != names::Name::root())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        text.parse::<UpstreamAddress>().unwrap_err().to_string()
    }

    #[test]
    fn upstreams_are_read_and_written_in_full() {
        for (text, full) in [
            ("192.0.2.53", "192.0.2.53:53"),
            ("[2001:db8::53]:5353", "[2001:db8::53]:5353"),
            ("tls://192.0.2.53#dns.example", "tls://192.0.2.53:853#dns.example"),
            ("tls://192.0.2.53", "tls://192.0.2.53:853#192.0.2.53"),
            (
                "tls://[2001:db8::53]:8853#dns.example",
                "tls://[2001:db8::53]:8853#dns.example",
            ),
            ("quic://192.0.2.53#dns.example", "quic://192.0.2.53:853#dns.example"),
            (
                "https://192.0.2.53#dns.example",
                "https://192.0.2.53:443/dns-query#dns.example",
            ),
            (
                "https://192.0.2.53:8443/a/b#dns.example",
                "https://192.0.2.53:8443/a/b#dns.example",
            ),
        ] {
            assert_eq!(text.parse::<UpstreamAddress>().unwrap().to_string(), full, "{text}");
        }
    }

    #[test]
    fn an_error_says_what_to_write() {
        assert!(error("https://dns.example/dns-query").contains("https://192.0.2.1#dns.example"));
        assert!(error("doh://192.0.2.53").contains("there are tls://, https:// and quic://"));
        assert!(error("tls://192.0.2.53/dns-query").contains("takes no path"));
        assert!(error("tls://192.0.2.53#").contains("#dns.example"));
        assert!(error("tls://192.0.2.53#a b").contains("no name"));
        assert!(error("dns.example").contains("tls://"));
        assert!(error("192.0.2.53#dns.example").contains("tls://"));
    }
}
