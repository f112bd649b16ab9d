//! Messages in a byte stream: each behind its length, two octets (RFC 1035 §4.2.2).

use bytes::{Buf, Bytes, BytesMut};

/// Appends a message with its length, so that both leave in one segment (RFC 7766 §8).
pub(crate) fn push(stream: &mut Vec<u8>, message: &[u8]) {
    // No message is longer: they come from UDP, from a frame, or from `reply`.
    debug_assert!(message.len() <= usize::from(u16::MAX));
    let length = message.len() as u16;
    stream.extend_from_slice(&length.to_be_bytes());
    stream.extend_from_slice(message);
}

/// Takes the first message out of what was read, if all of it is there.
pub(crate) fn pop(stream: &mut BytesMut) -> Option<Bytes> {
    let length = usize::from(u16::from_be_bytes(stream.first_chunk().copied()?));
    if stream.len() < 2 + length {
        return None;
    }
    stream.advance(2);
    Some(stream.split_to(length).freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_whole_however_the_stream_is_cut() {
        let mut stream = Vec::new();
        for message in [&b"one"[..], b"", b"three"] {
            push(&mut stream, message);
        }
        let mut read = BytesMut::new();
        let mut messages = Vec::new();
        for byte in stream {
            read.extend_from_slice(&[byte]);
            messages.extend(pop(&mut read));
        }
        assert_eq!(messages, [&b"one"[..], b"", b"three"]);
        assert!(read.is_empty());
    }
}
