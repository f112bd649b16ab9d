//! Messages and attributes: the format that every netlink family shares (RFC 3549 §2.2 and §2.3;
//! `linux/netlink.h`).
//!
//! Headers are in host byte order; nfnetlink payloads are in network byte order. Everything is
//! padded to 4 bytes.

/// Size of `struct nlmsghdr`.
pub(crate) const HEADER: usize = 16;
/// Size of `struct nfgenmsg`, which stands at the start of every nfnetlink payload.
pub(crate) const NFGENMSG: usize = 4;
/// Size of `struct nlattr`.
pub(crate) const ATTRIBUTE: usize = 4;

/// Set on attributes that hold attributes (`NLA_F_NESTED`).
const NESTED: u16 = 0x8000;
/// Masks an attribute's type without its flags (`NLA_TYPE_MASK`).
const TYPE_MASK: u16 = 0x3fff;

/// `NLM_F_*` of `linux/netlink.h`.
pub(crate) mod flags {
    pub(crate) const REQUEST: u16 = 0x1;
    pub(crate) const ACK: u16 = 0x4;
    /// In a reply: a change interrupted the dump, which is therefore inconsistent.
    pub(crate) const DUMP_INTR: u16 = 0x10;
    pub(crate) const CREATE: u16 = 0x400;
    pub(crate) const APPEND: u16 = 0x800;
    pub(crate) const DUMP: u16 = 0x300;
    /// In an error: the message that it answers is not repeated.
    pub(crate) const CAPPED: u16 = 0x100;
    /// In an error: attributes follow.
    pub(crate) const ACK_TLVS: u16 = 0x200;
}

/// Message types of `linux/netlink.h`.
pub(crate) mod kind {
    pub(crate) const ERROR: u16 = 2;
    pub(crate) const DONE: u16 = 3;
}

/// Writes messages, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    bytes: Vec<u8>,
}

/// A message whose length is still to be filled in.
#[derive(Debug)]
#[must_use]
pub(crate) struct OpenMessage(usize);

/// A nested attribute whose length is still to be filled in.
#[derive(Debug)]
#[must_use]
pub(crate) struct OpenNest(usize);

/// The headers of an nfnetlink message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NfnlHeader {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// The address family (`nfgen_family`).
    pub(crate) family: u8,
    /// `res_id`: the subsystem in a batch's BEGIN and END, 0 elsewhere.
    pub(crate) resource: u16,
}

impl Encoder {
    /// An encoder with room for so many bytes.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
        }
    }

    /// Writes both headers.
    pub(crate) fn open_message(&mut self, head: NfnlHeader) -> OpenMessage {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&head.kind.to_ne_bytes());
        self.bytes.extend_from_slice(&head.flags.to_ne_bytes());
        self.bytes.extend_from_slice(&head.sequence.to_ne_bytes());
        // The port is filled in by the kernel.
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        // nfgen_family, version (NFNETLINK_V0), res_id.
        self.bytes.extend_from_slice(&[head.family, 0]);
        self.bytes.extend_from_slice(&head.resource.to_be_bytes());
        OpenMessage(start)
    }

    /// Fills in the message's length.
    pub(crate) fn close_message(&mut self, open: OpenMessage) {
        // Batches are limited to a few thousand elements of at most 60 bytes, far below 4 GiB.
        let length = u32::try_from(self.bytes.len() - open.0).unwrap_or(u32::MAX);
        self.patch(open.0, &length.to_ne_bytes());
    }

    /// Adds to the flags of the message that begins at `start`.
    pub(crate) fn add_flags(&mut self, start: usize, flags: u16) {
        if let Some(before) = field(&self.bytes, start + 6) {
            let flags = u16::from_ne_bytes(before) | flags;
            self.patch(start + 6, &flags.to_ne_bytes());
        }
    }

    /// Writes an attribute's header; its content follows.
    pub(crate) fn open_nest(&mut self, kind: u16) -> OpenNest {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&0u16.to_ne_bytes());
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        OpenNest(start)
    }

    /// Fills in the attribute's length. Callers keep nested attributes below [`u16::MAX`] bytes.
    pub(crate) fn close_nest(&mut self, open: OpenNest) {
        let length = self.bytes.len() - open.0;
        debug_assert!(length <= usize::from(u16::MAX), "a nest of {length} bytes");
        let length = u16::try_from(length).unwrap_or(u16::MAX);
        self.patch(open.0, &length.to_ne_bytes());
    }

    /// Writes an attribute and its padding.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.header(kind, value.len());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    /// Writes a string with the zero byte that the kernel expects.
    pub(crate) fn string(&mut self, kind: u16, value: &str) {
        self.header(kind, value.len() + 1);
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    /// Writes an attribute's header for a content of this length.
    fn header(&mut self, kind: u16, length: usize) {
        let length = u16::try_from(ATTRIBUTE + length).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
    }

    fn pad(&mut self) {
        self.bytes.resize(align(self.bytes.len()), 0);
    }

    /// How many bytes were written so far.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns the bytes.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// Overwrites a length field; `at` comes from an `open_…` of this very encoder.
    fn patch(&mut self, at: usize, value: &[u8]) {
        if let Some(field) = self.bytes.get_mut(at..at + value.len()) {
            field.copy_from_slice(value);
        }
    }
}

/// A message that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NfnlMessage<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// Everything after `struct nlmsghdr`.
    pub(crate) payload: &'a [u8],
}

impl<'a> NfnlMessage<'a> {
    /// The attributes of an nfnetlink message.
    pub(crate) fn attributes(&self) -> Attributes<'a> {
        Attributes(self.payload.get(NFGENMSG..).unwrap_or_default())
    }
}

/// Iterates over the messages of a datagram. Ends at the first one whose length is wrong.
#[derive(Debug, Clone)]
pub(crate) struct NfnlMessages<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for NfnlMessages<'a> {
    type Item = NfnlMessage<'a>;

    fn next(&mut self) -> Option<NfnlMessage<'a>> {
        let header = self.0.get(..HEADER)?;
        let length = usize::try_from(u32::from_ne_bytes(field(header, 0)?)).ok()?;
        let message = NfnlMessage {
            kind: u16::from_ne_bytes(field(header, 4)?),
            flags: u16::from_ne_bytes(field(header, 6)?),
            sequence: u32::from_ne_bytes(field(header, 8)?),
            payload: self.0.get(HEADER..length)?,
        };
        self.0 = self.0.get(align(length)..).unwrap_or_default();
        Some(message)
    }
}

/// Iterates over the attributes of a payload or nested attribute: type without flags, and content.
/// Ends at the first one whose length is wrong.
#[derive(Debug, Clone)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Attributes<'a> {
    /// The content of the first attribute of this type.
    pub(crate) fn find(self, kind: u16) -> Option<&'a [u8]> {
        { self }.find_map(|(found, value)| (found == kind).then_some(value))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let length = usize::from(u16::from_ne_bytes(field(self.0, 0)?));
        let kind = u16::from_ne_bytes(field(self.0, 2)?) & TYPE_MASK;
        let value = self.0.get(ATTRIBUTE..length)?;
        self.0 = self.0.get(align(length)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// The `N` bytes at `at`, if there are so many.
pub(crate) fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// A string as the kernel writes it, without its zero byte.
pub(crate) fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok()
}

/// Rounds up to the alignment of messages and attributes.
pub(crate) const fn align(length: usize) -> usize {
    length.saturating_add(3) & !3
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let mut encoder = Encoder::default();
        let open = encoder.open_message(NfnlHeader {
            kind: 7,
            flags: flags::REQUEST,
            sequence: 9,
            family: 2,
            resource: 0,
        });
        let nest = encoder.open_nest(3);
        encoder.string(1, "abcd");
        encoder.close_nest(nest);
        encoder.attribute(2, &[5]);
        encoder.close_message(open);
        let bytes = encoder.finish();

        let messages: Vec<NfnlMessage<'_>> = NfnlMessages(&bytes).collect();
        assert_eq!(messages.len(), 1);
        assert_eq!((messages[0].kind, messages[0].sequence), (7, 9));
        let attributes: Vec<_> = messages[0].attributes().collect();
        assert_eq!(attributes.len(), 2);
        assert_eq!(attributes[0].0, 3);
        assert_eq!(Attributes(attributes[0].1).find(1).and_then(text), Some("abcd"));
        assert_eq!(attributes[1], (2, &[5][..]));
    }

    #[test]
    fn lengths_that_lie_end_the_reading() {
        // Shorter than its own header, and longer than what is there.
        for length in [0u32, 3, 15, 17, u32::MAX] {
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.resize(HEADER, 0);
            assert_eq!(NfnlMessages(&bytes).count(), 0, "length {length}");
        }
        for length in [0u16, 3, 9, u16::MAX] {
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.resize(8, 0);
            assert_eq!(Attributes(&bytes).count(), 0, "length {length}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_always_end(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            for message in NfnlMessages(&bytes) {
                prop_assert!(message.attributes().count() <= bytes.len());
            }
            prop_assert!(Attributes(&bytes).count() <= bytes.len());
        }
    }
}
