//! The host of a Host field or of a target's authority (RFC 3986 §3.2), without user information.

use std::net::Ipv6Addr;

/// Whether the text is a host name or address, with or without a port. Narrower than RFC 3986: no
/// escapes, and no octets that no host's name has.
pub(super) fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(None) => return false,
        Some(Some((address, port))) => {
            if address.parse::<Ipv6Addr>().is_err() {
                return false;
            }
            match port.strip_prefix(':') {
                Some(port) => (None, Some(port)),
                None if port.is_empty() => (None, None),
                None => return false,
            }
        }
        None => match text.split_once(':') {
            Some((name, port)) => (Some(name), Some(port)),
            None => (Some(text), None),
        },
    };
    let is_name = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|octet| octet.is_ascii_alphanumeric() || b"-._".contains(&octet))
    };
    let is_port = |port: &str| port.bytes().all(|octet| octet.is_ascii_digit()) && port.parse::<u16>().is_ok();
    host.is_none_or(is_name) && port.is_none_or(is_port)
}

#[cfg(test)]
mod tests {
    use super::is_host;

    #[test]
    fn names_and_addresses_with_and_without_a_port_are_hosts() {
        for host in [
            "a",
            "A.example.",
            "a_b.example:8080",
            "10.0.0.1:80",
            "[fd00::1]",
            "[::1]:443",
        ] {
            assert!(is_host(host), "{host}");
        }
        for host in [
            "", ":80", "a:", "a:b", "a:+1", "a:65536", "a b", "u@a", "a/b", "a,b", "a%2eb", "[::1", "[a]", "[::1]x",
            "::1", "a\u{e9}",
        ] {
            assert!(!is_host(host), "{host:?}");
        }
    }
}
