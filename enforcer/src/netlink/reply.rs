//! Acknowledgements and errors (`NLMSG_ERROR`), with the kernel's explanation where it gives one.
//!
//! `linux/netlink.h`, `struct nlmsgerr`: an errno, then the header of the message that it answers,
//! then that message's payload unless the reply is capped, then (with `NETLINK_EXT_ACK`)
//! attributes.

use super::message::{Attributes, HEADER, NfnlMessage, align, field, flags, kind, text};

/// `NLMSGERR_ATTR_MSG`: the kernel's explanation.
const EXPLANATION: u16 = 1;
/// `NLMSGERR_ATTR_OFFS`: the offset in the message of what is wrong, from the message's header on.
const OFFSET: u16 = 2;

/// The kernel's reply to one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NetlinkReply {
    /// The sequence number of the message.
    pub(crate) sequence: u32,
    /// 0 when the message was accepted; else a positive errno.
    pub(crate) errno: i32,
    /// The kernel's explanation, often absent.
    pub(crate) explanation: Option<String>,
    /// The offset in the message of what is wrong.
    pub(crate) offset: Option<u32>,
}

impl NetlinkReply {
    /// Reads a message; `None` when it is no reply, or a malformed one.
    pub(crate) fn read(message: &NfnlMessage<'_>) -> Option<Self> {
        if message.kind != kind::ERROR {
            return None;
        }
        let errno = i32::from_ne_bytes(field(message.payload, 0)?).checked_neg()?;
        let mut reply = Self {
            sequence: message.sequence,
            errno,
            explanation: None,
            offset: None,
        };
        if message.flags & flags::ACK_TLVS == 0 {
            return Some(reply);
        }
        // Without the cap the message's payload is repeated; its header says how long it was.
        let answered = if message.flags & flags::CAPPED == 0 {
            usize::try_from(u32::from_ne_bytes(field(message.payload, 4)?)).ok()?
        } else {
            HEADER
        };
        let attributes = message.payload.get(align(answered).checked_add(4)?..)?;
        for (kind, value) in Attributes(attributes) {
            match kind {
                EXPLANATION => reply.explanation = text(value).map(str::to_owned),
                OFFSET => reply.offset = field(value, 0).map(u32::from_ne_bytes),
                _ => {}
            }
        }
        Some(reply)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::message::NfnlMessages;

    /// A reply as the kernel sends it with `NETLINK_EXT_ACK` and `NETLINK_CAP_ACK`.
    fn capped(sequence: u32, errno: i32, attributes: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let length = u32::try_from(HEADER + 4 + HEADER + attributes.len()).unwrap();
        bytes.extend(length.to_ne_bytes());
        bytes.extend(kind::ERROR.to_ne_bytes());
        bytes.extend((flags::CAPPED | flags::ACK_TLVS).to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend((-errno).to_ne_bytes());
        bytes.extend([0; HEADER]);
        bytes.extend(attributes);
        bytes
    }

    #[test]
    fn an_error_tells_errno_offset_and_words() {
        let mut attributes = Vec::new();
        attributes.extend([7u16.to_ne_bytes(), EXPLANATION.to_ne_bytes()].concat());
        attributes.extend(b"no\0\0");
        attributes.extend([8u16.to_ne_bytes(), OFFSET.to_ne_bytes()].concat());
        attributes.extend(72u32.to_ne_bytes());
        let bytes = capped(5, libc::ENFILE, &attributes);
        let message = NfnlMessages(&bytes).next().unwrap();
        assert_eq!(
            NetlinkReply::read(&message),
            Some(NetlinkReply {
                sequence: 5,
                errno: libc::ENFILE,
                explanation: Some("no".to_owned()),
                offset: Some(72),
            })
        );
    }

    #[test]
    fn an_acknowledgement_is_errno_zero() {
        let bytes = capped(6, 0, &[]);
        let reply = NetlinkReply::read(&NfnlMessages(&bytes).next().unwrap()).unwrap();
        assert_eq!((reply.sequence, reply.errno, reply.offset), (6, 0, None));
    }

    proptest! {
        #[test]
        fn hostile_replies_never_panic(
            payload in proptest::collection::vec(any::<u8>(), 0..128),
            flags in any::<u16>(),
        ) {
            let message = NfnlMessage { kind: kind::ERROR, flags, sequence: 1, payload: &payload };
            let _ = NetlinkReply::read(&message);
        }
    }
}
