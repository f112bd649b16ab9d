//! DNS cookies (RFC 7873, RFC 9018), hop by hop: we answer a client's cookie and do not forward it,
//! and do not relay an upstream's.
//!
//! A client that once got a server cookie drops every answer without one (c-ares, for two minutes).
//! So a client that sends a server cookie gets one with every reply. A client that sends none gets
//! one only after an upstream has sent cookies: otherwise its lookups would fail whenever they
//! reach that upstream without the proxy.
//!
//! Our server cookies are never verified, and so carry no time: the kernel has checked a client's
//! source address already.

use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};

use siphasher::sip::SipHasher24;

use crate::wire_format::Malformed;

/// The length of a client cookie.
pub(crate) const CLIENT: usize = 8;

/// Whether the option may be so long: a client cookie, alone or with a server cookie (RFC 7873 §4).
pub(crate) fn is_length(length: usize) -> bool {
    matches!(length, CLIENT | 16..=40)
}

/// What we answer: the client's cookie and the shortest server cookie.
pub(crate) const LENGTH: usize = 2 * CLIENT;

/// What a client sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientCookie {
    client: [u8; CLIENT],
    /// It has a server cookie, so it drops what comes without.
    has_server_cookie: bool,
}

impl ClientCookie {
    /// Reads the option's data. All other lengths are format errors (RFC 7873 §5.2.2).
    pub(crate) fn read(data: &[u8]) -> Result<Self, Malformed> {
        match data.first_chunk() {
            Some(client) if is_length(data.len()) => Ok(Self {
                client: *client,
                has_server_cookie: data.len() > CLIENT,
            }),
            _ => Err(Malformed),
        }
    }
}

/// Makes our cookies: those of a server for clients, those of a client for upstreams. All workers
/// share one, and so do lookups over TCP.
#[derive(Debug)]
pub(crate) struct Cookies {
    /// Drawn at each start.
    secret: [u8; 16],
    upstreams_speak: AtomicBool,
}

impl Cookies {
    pub(crate) fn new() -> Self {
        Self {
            secret: rand::random(),
            upstreams_speak: AtomicBool::new(false),
        }
    }

    /// Notes that an upstream has sent a server cookie: every client that sends a cookie is given
    /// one from now on.
    pub(crate) fn upstream_speaks(&self) {
        self.upstreams_speak.store(true, Ordering::Relaxed);
    }

    /// The cookie that goes with whatever is said to a client that sent this: its own, and a hash
    /// of that and its address (RFC 7873 §B.1, with the hash of RFC 9018 §4.4).
    pub(crate) fn answer(&self, sent: ClientCookie, client: IpAddr) -> Option<[u8; LENGTH]> {
        if !sent.has_server_cookie && !self.upstreams_speak.load(Ordering::Relaxed) {
            return None;
        }
        let mut hasher = SipHasher24::new_with_key(&self.secret);
        hasher.write(&sent.client);
        write_address(&mut hasher, client);
        let mut cookie = [0; LENGTH];
        cookie[..CLIENT].copy_from_slice(&sent.client);
        cookie[CLIENT..].copy_from_slice(&hasher.finish().to_le_bytes());
        Some(cookie)
    }

    /// Our client cookie for this server alone, so that none can play another's (RFC 7873 §4.1).
    pub(crate) fn for_upstream(&self, server: SocketAddr) -> [u8; CLIENT] {
        let mut hasher = SipHasher24::new_with_key(&self.secret);
        write_address(&mut hasher, server.ip());
        hasher.write_u16(server.port());
        hasher.finish().to_le_bytes()
    }
}

fn write_address(hasher: &mut SipHasher24, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => hasher.write(&v4.octets()),
        IpAddr::V6(v6) => hasher.write(&v6.octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENTS: &[u8] = b"original";

    #[test]
    fn a_client_gets_its_own_cookie_back_with_one_of_ours() {
        let (cookies, client) = (Cookies::new(), "10.0.0.1".parse().unwrap());
        let sent = ClientCookie::read(b"original+servers").unwrap();
        let cookie = cookies.answer(sent, client).unwrap();
        assert_eq!(cookie[..CLIENT], *CLIENTS);
        assert_eq!(Some(cookie), cookies.answer(sent, client), "it stays the same");
        assert_ne!(
            Some(cookie),
            cookies.answer(sent, "10.0.0.2".parse().unwrap()),
            "and is no other client's"
        );
        let other = ClientCookie::read(b"original, and 32 octets of a server's...").unwrap();
        assert_eq!(Some(cookie), cookies.answer(other, client), "whoever made the old one");
    }

    /// A client that has never seen a server cookie would miss it where we are not in the way.
    #[test]
    fn a_client_without_a_server_cookie_gets_one_where_upstreams_speak_cookies() {
        let (cookies, client) = (Cookies::new(), "10.0.0.1".parse().unwrap());
        let sent = ClientCookie::read(CLIENTS).unwrap();
        assert_eq!(cookies.answer(sent, client), None);
        cookies.upstream_speaks();
        assert!(cookies.answer(sent, client).is_some());
    }

    #[test]
    fn a_cookie_of_another_length_is_a_format_error() {
        for length in (0..8).chain(9..16).chain(41..50) {
            assert_eq!(ClientCookie::read(&vec![7; length]), Err(Malformed), "{length}");
        }
    }
}
