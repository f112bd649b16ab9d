//! Hellos for tests: as data, as octets, and one of OpenSSL.

use proptest::prelude::*;

use super::ClientHello;
use names::Name;

/// What OpenSSL 3 sends for www.example.org with ALPN h2 and http/1.1, as it came.
pub(crate) const OPENSSL_HELLO: &[u8] = include_bytes!("../../tests/fixtures/openssl.hello");

/// A hello as data, and the plain model of what it says.
#[derive(Debug, Clone)]
pub(crate) struct HelloSample {
    pub(crate) session_id: Vec<u8>,
    pub(crate) cipher_suites: Vec<u16>,
    /// In order, as type and data.
    pub(crate) extensions: Vec<(u16, Vec<u8>)>,
    /// What [`hello`](Self::hello) says.
    pub(crate) says: ClientHello,
}

impl Default for HelloSample {
    fn default() -> Self {
        Self {
            session_id: vec![7; 32],
            cipher_suites: vec![0x1301, 0x1302],
            extensions: Vec::new(),
            says: ClientHello {
                server_name: None,
                is_encrypted: false,
                protocols: Default::default(),
            },
        }
    }
}

impl HelloSample {
    pub(crate) fn server_name(name: &str) -> (u16, Vec<u8>) {
        let mut entry = vec![0];
        push_vector_u16(&mut entry, name.as_bytes());
        let mut data = Vec::new();
        push_vector_u16(&mut data, &entry);
        (0, data)
    }

    pub(crate) fn alpn(protocols: &[&str]) -> (u16, Vec<u8>) {
        let mut list = Vec::new();
        for protocol in protocols {
            list.push(u8::try_from(protocol.len()).unwrap());
            list.extend(protocol.as_bytes());
        }
        let mut data = Vec::new();
        push_vector_u16(&mut data, &list);
        (16, data)
    }

    pub(crate) fn hello(&self) -> ClientHello {
        self.says.clone()
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([9; 32]);
        body.push(u8::try_from(self.session_id.len()).unwrap());
        body.extend(&self.session_id);
        let suites: Vec<u8> = self
            .cipher_suites
            .iter()
            .flat_map(|suite| suite.to_be_bytes())
            .collect();
        push_vector_u16(&mut body, &suites);
        body.extend([1, 0]);
        let mut extensions = Vec::new();
        for (kind, data) in &self.extensions {
            extensions.extend(kind.to_be_bytes());
            push_vector_u16(&mut extensions, data);
        }
        push_vector_u16(&mut body, &extensions);
        body
    }

    pub(crate) fn message(&self) -> Vec<u8> {
        let body = self.body();
        let mut message = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        message[0] = 1;
        message.extend(body);
        message
    }

    /// The message in records of these lengths, over and over.
    pub(crate) fn records(&self, lengths: &[usize]) -> Vec<u8> {
        records_of(&self.message(), lengths)
    }
}

pub(crate) fn records_of(mut message: &[u8], lengths: &[usize]) -> Vec<u8> {
    let mut records = Vec::new();
    for length in lengths.iter().cycle() {
        if message.is_empty() {
            break;
        }
        let (fragment, rest) = message.split_at((*length).min(message.len()).min(1 << 14));
        records.extend([22, 3, 1]);
        push_vector_u16(&mut records, fragment);
        message = rest;
    }
    records
}

fn push_vector_u16(to: &mut Vec<u8>, content: &[u8]) {
    to.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
    to.extend(content);
}

/// Hellos with and without each extension that matters, in any order, among others.
pub(crate) fn any_hello() -> impl Strategy<Value = HelloSample> {
    let name = prop::option::of("[a-zA-Z0-9_-]{1,20}(\\.[a-zA-Z][a-zA-Z0-9-]{0,20}){1,4}");
    let protocols = prop::collection::vec("[a-z0-9/.]{1,12}", 0..4);
    let others = prop::collection::btree_map(20_u16..60, prop::collection::vec(any::<u8>(), 0..600), 0..5);
    (
        prop::collection::vec(any::<u8>(), 0..=32),
        prop::collection::vec(any::<u16>(), 1..40),
        name,
        protocols,
        any::<bool>(),
        others,
        any::<u64>(),
    )
        .prop_map(
            |(session_id, cipher_suites, name, protocols, is_encrypted, others, order)| {
                let mut extensions: Vec<(u16, Vec<u8>)> = others.into_iter().collect();
                extensions.extend(name.as_deref().map(HelloSample::server_name));
                let listed: Vec<&str> = protocols.iter().map(String::as_str).collect();
                extensions.extend((!listed.is_empty()).then(|| HelloSample::alpn(&listed)));
                extensions.extend(is_encrypted.then(|| (0xfe0d, vec![1, 2, 3])));
                extensions.sort_by_key(|(kind, _)| u64::from(*kind).wrapping_add(1).wrapping_mul(order | 1));
                HelloSample {
                    session_id,
                    cipher_suites,
                    extensions,
                    says: ClientHello {
                        server_name: name.map(|name| Name::parse(&name).unwrap()),
                        is_encrypted,
                        protocols: protocols.iter().map(|protocol| protocol.as_bytes().into()).collect(),
                    },
                }
            },
        )
}
