//! Conntrack entries (`linux/netfilter/nfnetlink_conntrack.h`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use policy::Protocol;

use super::message::{Attributes, Encoder, NfnlHeader, NfnlMessage, field, flags};

/// `NFNL_SUBSYS_CTNETLINK`.
const SUBSYSTEM: u16 = 1;
/// `IPCTNL_MSG_CT_*` with their subsystem.
const NEW: u16 = SUBSYSTEM << 8;
const GET: u16 = SUBSYSTEM << 8 | 1;
const DELETE: u16 = SUBSYSTEM << 8 | 2;

/// `CTA_*`.
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TIMEOUT: u16 = 7;
/// Of the packets of who opened the flow, and of the replies.
const COUNTERS: [u16; 2] = [9, 10];
const ID: u16 = 12;
const MASTER: u16 = 14;
const ZONE: u16 = 18;
/// `CTA_TUPLE_*`.
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const TUPLE_ZONE: u16 = 3;
/// `CTA_IP_*`: the address of IPv4, and of IPv6.
const SOURCE: [u16; 2] = [1, 3];
const DESTINATION: [u16; 2] = [2, 4];
/// `CTA_PROTO_*`.
const PROTOCOL_NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;
const MESSAGE_TYPE: [u16; 2] = [5, 8];

/// `CTA_COUNTERS_*`.
const PACKETS: u16 = 1;
const BYTES: u16 = 2;

/// `NFNLGRP_CONNTRACK_NEW` and `NFNLGRP_CONNTRACK_DESTROY`.
pub(crate) const EVENT_GROUPS: [u16; 2] = [1, 3];

/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;

/// A conntrack entry, by the ends of its flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConntrackEntry {
    /// Who opened the flow.
    pub source: IpAddr,
    /// Its port; 0 where the protocol has none.
    pub source_port: u16,
    /// The IANA protocol number.
    pub protocol: u8,
    /// Whom the first packet was sent to, before any NAT; port 0 where the protocol has none.
    pub original_destination: SocketAddr,
    /// Whom replies come from: what NAT made of the destination.
    pub reply_source: SocketAddr,
    /// Whom replies are sent to: what NAT made of the source.
    pub reply_destination: SocketAddr,
    /// The type of the first message, of ICMP and ICMPv6.
    pub icmp_type: Option<u8>,
    /// For how long the kernel keeps the entry if no packet comes; it counts in seconds.
    pub left: Duration,
    /// Whether a protocol helper expected the flow, because of another one.
    pub is_expected: bool,
    /// The zone of the original direction alone; 0 where it has none.
    pub zone: u16,
    /// What the flow has carried; `None` where the kernel does not count
    /// (`net.netfilter.nf_conntrack_acct`).
    pub counted: Option<CountedTraffic>,
    id: ConntrackEntryId,
}

/// What a flow has carried, both ways together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountedTraffic {
    /// Packets.
    pub packets: u64,
    /// Octets, IP headers included.
    pub bytes: u64,
}

/// What becomes of flows, as the kernel tells its [groups](EVENT_GROUPS).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConntrackNews {
    /// The first packet of a flow has passed.
    Began(ConntrackEntry),
    /// The flow has ended: it was closed, or no packet has come for so long that the kernel forgets
    /// it.
    Ended(ConntrackEntry),
    /// The receive buffer was full, and an unknown number of these is lost.
    Overrun,
}

/// What the kernel needs to find the entry again: attributes that are sent back as they came.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ConntrackEntryId {
    family: u8,
    original: Vec<u8>,
    zone: Option<Vec<u8>>,
    /// `CTA_ID`: tells an entry from a later one with the same tuple.
    number: Option<Vec<u8>>,
}

/// Asks for all entries of a family (`AF_INET` or `AF_INET6`).
pub(crate) fn ask(family: u8, sequence: u32) -> Vec<u8> {
    let mut encoder = Encoder::default();
    let message = encoder.open_message(head(GET, flags::REQUEST | flags::DUMP, family, sequence));
    encoder.close_message(message);
    encoder.finish()
}

/// Asks for the one entry of TCP with this original tuple, in this zone of the original direction.
pub(crate) fn ask_tcp(source: SocketAddr, destination: SocketAddr, zone: u16, sequence: u32) -> Vec<u8> {
    // The families' numbers fit `nfgen_family`.
    let (family, at) = match source {
        SocketAddr::V4(_) => (libc::AF_INET as u8, 0),
        SocketAddr::V6(_) => (libc::AF_INET6 as u8, 1),
    };
    let mut encoder = Encoder::default();
    let message = encoder.open_message(head(GET, flags::REQUEST, family, sequence));
    let tuple = encoder.open_nest(TUPLE_ORIGINAL);
    let addresses = encoder.open_nest(TUPLE_IP);
    for (kind, end) in [(SOURCE[at], source.ip()), (DESTINATION[at], destination.ip())] {
        match end {
            IpAddr::V4(v4) => encoder.attribute(kind, &v4.octets()),
            IpAddr::V6(v6) => encoder.attribute(kind, &v6.octets()),
        }
    }
    encoder.close_nest(addresses);
    let protocol = encoder.open_nest(TUPLE_PROTOCOL);
    encoder.attribute(PROTOCOL_NUMBER, &[Protocol::Tcp.number()]);
    for (kind, end) in [(SOURCE_PORT, source), (DESTINATION_PORT, destination)] {
        encoder.attribute(kind, &end.port().to_be_bytes());
    }
    encoder.close_nest(protocol);
    encoder.attribute(TUPLE_ZONE, &zone.to_be_bytes());
    encoder.close_nest(tuple);
    encoder.close_message(message);
    encoder.finish()
}

/// Reads an entry out of a reply to [`ask`]; `None` for malformed ones.
pub(crate) fn read(message: &NfnlMessage<'_>) -> Option<ConntrackEntry> {
    (message.kind == NEW).then(|| entry(message)).flatten()
}

/// Reads what a group was told; `None` for what is malformed or of another kind.
pub(crate) fn read_news(message: &NfnlMessage<'_>) -> Option<ConntrackNews> {
    match message.kind {
        NEW => entry(message).map(ConntrackNews::Began),
        DELETE => entry(message).map(ConntrackNews::Ended),
        _ => None,
    }
}

fn entry(message: &NfnlMessage<'_>) -> Option<ConntrackEntry> {
    let original = message.attributes().find(TUPLE_ORIGINAL)?;
    let reply = message.attributes().find(TUPLE_REPLY)?;
    let owned = |kind| message.attributes().find(kind).map(<[u8]>::to_vec);
    Some(ConntrackEntry {
        source: address(original, SOURCE)?,
        source_port: port(original, SOURCE_PORT).unwrap_or(0),
        protocol: *protocol(original)?.find(PROTOCOL_NUMBER)?.first()?,
        original_destination: SocketAddr::new(
            address(original, DESTINATION)?,
            port(original, DESTINATION_PORT).unwrap_or(0),
        ),
        reply_source: SocketAddr::new(address(reply, SOURCE)?, port(reply, SOURCE_PORT).unwrap_or(0)),
        reply_destination: SocketAddr::new(address(reply, DESTINATION)?, port(reply, DESTINATION_PORT).unwrap_or(0)),
        icmp_type: MESSAGE_TYPE
            .into_iter()
            .find_map(|kind| protocol(original)?.find(kind)?.first().copied()),
        left: message
            .attributes()
            .find(TIMEOUT)
            .and_then(|left| Some(Duration::from_secs(u32::from_be_bytes(field(left, 0)?).into())))
            .unwrap_or_default(),
        is_expected: message.attributes().find(MASTER).is_some(),
        zone: Attributes(original)
            .find(TUPLE_ZONE)
            .and_then(|zone| Some(u16::from_be_bytes(field(zone, 0)?)))
            .unwrap_or(0),
        counted: counted(message),
        id: ConntrackEntryId {
            family: *message.payload.first()?,
            original: original.to_vec(),
            zone: owned(ZONE),
            number: owned(ID),
        },
    })
}

fn counted(message: &NfnlMessage<'_>) -> Option<CountedTraffic> {
    let mut sum = None;
    for kind in COUNTERS {
        let Some(counters) = message.attributes().find(kind) else {
            continue;
        };
        let counter = |which| Some(u64::from_be_bytes(field(Attributes(counters).find(which)?, 0)?));
        let CountedTraffic { packets, bytes } = sum.unwrap_or(CountedTraffic { packets: 0, bytes: 0 });
        sum = Some(CountedTraffic {
            packets: packets.saturating_add(counter(PACKETS)?),
            bytes: bytes.saturating_add(counter(BYTES)?),
        });
    }
    sum
}

/// An address of a tuple, by its attributes in IPv4 and IPv6.
fn address(tuple: &[u8], [v4, v6]: [u16; 2]) -> Option<IpAddr> {
    let ip = Attributes(tuple).find(TUPLE_IP)?;
    Some(match Attributes(ip).find(v4) {
        Some(v4) => IpAddr::V4(Ipv4Addr::from(field::<4>(v4, 0)?)),
        None => IpAddr::V6(Ipv6Addr::from(field::<16>(Attributes(ip).find(v6)?, 0)?)),
    })
}

fn port(tuple: &[u8], which: u16) -> Option<u16> {
    Some(u16::from_be_bytes(field(protocol(tuple)?.find(which)?, 0)?))
}

fn protocol(tuple: &[u8]) -> Option<Attributes<'_>> {
    Some(Attributes(Attributes(tuple).find(TUPLE_PROTOCOL)?))
}

/// Encodes the deletion of entries, each with an acknowledgement, numbered from `first` on.
pub(crate) fn delete<'a>(entries: impl IntoIterator<Item = &'a ConntrackEntry>, first: u32) -> Vec<u8> {
    let mut encoder = Encoder::default();
    let mut sequence = first;
    for ConntrackEntry { id, .. } in entries {
        let message = encoder.open_message(head(DELETE, flags::REQUEST | flags::ACK, id.family, sequence));
        encoder.attribute(TUPLE_ORIGINAL | NESTED, &id.original);
        for (kind, value) in [(ZONE, &id.zone), (ID, &id.number)] {
            if let Some(value) = value {
                encoder.attribute(kind, value);
            }
        }
        encoder.close_message(message);
        sequence = sequence.wrapping_add(1);
    }
    encoder.finish()
}

fn head(kind: u16, flags: u16, family: u8, sequence: u32) -> NfnlHeader {
    NfnlHeader {
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
    use crate::netlink::message::NfnlMessages;

    /// An entry as the kernel dumps it.
    fn entry() -> Vec<u8> {
        message(NEW)
    }

    fn message(kind: u16) -> Vec<u8> {
        let mut encoder = Encoder::default();
        let message = encoder.open_message(head(kind, 0, 2, 1));
        let pod: (_, [u8; 4], _, u16) = (SOURCE[0], [10, 0, 0, 7], SOURCE_PORT, 4_242);
        let asked = (DESTINATION[0], [10, 96, 0, 10], DESTINATION_PORT, 53);
        let answers = (SOURCE[0], [169, 254, 53, 53], SOURCE_PORT, 15_000);
        let told = (DESTINATION[0], [192, 0, 2, 7], DESTINATION_PORT, 61_000);
        for (tuple, ends) in [(TUPLE_ORIGINAL, [pod, asked]), (TUPLE_REPLY, [answers, told])] {
            let tuple = encoder.open_nest(tuple);
            let ip = encoder.open_nest(TUPLE_IP);
            for (kind, address, ..) in ends {
                encoder.attribute(kind, &address);
            }
            encoder.close_nest(ip);
            let protocol = encoder.open_nest(TUPLE_PROTOCOL);
            encoder.attribute(PROTOCOL_NUMBER, &[17]);
            for (.., kind, port) in ends {
                encoder.attribute(kind, &port.to_be_bytes());
            }
            encoder.close_nest(protocol);
            encoder.close_nest(tuple);
        }
        encoder.attribute(TIMEOUT, &90u32.to_be_bytes());
        encoder.attribute(ID, &[1, 2, 3, 4]);
        for (kind, packets) in COUNTERS.into_iter().zip([3u64, 2]) {
            let counters = encoder.open_nest(kind);
            encoder.attribute(PACKETS, &packets.to_be_bytes());
            encoder.attribute(BYTES, &(packets * 100).to_be_bytes());
            encoder.close_nest(counters);
        }
        encoder.close_message(message);
        encoder.finish()
    }

    #[test]
    fn an_entry_is_read_and_named_again_when_it_is_deleted() {
        let bytes = entry();
        let message = NfnlMessages(&bytes).next().unwrap();
        let flow = read(&message).unwrap();
        assert_eq!((flow.source, flow.protocol), (IpAddr::from([10, 0, 0, 7]), 17));
        assert_eq!((flow.source_port, flow.left), (4_242, Duration::from_secs(90)));
        assert_eq!((flow.icmp_type, flow.is_expected), (None, false));
        assert_eq!(flow.original_destination, SocketAddr::from(([10, 96, 0, 10], 53)));
        assert_eq!(flow.reply_source, SocketAddr::from(([169, 254, 53, 53], 15_000)));
        let bytes = delete([&flow, &flow], 5);
        let deletions: Vec<_> = NfnlMessages(&bytes).collect();
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

    #[test]
    fn what_began_and_what_ended_is_told_with_what_it_carried() {
        let (began, ended, other) = (message(NEW), message(DELETE), message(GET));
        let read = |bytes: &[u8]| read_news(&NfnlMessages(bytes).next().unwrap());
        assert!(matches!(read(&began), Some(ConntrackNews::Began(_))));
        assert_eq!(read(&other), None);
        let Some(ConntrackNews::Ended(flow)) = read(&ended) else {
            panic!("it has ended");
        };
        assert_eq!(flow.counted, Some(CountedTraffic { packets: 5, bytes: 500 }));
        assert_eq!(flow.reply_destination, SocketAddr::from(([192, 0, 2, 7], 61_000)));
    }

    proptest! {
        #[test]
        fn hostile_entries_never_panic(payload in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = read(&NfnlMessage { kind: NEW, flags: 0, sequence: 1, payload: &payload });
        }

        #[test]
        fn damaged_entries_never_panic(at in 0usize..260, value in any::<u8>()) {
            let mut bytes = entry();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            for message in NfnlMessages(&bytes) {
                let _ = read_news(&message);
            }
        }
    }
}
