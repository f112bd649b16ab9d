//! Records of packets that policy refused or would have refused, read from the ruleset's `log`
//! rules.
//!
//! A rule that refuses a packet, and a rule that notes what an audited policy would refuse, log to
//! an NFLOG group with a [`prefix`] that tells which of the two it is, and in which direction:
//! addresses alone do not tell whether the sender's program or the receiver's refused a packet. The
//! kernel copies the first bytes of such packets to whoever has bound the group; [`RecordListener`]
//! reads them. Records explain and decide nothing. Under load some are lost, which the listener
//! reports.
//!
//! The packets are read with safe code, because workloads choose their bytes.

mod listener;
mod packet;

use std::net::IpAddr;

pub use listener::{BindError, RecordEvent, RecordListener};
use policy::Direction;

use crate::netlink::message::NfnlMessages;
use crate::netlink::nflog;

/// The NFLOG group, unless another is set.
pub const DEFAULT_GROUP: u16 = 5371;

/// A packet that a rule logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordedPacket {
    /// Whose program decided: the source's at egress, the destination's at ingress.
    pub direction: Direction,
    /// Whether it was refused.
    pub verdict: RecordedVerdict,
    /// The source address.
    pub source: IpAddr,
    /// The destination when the rule met the packet: behind a Service this is the backend.
    pub destination: IpAddr,
    /// The IANA protocol number. Where IPv6 extension headers were cut off, the number of the last
    /// one that was read.
    pub protocol: u8,
    /// The destination port, or the ICMP type.
    pub detail: PacketDetail,
}

/// Why a packet was logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RecordedVerdict {
    /// It was refused.
    Refused,
    /// It passed, because the policy that would have refused it is in mode audit.
    Audited,
}

/// What is known of a packet beyond its protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PacketDetail {
    /// The destination port.
    Port(u16),
    /// ICMP and ICMPv6.
    Icmp {
        /// The type of the ICMP message.
        kind: u8,
        /// The code of the ICMP message.
        code: u8,
    },
    /// Nothing: another protocol, a later fragment, or a packet that was cut off.
    Unknown,
}

impl RecordedVerdict {
    /// Both of them.
    pub const BOTH: [RecordedVerdict; 2] = [RecordedVerdict::Refused, RecordedVerdict::Audited];
}

impl RecordedPacket {
    /// The end whose program decided.
    pub fn governed_end(&self) -> IpAddr {
        match self.direction {
            Direction::Egress => self.source,
            Direction::Ingress => self.destination,
        }
    }
}

/// The prefix of a `log` rule.
pub const fn prefix(direction: Direction, verdict: RecordedVerdict) -> &'static str {
    match (direction, verdict) {
        (Direction::Egress, RecordedVerdict::Refused) => "namegate refused",
        (Direction::Egress, RecordedVerdict::Audited) => "namegate audited",
        (Direction::Ingress, RecordedVerdict::Refused) => "namegate refused in",
        (Direction::Ingress, RecordedVerdict::Audited) => "namegate audited in",
    }
}

/// The inverse of [`prefix`]; `None` for rules of others that log to the same group.
fn read_prefix(text: &str) -> Option<(Direction, RecordedVerdict)> {
    let of_direction = |direction| RecordedVerdict::BOTH.map(|verdict| (direction, verdict));
    let all = Direction::BOTH.into_iter().flat_map(of_direction);
    all.into_iter()
        .find(|(direction, verdict)| prefix(*direction, *verdict) == text)
}

/// Appends the records of a datagram to `records`, and returns how many logged packets are foreign
/// or unreadable.
fn read_datagram(datagram: &[u8], records: &mut Vec<RecordedPacket>) -> usize {
    let mut strangers = 0;
    for message in NfnlMessages(datagram).filter(|message| message.kind == nflog::PACKET) {
        let record = nflog::read(&message).and_then(|logged| {
            let (direction, verdict) = read_prefix(logged.prefix)?;
            let packet = packet::read(logged.packet)?;
            Some(RecordedPacket {
                direction,
                verdict,
                source: packet.source,
                destination: packet.destination,
                protocol: packet.protocol,
                detail: packet.detail,
            })
        });
        match record {
            Some(record) => records.push(record),
            None => strangers += 1,
        }
    }
    strangers
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::netlink::message::Encoder;

    use super::*;

    const PACKET: [u8; 24] = [
        0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 2, 192, 0, 2, 1, 0x12, 0x34, 0x01, 0xbb,
    ];

    fn datagram(prefixes: &[&str]) -> Vec<u8> {
        let mut encoder = Encoder::default();
        for prefix in prefixes {
            nflog::encode(&mut encoder, prefix, &PACKET);
        }
        encoder.finish()
    }

    #[test]
    fn a_prefix_is_read_as_it_was_written() {
        for direction in Direction::BOTH {
            for verdict in [RecordedVerdict::Refused, RecordedVerdict::Audited] {
                assert_eq!(read_prefix(prefix(direction, verdict)), Some((direction, verdict)));
            }
        }
        for text in ["", "namegate", "namegate passed", "namegate refused "] {
            assert_eq!(read_prefix(text), None, "{text}");
        }
    }

    #[test]
    fn a_datagram_holds_records_and_what_others_log() {
        let mut records = Vec::new();
        let bytes = datagram(&["namegate refused", "ulogd", "namegate audited in"]);
        assert_eq!(read_datagram(&bytes, &mut records), 1);
        let told: Vec<_> = records
            .iter()
            .map(|it| (it.direction, it.verdict, it.detail, it.governed_end()))
            .collect();
        let port = PacketDetail::Port(443);
        assert_eq!(
            told,
            [
                (Direction::Egress, RecordedVerdict::Refused, port, [10, 0, 0, 2].into()),
                (
                    Direction::Ingress,
                    RecordedVerdict::Audited,
                    port,
                    [192, 0, 2, 1].into()
                ),
            ]
        );
    }

    proptest! {
        #[test]
        fn damaged_datagrams_never_panic(
            changes in proptest::collection::vec((0usize..200, any::<u8>()), 0..8),
            cut in 0usize..200,
        ) {
            let mut bytes = datagram(&["namegate refused", "namegate audited"]);
            for (at, value) in changes {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            bytes.truncate(cut);
            let mut records = Vec::new();
            prop_assert!(read_datagram(&bytes, &mut records) + records.len() <= 2);
        }

        #[test]
        fn arbitrary_datagrams_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            read_datagram(&bytes, &mut Vec::new());
        }
    }
}
