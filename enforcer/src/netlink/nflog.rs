//! Logged packets (`linux/netfilter/nfnetlink_log.h`): what a rule `log prefix … group …` sends to
//! whoever has bound the group.

use super::message::{Encoder, NfnlHeader, NfnlMessage, flags, text};

/// `NFNL_SUBSYS_ULOG`.
const SUBSYSTEM: u16 = 4;
/// `NFULNL_MSG_*` with their subsystem.
pub(crate) const PACKET: u16 = SUBSYSTEM << 8;
const CONFIGURE: u16 = SUBSYSTEM << 8 | 1;

/// `NFULA_CFG_*`.
const CONFIGURE_COMMAND: u16 = 1;
const CONFIGURE_MODE: u16 = 2;
const CONFIGURE_BUFFER: u16 = 3;
const CONFIGURE_TIMEOUT: u16 = 4;
const CONFIGURE_THRESHOLD: u16 = 5;
/// `NFULNL_CFG_CMD_*`.
const BIND: u8 = 1;
const UNBIND: u8 = 2;
/// `NFULNL_COPY_PACKET`.
const COPY_PACKET: u8 = 2;

/// `NFULA_*`.
const PAYLOAD: u16 = 9;
const PREFIX: u16 = 10;

/// How many bytes of each packet are copied: enough for an IP header with options or some extension
/// headers, and the ports.
const COPY_RANGE: u32 = 128;
/// The kernel sends packets when this many wait, when their messages fill the buffer, or when the
/// first one has waited for [`TIMEOUT`].
const THRESHOLD: u32 = 64;
const BUFFER: u32 = 32 * 1024;
/// In hundredths of a second.
const TIMEOUT: u32 = 10;

/// A logged packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LoggedPacket<'a> {
    /// The prefix of the rule that logged it.
    pub(crate) prefix: &'a str,
    /// The packet from the IP header on, cut off after [`COPY_RANGE`].
    pub(crate) packet: &'a [u8],
}

/// Encodes a request that binds `group` to the asking socket and sets how its packets are sent. The
/// answer is EPERM or EBUSY when another socket has the group.
pub(crate) fn bind(group: u16, sequence: u32) -> Vec<u8> {
    let mut encoder = Encoder::default();
    let message = encoder.open_message(configuration_of(group, sequence));
    encoder.attribute(CONFIGURE_COMMAND, &[BIND]);
    // struct nfulnl_msg_config_mode, packed: the range, the mode, a byte of padding.
    let mut mode = COPY_RANGE.to_be_bytes().to_vec();
    mode.extend([COPY_PACKET, 0]);
    encoder.attribute(CONFIGURE_MODE, &mode);
    for (kind, value) in [
        (CONFIGURE_BUFFER, BUFFER),
        (CONFIGURE_TIMEOUT, TIMEOUT),
        (CONFIGURE_THRESHOLD, THRESHOLD),
    ] {
        encoder.attribute(kind, &value.to_be_bytes());
    }
    encoder.close_message(message);
    encoder.finish()
}

/// Encodes a request that unbinds `group` from the asking socket.
pub(crate) fn unbind(group: u16, sequence: u32) -> Vec<u8> {
    let mut encoder = Encoder::default();
    let message = encoder.open_message(configuration_of(group, sequence));
    encoder.attribute(CONFIGURE_COMMAND, &[UNBIND]);
    encoder.close_message(message);
    encoder.finish()
}

fn configuration_of(group: u16, sequence: u32) -> NfnlHeader {
    NfnlHeader {
        kind: CONFIGURE,
        flags: flags::REQUEST | flags::ACK,
        sequence,
        family: 0,
        resource: group,
    }
}

/// Reads a logged packet; `None` when the message is another one, or has no prefix or no packet.
pub(crate) fn read<'a>(message: &NfnlMessage<'a>) -> Option<LoggedPacket<'a>> {
    if message.kind != PACKET {
        return None;
    }
    Some(LoggedPacket {
        prefix: message.attributes().find(PREFIX).and_then(text)?,
        packet: message.attributes().find(PAYLOAD)?,
    })
}

/// A logged packet as the kernel sends it.
#[cfg(test)]
pub(crate) fn encode(encoder: &mut Encoder, prefix: &str, packet: &[u8]) {
    let message = encoder.open_message(NfnlHeader {
        kind: PACKET,
        flags: 0,
        sequence: 0,
        family: 2,
        resource: 5371,
    });
    encoder.string(PREFIX, prefix);
    encoder.attribute(PAYLOAD, packet);
    encoder.close_message(message);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::message::NfnlMessages;

    /// Headers are in host order: these are little-endian.
    #[cfg(target_endian = "little")]
    #[test]
    fn binding_a_group_is_these_bytes() {
        #[rustfmt::skip]
        let expected: &[u8] = &[
            // Length, type, flags, sequence, port; family, version, group (big-endian).
            64, 0, 0, 0,  1, 4, 5, 0,  7, 0, 0, 0,  0, 0, 0, 0,  0, 0, 0x14, 0xfb,
            5, 0, 1, 0,  1, 0, 0, 0,
            10, 0, 2, 0,  0, 0, 0, 128,  2, 0, 0, 0,
            8, 0, 3, 0,  0, 0, 0x80, 0,
            8, 0, 4, 0,  0, 0, 0, 10,
            8, 0, 5, 0,  0, 0, 0, 64,
        ];
        assert_eq!(bind(5371, 7), expected);
    }

    #[test]
    fn a_packet_is_read_with_its_prefix() {
        let mut encoder = Encoder::default();
        encode(&mut encoder, "why", &[1, 2, 3]);
        let bytes = encoder.finish();
        let message = NfnlMessages(&bytes).next().unwrap();
        assert_eq!(
            read(&message),
            Some(LoggedPacket {
                prefix: "why",
                packet: &[1, 2, 3]
            })
        );
        assert_eq!(read(&NfnlMessage { kind: 3, ..message }), None);
    }
}
