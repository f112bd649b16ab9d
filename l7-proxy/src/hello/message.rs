//! Reads the body of a ClientHello (RFC 8446 §4.1.2). Every length must fit exactly.

use std::net::Ipv4Addr;

use names::Name;
use smallvec::SmallVec;

use super::{ClientHello, InvalidHello};

/// `server_name` (RFC 6066 §3).
const SERVER_NAME: u16 = 0;
/// `application_layer_protocol_negotiation` (RFC 7301).
const ALPN: u16 = 16;
/// `encrypted_client_hello` (RFC 9849).
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// Reads the body, without the four octets of the handshake's header.
pub(super) fn parse(body: &[u8]) -> Result<ClientHello, InvalidHello> {
    let mut reader = Octets(body);
    let legacy_version = reader.take(2)?;
    if legacy_version[0] != 3 {
        return Err(InvalidHello::Message);
    }
    let _random = reader.take(32)?;
    if reader.vector_u8()?.len() > 32 {
        return Err(InvalidHello::Length);
    }
    let cipher_suites = reader.vector_u16()?;
    if cipher_suites.is_empty() || !cipher_suites.len().is_multiple_of(2) {
        return Err(InvalidHello::Length);
    }
    if reader.vector_u8()?.is_empty() {
        return Err(InvalidHello::Length);
    }
    let mut hello = ClientHello {
        server_name: None,
        is_encrypted: false,
        protocols: SmallVec::new(),
    };
    // TLS 1.2 allows a hello without extensions.
    if reader.0.is_empty() {
        return Ok(hello);
    }
    let mut extensions = Octets(reader.vector_u16()?);
    reader.end()?;
    let mut seen: SmallVec<[u16; 32]> = SmallVec::new();
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let data = extensions.vector_u16()?;
        seen.push(kind);
        match kind {
            SERVER_NAME => hello.server_name = Some(server_name(data)?),
            ALPN => hello.protocols = protocols(data)?,
            ENCRYPTED_CLIENT_HELLO => hello.is_encrypted = true,
            _ => {}
        }
    }
    // Which of two a server reads is its own affair, so neither may be judged.
    seen.sort_unstable();
    if seen.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(InvalidHello::RepeatedExtension);
    }
    Ok(hello)
}

/// Exactly one name, of the only type there is. RFC 6066 forbids two of one type, literal addresses
/// and the trailing dot.
fn server_name(data: &[u8]) -> Result<Name, InvalidHello> {
    const HOST_NAME: u8 = 0;
    let mut reader = Octets(data);
    let mut list = Octets(reader.vector_u16()?);
    reader.end()?;
    if list.u8()? != HOST_NAME {
        return Err(InvalidHello::ServerName);
    }
    let host_name = list.vector_u16()?;
    if !list.0.is_empty() || host_name.ends_with(b".") {
        return Err(InvalidHello::ServerName);
    }
    let text = str::from_utf8(host_name).map_err(|_| InvalidHello::ServerName)?;
    if text.parse::<Ipv4Addr>().is_ok() {
        return Err(InvalidHello::ServerName);
    }
    Name::parse(text).map_err(|_| InvalidHello::ServerName)
}

fn protocols(data: &[u8]) -> Result<SmallVec<[Box<[u8]>; 2]>, InvalidHello> {
    let mut reader = Octets(data);
    let mut list = Octets(reader.vector_u16()?);
    reader.end()?;
    let mut protocols = SmallVec::new();
    while !list.0.is_empty() {
        let protocol = list.vector_u8()?;
        if protocol.is_empty() {
            return Err(InvalidHello::Length);
        }
        protocols.push(Box::from(protocol));
    }
    if protocols.is_empty() {
        return Err(InvalidHello::Length);
    }
    Ok(protocols)
}

/// What is still to be read.
struct Octets<'a>(&'a [u8]);

impl<'a> Octets<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], InvalidHello> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(InvalidHello::Length)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, InvalidHello> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u16, InvalidHello> {
        let octets = self.take(2)?;
        Ok(u16::from_be_bytes([octets[0], octets[1]]))
    }

    fn vector_u8(&mut self) -> Result<&'a [u8], InvalidHello> {
        let length = self.u8()?;
        self.take(length.into())
    }

    fn vector_u16(&mut self) -> Result<&'a [u8], InvalidHello> {
        let length = self.u16()?;
        self.take(length.into())
    }

    fn end(&self) -> Result<(), InvalidHello> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(InvalidHello::Length)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::HelloSample;
    use super::*;

    fn parsed(sample: &HelloSample) -> Result<ClientHello, InvalidHello> {
        parse(&sample.body())
    }

    #[test]
    fn names_protocols_and_ech_are_seen() {
        let sample = HelloSample {
            extensions: vec![
                HelloSample::server_name("API.Example.com"),
                HelloSample::alpn(&["h2", "http/1.1"]),
                (ENCRYPTED_CLIENT_HELLO, vec![0; 120]),
                (0x1a1a, Vec::new()),
            ],
            ..HelloSample::default()
        };
        let hello = parsed(&sample).unwrap();
        assert_eq!(hello.server_name, Some(Name::parse("api.example.com").unwrap()));
        assert!(hello.is_encrypted);
        let protocols: Vec<&[u8]> = hello.protocols.iter().map(|protocol| &**protocol).collect();
        assert_eq!(protocols, [&b"h2"[..], b"http/1.1"]);
    }

    #[test]
    fn a_hello_of_tls_1_2_may_have_no_extensions() {
        let mut body = HelloSample::default().body();
        let extensions = body.len() - 2;
        body.truncate(extensions);
        assert_eq!(parse(&body).unwrap().server_name, None);
    }

    #[test]
    fn a_server_name_that_is_no_host_name_is_refused() {
        for name in [
            "",
            "a..b",
            ".",
            "a.example.",
            "10.0.0.1",
            "fd00::1",
            "a b",
            "a\0b",
            "ä.example",
        ] {
            let sample = HelloSample {
                extensions: vec![HelloSample::server_name(name)],
                ..HelloSample::default()
            };
            assert_eq!(parsed(&sample), Err(InvalidHello::ServerName), "{name:?}");
        }
    }

    #[test]
    fn a_list_of_other_than_one_host_name_is_refused() {
        let entry = |kind: u8, name: &str| {
            let mut entry = vec![kind];
            entry.extend(u16::try_from(name.len()).unwrap().to_be_bytes());
            entry.extend(name.as_bytes());
            entry
        };
        let two = [entry(0, "a.example"), entry(0, "b.example")].concat();
        let unknown = entry(1, "a.example");
        let after_unknown = [entry(1, "a.example"), entry(0, "a.example")].concat();
        for list in [two, unknown, after_unknown] {
            let mut data = u16::try_from(list.len()).unwrap().to_be_bytes().to_vec();
            data.extend(list);
            let sample = HelloSample {
                extensions: vec![(SERVER_NAME, data)],
                ..HelloSample::default()
            };
            assert_eq!(parsed(&sample), Err(InvalidHello::ServerName));
        }
        let empty = HelloSample {
            extensions: vec![(SERVER_NAME, vec![0, 0])],
            ..HelloSample::default()
        };
        assert_eq!(parsed(&empty), Err(InvalidHello::Length));
    }

    #[test]
    fn an_extension_twice_is_refused() {
        let sample = HelloSample {
            extensions: vec![
                HelloSample::server_name("a.example"),
                (10, vec![0, 2, 0, 29]),
                HelloSample::server_name("b.example"),
            ],
            ..HelloSample::default()
        };
        assert_eq!(parsed(&sample), Err(InvalidHello::RepeatedExtension));
    }

    #[test]
    fn every_shorter_and_longer_body_is_refused() {
        let sample = HelloSample {
            extensions: vec![HelloSample::server_name("a.example"), HelloSample::alpn(&["h2"])],
            ..HelloSample::default()
        };
        let mut body = sample.body();
        let extensions_at = HelloSample::default().body().len() - 2;
        for length in 0..body.len() {
            let cut = parse(&body[..length]);
            assert_eq!(cut.is_ok(), length == extensions_at, "{length}: {cut:?}");
        }
        body.push(0);
        assert_eq!(parse(&body), Err(InvalidHello::Length));
    }
}
