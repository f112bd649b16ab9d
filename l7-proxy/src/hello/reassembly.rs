//! Puts a ClientHello together out of TLS records (RFC 8446 §5.1).
//!
//! A post-quantum hello has some 2 KiB, so it comes in two segments, and some stacks cut it into
//! two records. Either cut may be anywhere, the header of a record or of the message included.

use super::{ClientHello, InvalidHello, message};

/// The content type of handshake records, and so the first octet of a connection that speaks TLS.
pub(crate) const HANDSHAKE: u8 = 22;
/// The type of the ClientHello message.
const CLIENT_HELLO: u8 = 1;
const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;
/// RFC 8446 §5.1.
const LONGEST_FRAGMENT: usize = 1 << 14;

/// Reads the hello at the beginning of what a client sends. Costs each octet once, however they
/// come.
#[derive(Debug, Default)]
pub struct HelloReader {
    /// How much of the input was read: whole records.
    position: usize,
    /// The message as far as it is there, with its header.
    message: Vec<u8>,
}

/// How far the hello has come.
#[derive(Debug, PartialEq, Eq)]
pub enum HelloProgress {
    /// More octets are needed.
    Incomplete,
    /// It is whole.
    Whole(ClientHello),
    /// It is longer than the limit.
    TooLong,
    /// It is none.
    Invalid(InvalidHello),
}

impl HelloReader {
    /// Reads on. `input` is all that came since the connection began, the octets of former calls
    /// included. `limit` bounds the message and the records around it, in octets.
    pub fn read(&mut self, input: &[u8], limit: usize) -> HelloProgress {
        loop {
            let rest = input.get(self.position..).unwrap_or_default();
            let fragment = match fragment_of_record(rest) {
                Ok(Some(fragment)) => fragment,
                Ok(None) if input.len() > limit => return HelloProgress::TooLong,
                Ok(None) => return HelloProgress::Incomplete,
                Err(error) => return HelloProgress::Invalid(error),
            };
            self.message.extend_from_slice(fragment);
            self.position += RECORD_HEADER + fragment.len();
            if self.message[0] != CLIENT_HELLO {
                return HelloProgress::Invalid(InvalidHello::Message);
            }
            if let [_, high, middle, low, body @ ..] = &self.message[..] {
                let length = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
                if MESSAGE_HEADER + length > limit {
                    return HelloProgress::TooLong;
                }
                match body.len().cmp(&length) {
                    std::cmp::Ordering::Less => {}
                    std::cmp::Ordering::Greater => return HelloProgress::Invalid(InvalidHello::Trailing),
                    std::cmp::Ordering::Equal => {
                        return message::parse(body).map_or_else(HelloProgress::Invalid, HelloProgress::Whole);
                    }
                }
            }
            if self.position > limit {
                return HelloProgress::TooLong;
            }
        }
    }
}

/// What the first record holds; `None` while it is not whole. What is wrong with its header is said
/// as soon as that can be seen.
fn fragment_of_record(input: &[u8]) -> Result<Option<&[u8]>, InvalidHello> {
    if input.first().is_some_and(|kind| *kind != HANDSHAKE) || input.get(1).is_some_and(|major| *major != 3) {
        return Err(InvalidHello::Record);
    }
    let [_, _, _, high, low, content @ ..] = input else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if length == 0 || length > LONGEST_FRAGMENT {
        return Err(InvalidHello::Record);
    }
    Ok(content.get(..length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples::{self, HelloSample};
    use super::*;

    const LIMIT: usize = 16 << 10;

    fn whole(input: &[u8]) -> HelloProgress {
        HelloReader::default().read(input, LIMIT)
    }

    fn name(progress: &HelloProgress) -> Option<String> {
        match progress {
            HelloProgress::Whole(hello) => hello.server_name.as_ref().map(ToString::to_string),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_hello_of_openssl_is_read_octet_by_octet() {
        let input = samples::OPENSSL_HELLO;
        let mut reader = HelloReader::default();
        for end in 0..input.len() {
            assert_eq!(reader.read(&input[..end], LIMIT), HelloProgress::Incomplete, "{end}");
        }
        assert_eq!(name(&reader.read(input, LIMIT)).as_deref(), Some("www.example.org"));
    }

    #[test]
    fn records_of_one_octet_each_are_read() {
        let sample = HelloSample {
            extensions: vec![HelloSample::server_name("a.example")],
            ..HelloSample::default()
        };
        assert_eq!(name(&whole(&sample.records(&[1]))).as_deref(), Some("a.example"));
    }

    #[test]
    fn what_follows_the_hello_in_its_record_is_refused_and_another_record_is_not() {
        let sample = HelloSample::default();
        let mut message = sample.message();
        message.push(0);
        assert_eq!(
            whole(&samples::records_of(&message, &[usize::MAX])),
            HelloProgress::Invalid(InvalidHello::Trailing)
        );
        let mut input = sample.records(&[usize::MAX]);
        input.extend([20, 3, 3, 0, 1, 1]);
        assert_eq!(name(&whole(&input)), None);
    }

    #[test]
    fn other_records_between_are_refused() {
        let sample = HelloSample::default();
        let message = sample.message();
        let mut input = samples::records_of(&message[..20], &[usize::MAX]);
        input.extend([21, 3, 3, 0, 2, 1, 0]);
        input.extend(samples::records_of(&message[20..], &[usize::MAX]));
        assert_eq!(whole(&input), HelloProgress::Invalid(InvalidHello::Record));
    }

    #[test]
    fn other_messages_versions_and_empty_records_are_refused() {
        for (input, error) in [
            (&[22, 3, 1, 0, 4, 2, 0, 0, 0][..], InvalidHello::Message),
            (&[22, 2][..], InvalidHello::Record),
            (&[22, 3, 1, 0, 0][..], InvalidHello::Record),
            (&[22, 3, 1, 0x40, 1][..], InvalidHello::Record),
            (b"GET / HTTP/1.1\r\n".as_slice(), InvalidHello::Record),
            (&[0x80, 0x2e, 1, 3, 1][..], InvalidHello::Record),
        ] {
            assert_eq!(whole(input), HelloProgress::Invalid(error), "{input:?}");
        }
    }

    #[test]
    fn a_hello_over_the_limit_ends_as_soon_as_that_is_known() {
        // The length in the message's header tells before the content has come.
        assert_eq!(whole(&[22, 3, 1, 0, 4, 1, 0, 0x40, 0]), HelloProgress::TooLong);
        // So does framing that takes more than it holds.
        let sample = HelloSample {
            extensions: vec![(21, vec![0; 8000])],
            ..HelloSample::default()
        };
        assert_eq!(name(&whole(&sample.records(&[usize::MAX]))), None);
        assert_eq!(whole(&sample.records(&[1])), HelloProgress::TooLong);
        // And so does a record that does not end.
        let mut endless = vec![22, 3, 1, 0x40, 0, 1, 0, 0x30, 0];
        endless.resize(LIMIT + 1, 0);
        assert_eq!(whole(&endless), HelloProgress::TooLong);
    }

    proptest! {
        /// Whatever the cuts into records and segments, the hello says the same as in one piece.
        #[test]
        fn cuts_do_not_matter(
            sample in samples::any_hello(),
            records in prop::collection::vec(1_usize..700, 1..6),
            segments in prop::collection::vec(1_usize..700, 1..6),
        ) {
            let input = sample.records(&records);
            let mut reader = HelloReader::default();
            let mut end = 0;
            for length in segments.iter().cycle() {
                end = (end + length).min(input.len());
                let progress = reader.read(&input[..end], LIMIT);
                if end == input.len() {
                    prop_assert_eq!(progress, HelloProgress::Whole(sample.hello()));
                    break;
                }
                prop_assert_eq!(progress, HelloProgress::Incomplete);
            }
        }

        /// One octet that differs, or some that are missing, are read or refused, and never as
        /// another length of the same hello.
        #[test]
        fn damage_is_survived(sample in samples::any_hello(), at: prop::sample::Index, octet: u8, cut: prop::sample::Index) {
            let mut input = sample.records(&[usize::MAX]);
            let index = at.index(input.len());
            input[index] = octet;
            let _ = whole(&input);
            input.remove(cut.index(input.len()));
            let _ = whole(&input);
        }

        #[test]
        fn noise_is_survived(noise in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = whole(&noise);
            let _ = whole(&[&[22, 3, 1, 1, 0, 1, 0, 0, 0xfc, 3, 3], &noise[..]].concat());
        }
    }
}
