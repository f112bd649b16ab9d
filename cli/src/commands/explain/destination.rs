//! What `--to` names besides an address, a name or a pod: each of them with a port, and URLs.

use std::net::{IpAddr, Ipv6Addr};

use super::UsageError;

/// A destination taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Destination {
    /// A name, an address, or a pod.
    pub(super) to: String,
    /// The port that is named, or the usual one of the URL's scheme.
    pub(super) port: Option<u16>,
    /// What a connection for a URL announces.
    pub(super) announces: UrlAnnouncement,
}

/// What a connection announces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum UrlAnnouncement {
    /// Nothing that is known.
    #[default]
    Nothing,
    /// The TLS server name.
    ServerName(String),
    /// The host and path of a request.
    Request {
        /// The host, with the port where it is not the usual one.
        host: String,
        /// The path with the query.
        path: String,
    },
}

impl Destination {
    /// Takes `--to` apart.
    pub(super) fn read(text: &str) -> Result<Self, UsageError> {
        match text.split_once("://") {
            Some((scheme, rest)) => Self::of_url(text, &scheme.to_ascii_lowercase(), rest),
            None => {
                let (to, port) = split_port(text)?;
                Ok(Self {
                    to,
                    port,
                    announces: UrlAnnouncement::Nothing,
                })
            }
        }
    }

    fn of_url(url: &str, scheme: &str, rest: &str) -> Result<Self, UsageError> {
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        // Whoever connects keeps the part after `#` to himself, and who he is.
        let path = path.split('#').next().unwrap_or_default();
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let (to, named) = split_port(authority)?;
        if to.is_empty() {
            return Err(UsageError(format!("{url:?} names no host")));
        }
        let usual = match scheme {
            "http" | "ws" => Some(80),
            "https" | "wss" => Some(443),
            _ => None,
        };
        let port = named.or(usual);
        if port.is_none() {
            return Err(UsageError(format!(
                "the usual port of {scheme:?} is not known; write it, as in {scheme}://{to}:PORT"
            )));
        }
        let announces = match usual {
            Some(443) if to.parse::<IpAddr>().is_err() => UrlAnnouncement::ServerName(to.clone()),
            Some(80) => UrlAnnouncement::Request {
                host: authority.to_owned(),
                path: match path.starts_with('/') {
                    true => path.to_owned(),
                    false => format!("/{path}"),
                },
            },
            _ => UrlAnnouncement::Nothing,
        };
        Ok(Self { to, port, announces })
    }
}

/// Splits `HOST:PORT`. Addresses of IPv6 with a port stand in brackets.
fn split_port(text: &str) -> Result<(String, Option<u16>), UsageError> {
    if text.parse::<Ipv6Addr>().is_ok() {
        return Ok((text.to_owned(), None));
    }
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (host, Some(rest.strip_prefix(':').unwrap_or(rest))),
        None => match text.rsplit_once(':') {
            // A prefix of IPv6, which is told so where it is read.
            Some((host, _)) if host.contains(':') => (text, None),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = port.map(|port| {
        port.parse().map_err(|_| {
            UsageError(format!(
                "{port:?} is no port; write a number up to 65535, as in {host}:443"
            ))
        })
    });
    Ok((host.to_owned(), port.transpose()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (String, Option<u16>, UrlAnnouncement) {
        let Destination { to, port, announces } = Destination::read(text).unwrap();
        (to, port, announces)
    }

    #[test]
    fn a_port_may_follow_a_name_an_address_and_a_pod() {
        for (text, to, port) in [
            ("api.example", "api.example", None),
            ("api.example:443", "api.example", Some(443)),
            ("192.0.2.1:53", "192.0.2.1", Some(53)),
            ("2001:db8::1", "2001:db8::1", None),
            ("2001:db8::1:53", "2001:db8::1:53", None),
            ("[2001:db8::1]:53", "2001:db8::1", Some(53)),
            ("[2001:db8::1]", "2001:db8::1", None),
            ("2001:db8::/32", "2001:db8::/32", None),
            ("shop/db:5432", "shop/db", Some(5432)),
        ] {
            assert_eq!(read(text), (to.to_owned(), port, UrlAnnouncement::Nothing), "{text}");
        }
    }

    #[test]
    fn a_url_says_port_and_what_is_announced() {
        let sni = UrlAnnouncement::ServerName("api.example".into());
        assert_eq!(
            read("https://api.example/v1"),
            ("api.example".into(), Some(443), sni.clone())
        );
        assert_eq!(
            read("HTTPS://me:pw@api.example:8443"),
            ("api.example".into(), Some(8443), sni)
        );
        let (to, port, announces) = read("http://shop.example:8080/a?b=c#d");
        assert_eq!((to.as_str(), port), ("shop.example", Some(8080)));
        let (host, path) = ("shop.example:8080".into(), "/a?b=c".into());
        assert_eq!(announces, UrlAnnouncement::Request { host, path });
        let (host, path) = ("shop.example".into(), "/?q".into());
        assert_eq!(read("http://shop.example?q").2, UrlAnnouncement::Request { host, path });
        assert_eq!(read("https://[2001:db8::1]/").2, UrlAnnouncement::Nothing);
        assert_eq!(
            read("postgres://db.example:5432/x"),
            ("db.example".into(), Some(5432), UrlAnnouncement::Nothing)
        );
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let said = |text: &str| Destination::read(text).unwrap_err().to_string();
        assert!(said("postgres://db.example").contains("postgres://db.example:PORT"));
        assert!(said("api.example:http").contains("65535"));
        assert!(said("api.example:70000").contains("65535"));
        assert!(said("https:///path").contains("no host"));
    }
}
