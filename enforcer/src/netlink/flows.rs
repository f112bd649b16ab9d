//! Conntrack entries (`linux/netfilter/nfnetlink_conntrack.h`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::message::{Attributes, Encoder, Head, Message, field, flags};

/// `NFNL_SUBSYS_CTNETLINK`.
const SUBSYSTEM: u16 = 1;
/// `IPCTNL_MSG_CT_*` with their subsystem.
const NEW: u16 = SUBSYSTEM << 8;
const GET: u16 = SUBSYSTEM << 8 | 1;
const DELETE: u16 = SUBSYSTEM << 8 | 2;

/// `CTA_*`.
const TUPLE_ORIGINAL: u16 = 1;
const ID: u16 = 12;
const ZONE: u16 = 18;
/// `CTA_TUPLE_*`.
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
/// `CTA_IP_*`.
const SOURCE_V4: u16 = 1;
const SOURCE_V6: u16 = 3;
/// `CTA_PROTO_*`.
const PROTOCOL_NUMBER: u16 = 1;
const DESTINATION_PORT: u16 = 3;

/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;

/// A conntrack entry, as far as lookups are told by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flow {
    /// Who opened it.
    pub(crate) source: IpAddr,
    /// The IANA protocol number.
    pub(crate) protocol: u8,
    /// The port that was asked, before any NAT.
    pub(crate) port: u16,
    name: FlowName,
}

/// What the kernel needs to find the entry again: attributes that are given back as they came.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FlowName {
    family: u8,
    original: Vec<u8>,
    zone: Option<Vec<u8>>,
    /// Tells an entry from a later one with the same tuple.
    id: Option<Vec<u8>>,
}

/// Asks for all entries of a family (`AF_INET` or `AF_INET6`).
pub(crate) fn ask(family: u8, sequence: u32) -> Vec<u8> {
    let mut encoder = Encoder::default();
    let message = encoder.open_message(head(GET, flags::REQUEST | flags::DUMP, family, sequence));
    encoder.close_message(message);
    encoder.finish()
}

/// Reads an entry out of a reply to [`ask`]; `None` for protocols without ports, and for malformed ones.
pub(crate) fn read(message: &Message<'_>) -> Option<Flow> {
    if message.kind != NEW {
        return None;
    }
    let original = message.attributes().find(TUPLE_ORIGINAL)?;
    let ip = Attributes(original).find(TUPLE_IP)?;
    let protocol = Attributes(original).find(TUPLE_PROTOCOL)?;
    let source = match Attributes(ip).find(SOURCE_V4) {
        Some(v4) => IpAddr::V4(Ipv4Addr::from(field::<4>(v4, 0)?)),
        None => IpAddr::V6(Ipv6Addr::from(field::<16>(Attributes(ip).find(SOURCE_V6)?, 0)?)),
    };
    let owned = |kind| message.attributes().find(kind).map(<[u8]>::to_vec);
    Some(Flow {
        source,
        protocol: *Attributes(protocol).find(PROTOCOL_NUMBER)?.first()?,
        port: u16::from_be_bytes(field(Attributes(protocol).find(DESTINATION_PORT)?, 0)?),
        name: FlowName {
            family: *message.payload.first()?,
            original: original.to_vec(),
            zone: owned(ZONE),
            id: owned(ID),
        },
    })
}

/// Asks for the deletion of entries, each with an acknowledgement, numbered from `first` on.
pub(crate) fn delete<'a>(flows: impl IntoIterator<Item = &'a Flow>, first: u32) -> Vec<u8> {
    let mut encoder = Encoder::default();
    let mut sequence = first;
    for Flow { name, .. } in flows {
        let message = encoder.open_message(head(DELETE, flags::REQUEST | flags::ACK, name.family, sequence));
        encoder.attribute(TUPLE_ORIGINAL | NESTED, &name.original);
        for (kind, value) in [(ZONE, &name.zone), (ID, &name.id)] {
            if let Some(value) = value {
                encoder.attribute(kind, value);
            }
        }
        encoder.close_message(message);
        sequence = sequence.wrapping_add(1);
    }
    encoder.finish()
}

fn head(kind: u16, flags: u16, family: u8, sequence: u32) -> Head {
    Head {
        kind,
        flags,
        sequence,
        family,
        resource: 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::message::Messages;

    /// An entry as the kernel dumps it.
    fn entry() -> Vec<u8> {
        let mut encoder = Encoder::default();
        let message = encoder.open_message(head(NEW, 0, 2, 1));
        let original = encoder.open_nest(TUPLE_ORIGINAL);
        let ip = encoder.open_nest(TUPLE_IP);
        encoder.attribute(SOURCE_V4, &[10, 0, 0, 7]);
        encoder.close_nest(ip);
        let protocol = encoder.open_nest(TUPLE_PROTOCOL);
        encoder.attribute(PROTOCOL_NUMBER, &[17]);
        encoder.attribute(DESTINATION_PORT, &53u16.to_be_bytes());
        encoder.close_nest(protocol);
        encoder.close_nest(original);
        encoder.attribute(ID, &[1, 2, 3, 4]);
        encoder.close_message(message);
        encoder.finish()
    }

    #[test]
    fn an_entry_is_read_and_named_again_when_it_is_deleted() {
        let bytes = entry();
        let message = Messages(&bytes).next().unwrap();
        let flow = read(&message).unwrap();
        assert_eq!(
            (flow.source, flow.protocol, flow.port),
            (IpAddr::from([10, 0, 0, 7]), 17, 53)
        );
        let bytes = delete([&flow, &flow], 5);
        let deletions: Vec<_> = Messages(&bytes).collect();
        assert_eq!(
            deletions.iter().map(|m| (m.kind, m.sequence)).collect::<Vec<_>>(),
            [(DELETE, 5), (DELETE, 6)]
        );
        for deletion in deletions {
            for kind in [TUPLE_ORIGINAL, ID] {
                assert_eq!(deletion.attributes().find(kind), message.attributes().find(kind));
            }
        }
    }

    proptest! {
        #[test]
        fn hostile_entries_never_panic(payload in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = read(&Message { kind: NEW, flags: 0, sequence: 1, payload: &payload });
        }

        #[test]
        fn damaged_entries_never_panic(at in 0usize..80, value in any::<u8>()) {
            let mut bytes = entry();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            for message in Messages(&bytes) {
                let _ = read(&message);
            }
        }
    }
}
