//! The keys of learned elements, as the kernel keeps them.

use std::net::IpAddr;

use policy::Protocol;

use crate::layout::{ElementKey, IpFamily, SetId, SetKind};
use crate::netlink::message::field;
use crate::netlink::set_key::{SetKey, address_key};

/// A key as the kernel keeps it: an address, and in an exact set protocol and port, each padded to
/// four bytes.
pub(super) fn encode_key(key: &ElementKey) -> SetKey {
    let mut bytes = address_key(key.address);
    if let Some((protocol, port)) = key.port {
        let [high, low] = port.to_be_bytes();
        bytes.extend_from_slice(&[protocol.number(), 0, 0, 0, high, low, 0, 0]);
    }
    bytes
}

/// Reads the key of an element of `set`; the inverse of [`encode_key`].
pub(super) fn decode_key(set: &SetId, key: &[u8]) -> Option<ElementKey> {
    let (address, rest) = match set.family {
        IpFamily::V4 => (IpAddr::from(field::<4>(key, 0)?), key.get(4..)?),
        IpFamily::V6 => (IpAddr::from(field::<16>(key, 0)?), key.get(16..)?),
    };
    let port = match set.kind {
        SetKind::Range(_) | SetKind::All => None,
        SetKind::Exact => {
            let number = *rest.first()?;
            let protocol = Protocol::ALL.into_iter().find(|known| known.number() == number)?;
            Some((protocol, u16::from_be_bytes(field(rest, 4)?)))
        }
    };
    Some(ElementKey { address, port })
}

#[cfg(test)]
mod tests {
    use policy::ProgramId;
    use policy::classifier::SetClass;
    use proptest::prelude::*;

    use super::*;

    fn key(address: IpAddr, port: Option<(Protocol, u16)>) -> (SetId, ElementKey) {
        let set = SetId {
            program: ProgramId(1),
            class: SetClass::Allow,
            kind: if port.is_some() { SetKind::Exact } else { SetKind::All },
            family: IpFamily::of(address),
        };
        (set, ElementKey { address, port })
    }

    #[test]
    fn an_exact_key_is_padded_to_four_bytes_a_field() {
        let (_, key) = key([192, 0, 2, 1].into(), Some((Protocol::Tcp, 443)));
        assert_eq!(encode_key(&key).as_slice(), [192, 0, 2, 1, 6, 0, 0, 0, 1, 187, 0, 0]);
    }

    proptest! {
        #[test]
        fn keys_are_read_as_they_were_written(
            address in any::<IpAddr>(),
            port in proptest::option::of((proptest::sample::select(&Protocol::ALL[..]), any::<u16>())),
        ) {
            let (set, key) = key(address, port);
            prop_assert_eq!(decode_key(&set, &encode_key(&key)), Some(key));
        }

        #[test]
        fn hostile_keys_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..32), v6: bool, exact: bool) {
            let address = if v6 { IpAddr::from([0u8; 16]) } else { IpAddr::from([0u8; 4]) };
            let (set, _) = key(address, exact.then_some((Protocol::Tcp, 1)));
            let _ = decode_key(&set, &bytes);
        }
    }
}
