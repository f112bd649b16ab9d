//! Set elements as one nf_tables transaction (`linux/netfilter/nf_tables.h`,
//! `linux/netfilter/nfnetlink.h`).
//!
//! A batch is `BEGIN`, messages, `END`. The kernel applies all of it or nothing, and replies after
//! it has decided. Only the last message asks for an acknowledgement. Errors come unasked and in
//! the order of the messages, so the reply to the last message is the last one. An error that
//! concerns the whole batch answers `BEGIN`. **An aborted batch still acknowledges its good
//! messages**, so it is committed only if no reply in it is an error.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::message::{ATTRIBUTE, Encoder, HEADER, NFGENMSG, NfnlHeader, align, flags};
use super::nf_tables;
use super::reply::NetlinkReply;
use super::set_key::SetKey;

/// `NFNL_MSG_BATCH_BEGIN`, `NFNL_MSG_BATCH_END`.
pub(super) const BEGIN: u16 = 0x10;
pub(super) const END: u16 = 0x11;

/// The most octets of elements in one message: they are in one nested attribute, whose length has
/// 16 bits and includes its own header.
pub(super) const NEST_LIMIT: usize = u16::MAX as usize - ATTRIBUTE;

/// What happens to an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ElementAction {
    /// It is added with this timeout. An element that is there already is left as it is before
    /// Linux 6.12, and renewed from then on.
    Add(Duration),
    /// It is added without a timeout. An element that is there already is left as it is, so it must
    /// be deleted before.
    AddPermanent,
    /// It is deleted. It is an error if it is not there.
    Delete,
}

/// One change to one set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ElementOp {
    /// The set's name.
    pub(crate) set: Arc<str>,
    /// The key of the element.
    pub(crate) key: SetKey,
    /// What happens to the element.
    pub(crate) action: ElementAction,
}

/// An encoded transaction, with what is needed to read the replies to it.
#[derive(Debug)]
pub(crate) struct ElementBatch {
    /// What to send.
    pub(crate) bytes: Vec<u8>,
    /// The sequence number of `BEGIN`; the messages follow without a gap.
    begin: u32,
    /// The operations of each message.
    messages: MessageSpans,
    /// The offset of each operation's element in its message.
    offsets: Offsets,
}

/// Most transactions are those of one answer: a few elements, which are stored inline.
type MessageSpans = SmallVec<[Range<usize>; 2]>;
type Offsets = SmallVec<[u32; 4]>;

/// Why a transaction was aborted: one message's error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OperationError {
    /// The operation that failed and those after it in its message, which the kernel has not looked
    /// at. All of the message when the kernel does not say which operation it means, and all of the
    /// batch when the error concerns the whole.
    pub(crate) operations: Range<usize>,
    /// Whether the first of `operations` is known to be the one that failed.
    pub(crate) located: bool,
    /// A positive errno.
    pub(crate) errno: i32,
    /// The kernel's explanation, or the errno's.
    pub(crate) text: String,
}

/// The replies to a batch so far.
#[derive(Debug, Default)]
pub(crate) struct BatchReplies {
    /// The errors, in the order of the messages.
    pub(crate) errors: Vec<OperationError>,
    /// Whether all replies have come.
    pub(crate) complete: bool,
}

impl ElementBatch {
    /// Encodes `operations` in their order. Neighbours with the same set and verb share a message.
    pub(crate) fn encode(table: &str, operations: &[ElementOp], begin: u32) -> Self {
        let mut batch = Self {
            bytes: Vec::new(),
            begin,
            messages: messages(operations),
            offsets: Offsets::with_capacity(operations.len()),
        };
        let mut encoder = Encoder::with_capacity(batch.size(table, operations));
        boundary(&mut encoder, BEGIN, begin);
        for (position, span) in batch.messages.iter().enumerate() {
            let acknowledge = if position + 1 == batch.messages.len() {
                flags::ACK
            } else {
                0
            };
            let operations = operations.get(span.clone()).unwrap_or_default();
            let sequence = batch.sequence(position);
            encode_message(
                &mut encoder,
                table,
                operations,
                sequence,
                acknowledge,
                &mut batch.offsets,
            );
        }
        boundary(&mut encoder, END, batch.end());
        batch.bytes = encoder.finish();
        batch
    }

    /// How many bytes [`encode`](Self::encode) writes.
    fn size(&self, table: &str, operations: &[ElementOp]) -> usize {
        let string = |text: &str| ATTRIBUTE + align(text.len() + 1);
        let frames = (2 + self.messages.len()) * (HEADER + NFGENMSG);
        let heads = self.messages.iter().filter_map(|span| operations.get(span.start));
        let lists: usize = heads.map(|head| string(table) + string(&head.set) + ATTRIBUTE).sum();
        frames + lists + operations.iter().map(element_size).sum::<usize>()
    }

    /// The sequence number of `END`.
    pub(crate) fn end(&self) -> u32 {
        self.sequence(self.messages.len())
    }

    /// Takes a reply into account. Replies to other batches are ignored.
    pub(crate) fn take(&self, replies: &mut BatchReplies, reply: NetlinkReply) {
        let Ok(position) = usize::try_from(reply.sequence.wrapping_sub(self.begin)) else {
            return;
        };
        let span = match position.checked_sub(1) {
            // BEGIN is acknowledged only with an error, which concerns the whole batch.
            None => 0..self.offsets.len(),
            Some(message) => match self.messages.get(message) {
                Some(span) => span.clone(),
                None => return,
            },
        };
        replies.complete |= position == 0 || position == self.messages.len();
        if reply.errno != 0 {
            let culprit = reply.offset.and_then(|offset| self.culprit(&span, offset));
            replies.errors.push(OperationError {
                operations: culprit.unwrap_or(span.start)..span.end,
                located: culprit.is_some(),
                errno: reply.errno,
                text: reply
                    .explanation
                    .unwrap_or_else(|| std::io::Error::from_raw_os_error(reply.errno).to_string()),
            });
        }
    }

    /// The sequence number of the message at this position.
    fn sequence(&self, message: usize) -> u32 {
        // There are at most as many messages as operations in a batch, some thousands.
        self.begin
            .wrapping_add(1)
            .wrapping_add(u32::try_from(message).unwrap_or(u32::MAX))
    }

    /// The operation whose element is at this offset of its message.
    fn culprit(&self, span: &Range<usize>, offset: u32) -> Option<usize> {
        let offsets = self.offsets.get(span.clone())?;
        let before = offsets.partition_point(|start| *start <= offset);
        Some(span.start + before.checked_sub(1)?)
    }
}

/// Groups operations into messages: neighbours with the same set and action, as many as fit.
fn messages(operations: &[ElementOp]) -> MessageSpans {
    let mut spans = MessageSpans::new();
    let mut room = 0;
    for (at, operation) in operations.iter().enumerate() {
        let size = element_size(operation);
        let fits = |span: &Range<usize>| {
            operations
                .get(span.start)
                .is_some_and(|head| belong_together(head, operation))
        };
        match spans.last_mut() {
            Some(span) if size <= room && fits(span) => span.end = at + 1,
            _ => {
                spans.push(at..at + 1);
                room = NEST_LIMIT;
            }
        }
        room -= size.min(room);
    }
    spans
}

fn belong_together(a: &ElementOp, b: &ElementOp) -> bool {
    a.set == b.set && std::mem::discriminant(&a.action) == std::mem::discriminant(&b.action)
}

/// How many bytes [`encode_element`] writes.
fn element_size(operation: &ElementOp) -> usize {
    let timeout = match operation.action {
        ElementAction::Add(_) => 2 * (ATTRIBUTE + size_of::<u64>()),
        ElementAction::AddPermanent | ElementAction::Delete => 0,
    };
    3 * ATTRIBUTE + align(operation.key.len()) + timeout
}

/// Writes one message, and notes the offset of each element in it.
fn encode_message(
    encoder: &mut Encoder,
    table: &str,
    operations: &[ElementOp],
    sequence: u32,
    acknowledge: u16,
    offsets: &mut Offsets,
) {
    let Some(head) = operations.first() else { return };
    let (kind, create) = match head.action {
        ElementAction::Add(_) | ElementAction::AddPermanent => (nf_tables::msg::NEW_ELEMENT, flags::CREATE),
        ElementAction::Delete => (nf_tables::msg::DELETE_ELEMENT, 0),
    };
    let start = encoder.len();
    let message = encoder.open_message(NfnlHeader {
        kind,
        flags: flags::REQUEST | create | acknowledge,
        sequence,
        family: nf_tables::FAMILY_INET,
        resource: 0,
    });
    encoder.string(nf_tables::element_list::TABLE, table);
    encoder.string(nf_tables::element_list::SET, &head.set);
    let list = encoder.open_nest(nf_tables::element_list::ELEMENTS);
    for operation in operations {
        // A message is little longer than its nested attribute, whose length has 16 bits.
        offsets.push(u32::try_from(encoder.len() - start).unwrap_or(u32::MAX));
        encode_element(encoder, operation);
    }
    encoder.close_nest(list);
    encoder.close_message(message);
}

pub(super) fn boundary(encoder: &mut Encoder, kind: u16, sequence: u32) {
    let message = encoder.open_message(NfnlHeader {
        kind,
        flags: flags::REQUEST,
        sequence,
        family: 0,
        resource: nf_tables::SUBSYSTEM,
    });
    encoder.close_message(message);
}

fn encode_element(encoder: &mut Encoder, operation: &ElementOp) {
    let element = encoder.open_nest(nf_tables::LIST_ELEMENT);
    let key = encoder.open_nest(nf_tables::element::KEY);
    encoder.attribute(nf_tables::data::VALUE, &operation.key);
    encoder.close_nest(key);
    if let ElementAction::Add(timeout) = operation.action {
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        encoder.attribute(nf_tables::element::TIMEOUT, &millis.to_be_bytes());
        // Without an expiration, Linux 6.12 and later take an equal timeout for no change, and the
        // element is not renewed.
        encoder.attribute(nf_tables::element::EXPIRATION, &millis.to_be_bytes());
    }
    encoder.close_nest(element);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(set: &str, key: &[u8]) -> ElementOp {
        ElementOp {
            set: set.into(),
            key: SetKey::from_slice(key),
            action: ElementAction::Add(Duration::from_millis(0x0102)),
        }
    }

    fn reply(sequence: u32, errno: i32, offset: Option<u32>) -> NetlinkReply {
        NetlinkReply {
            sequence,
            errno,
            explanation: None,
            offset,
        }
    }

    fn collect(batch: &ElementBatch, replies: impl IntoIterator<Item = NetlinkReply>) -> BatchReplies {
        let mut collected = BatchReplies::default();
        for reply in replies {
            batch.take(&mut collected, reply);
        }
        collected
    }

    /// Headers are in host order: these are little-endian.
    #[cfg(target_endian = "little")]
    #[test]
    fn one_element_is_these_bytes() {
        let batch = ElementBatch::encode("t", &[add("s", &[192, 0, 2, 1])], 1);
        #[rustfmt::skip]
        let expected: &[u8] = &[
            // BEGIN: length, type, flags, sequence, port; family, version, subsystem (big-endian).
            20, 0, 0, 0,  0x10, 0, 1, 0,  1, 0, 0, 0,  0, 0, 0, 0,  0, 0, 0, 10,
            // NFT_MSG_NEWSETELEM with REQUEST, ACK, CREATE.
            80, 0, 0, 0,  12, 10, 5, 4,  2, 0, 0, 0,  0, 0, 0, 0,  1, 0, 0, 0,
            6, 0, 1, 0,  b't', 0, 0, 0,
            6, 0, 2, 0,  b's', 0, 0, 0,
            44, 0, 3, 0x80,
                40, 0, 1, 0x80,
                    12, 0, 1, 0x80,  8, 0, 1, 0,  192, 0, 2, 1,
                    12, 0, 4, 0,  0, 0, 0, 0, 0, 0, 1, 2,
                    12, 0, 5, 0,  0, 0, 0, 0, 0, 0, 1, 2,
            // END.
            20, 0, 0, 0,  0x11, 0, 1, 0,  3, 0, 0, 0,  0, 0, 0, 0,  0, 0, 0, 10,
        ];
        assert_eq!(batch.bytes, expected);
    }

    #[test]
    fn room_is_made_for_what_is_written_and_no_more() {
        let delete = ElementOp {
            action: ElementAction::Delete,
            ..add("second", &[7; 12])
        };
        for operations in [vec![add("s", &[1; 4]), delete], vec![add("a", &[0; 24]); 3000]] {
            let batch = ElementBatch::encode("table", &operations, 1);
            assert_eq!(batch.size("table", &operations), batch.bytes.len());
        }
    }

    #[test]
    fn a_key_of_one_byte_is_padded_but_not_counted() {
        let batch = ElementBatch::encode("t", &[add("alive", &[2])], 1);
        let value: &[u8] = &[5, 0, 1, 0, 2, 0, 0, 0];
        assert!(batch.bytes.windows(value.len()).any(|window| window == value));
    }

    #[test]
    fn neighbours_with_the_same_set_and_verb_share_a_message_within_the_nest_limit() {
        let mut operations = vec![add("a", &[0; 24]); 3000];
        operations.push(add("b", &[0; 4]));
        operations.push(ElementOp {
            action: ElementAction::Delete,
            ..add("b", &[0; 4])
        });
        let batch = ElementBatch::encode("t", &operations, 1);
        // 65,531 / 60 = 1,092 elements fit.
        assert_eq!(
            batch.messages.as_slice(),
            [0..1092, 1092..2184, 2184..3000, 3000..3001, 3001..3002]
        );
        let read: Vec<usize> = crate::netlink::message::NfnlMessages(&batch.bytes)
            .filter_map(|message| message.attributes().find(nf_tables::element_list::ELEMENTS))
            .map(|list| crate::netlink::message::Attributes(list).count())
            .collect();
        assert_eq!(read, [1092, 1092, 816, 1, 1]);
    }

    #[test]
    fn the_acknowledgement_of_the_last_message_completes_a_batch() {
        let batch = ElementBatch::encode("t", &[add("a", &[1]), add("b", &[1])], u32::MAX);
        assert!(!collect(&batch, []).complete);
        // Replies to earlier and later batches do not count.
        assert!(!collect(&batch, [reply(u32::MAX - 1, 0, None), reply(2, 0, None)]).complete);
        let replies = collect(&batch, [reply(1, 0, None)]);
        assert!(replies.complete && replies.errors.is_empty());
    }

    #[test]
    fn a_good_acknowledgement_does_not_hide_an_error_before_it() {
        let batch = ElementBatch::encode("t", &[add("a", &[1]), add("b", &[1])], 7);
        let replies = collect(&batch, [reply(8, libc::EINVAL, None), reply(9, 0, None)]);
        assert!(replies.complete);
        assert_eq!(replies.errors.len(), 1);
        assert_eq!(replies.errors[0].operations, 0..1);
    }

    #[test]
    fn an_offset_tells_the_culprit_and_those_after_it() {
        let batch = ElementBatch::encode(
            "t",
            &[
                add("a", &[1; 4]),
                add("b", &[1; 4]),
                add("b", &[2; 4]),
                add("b", &[3; 4]),
            ],
            7,
        );
        // Headers 20, two names of 8, the list's header 4, one element 40: the second element of
        // `b`, and somewhere inside it.
        for offset in [80, 88] {
            let replies = collect(&batch, [reply(9, libc::ENFILE, Some(offset))]);
            assert_eq!(
                (replies.errors[0].operations.clone(), replies.errors[0].located),
                (2..4, true)
            );
        }
        // The set's name: no element in particular.
        let replies = collect(&batch, [reply(9, libc::ENOENT, Some(28))]);
        assert_eq!(
            (replies.errors[0].operations.clone(), replies.errors[0].located),
            (1..4, false)
        );
    }

    #[test]
    fn an_error_of_begin_concerns_everything() {
        let batch = ElementBatch::encode("t", &[add("a", &[1]), add("b", &[1])], 7);
        let replies = collect(&batch, [reply(7, libc::EPERM, None)]);
        assert!(replies.complete);
        assert_eq!(replies.errors[0].operations, 0..2);
    }
}
