//! The chunked coding (RFC 9112 §7.1).

use std::mem;

use super::FramingError;
use crate::head::MOST_FIELDS;
use crate::head::scan::HeadScanner;

/// The longest trailer section, in octets.
const LONGEST_TRAILERS: usize = 16 << 10;
/// So many hexadecimal digits fit into 60 bits.
const MOST_DIGITS: u8 = 15;

/// Fields that no trailer may hold, since a reader that merges trailers into the header would frame
/// or route the message by them (RFC 9110 §6.5.1).
const FORBIDDEN: [&str; 9] = [
    "content-length",
    "transfer-encoding",
    "host",
    "connection",
    "upgrade",
    "expect",
    "te",
    "trailer",
    "content-encoding",
];

/// Finds the end of one chunked body.
#[derive(Debug, Default)]
pub(crate) struct ChunkReader {
    state: ChunkState,
}

#[derive(Debug)]
enum ChunkState {
    /// In a size, of which so many digits came.
    Size {
        digits: u8,
        size: u64,
    },
    /// Behind the CR of a size's line.
    SizeEnd {
        size: u64,
    },
    /// In the data, of which so much is still to come.
    Data {
        rest: u64,
    },
    /// Behind the data.
    DataEnd {
        has_cr: bool,
    },
    /// Behind the last chunk's size. Trailers pass when they are whole.
    Trailers(HeadScanner),
    Over,
}

impl Default for ChunkState {
    fn default() -> Self {
        Self::Size { digits: 0, size: 0 }
    }
}

impl ChunkReader {
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, ChunkState::Over)
    }

    pub(super) fn take(&mut self, input: &[u8]) -> Result<usize, FramingError> {
        let mut at = 0;
        while let Some(octet) = input.get(at) {
            let state = match &mut self.state {
                ChunkState::Over => break,
                ChunkState::Data { rest } => {
                    let there = (input.len() - at) as u64;
                    let taken = there.min(*rest);
                    *rest -= taken;
                    // No more than there is.
                    at += usize::try_from(taken).unwrap_or(input.len());
                    match rest {
                        0 => ChunkState::DataEnd { has_cr: false },
                        _ => continue,
                    }
                }
                ChunkState::Trailers(scanner) => {
                    let length = match trailers(&input[at..], scanner)? {
                        Some(length) => length,
                        None => break,
                    };
                    at += length;
                    ChunkState::Over
                }
                state => {
                    at += 1;
                    line_octet(mem::take(state), *octet)?
                }
            };
            self.state = state;
        }
        Ok(at)
    }
}

/// The state after one octet of a line that holds a size, or that ends a chunk.
fn line_octet(state: ChunkState, octet: u8) -> Result<ChunkState, FramingError> {
    match (state, octet) {
        (ChunkState::Size { digits: 1.., size }, b'\r') => Ok(ChunkState::SizeEnd { size }),
        (ChunkState::Size { digits, size }, octet) => {
            let digit = char::from(octet).to_digit(16).ok_or(FramingError::ChunkSize)?;
            if digits == MOST_DIGITS {
                return Err(FramingError::ChunkSize);
            }
            Ok(ChunkState::Size {
                digits: digits + 1,
                size: size << 4 | u64::from(digit),
            })
        }
        (ChunkState::SizeEnd { size: 0 }, b'\n') => Ok(ChunkState::Trailers(HeadScanner::default())),
        (ChunkState::SizeEnd { size }, b'\n') => Ok(ChunkState::Data { rest: size }),
        (ChunkState::SizeEnd { .. }, _) => Err(FramingError::ChunkSize),
        (ChunkState::DataEnd { has_cr: false }, b'\r') => Ok(ChunkState::DataEnd { has_cr: true }),
        (ChunkState::DataEnd { has_cr: true }, b'\n') => Ok(ChunkState::default()),
        _ => Err(FramingError::ChunkEnd),
    }
}

/// The length of the trailer section with its empty line; `None` while it is not whole.
fn trailers(input: &[u8], scanner: &mut HeadScanner) -> Result<Option<usize>, FramingError> {
    match input {
        b"\r" => return Ok(None),
        [b'\r', b'\n', ..] => return Ok(Some(2)),
        _ => {}
    }
    let Some(length) = scanner
        .end(input, LONGEST_TRAILERS)
        .map_err(|_| FramingError::Trailers)?
    else {
        return Ok(None);
    };
    let mut space = [httparse::EMPTY_HEADER; MOST_FIELDS];
    match httparse::parse_headers(&input[..length], &mut space) {
        Ok(httparse::Status::Complete((end, fields))) if end == length => {
            match fields.iter().any(|field| is_forbidden_trailer(field.name)) {
                true => Err(FramingError::Trailers),
                false => Ok(Some(length)),
            }
        }
        _ => Err(FramingError::Trailers),
    }
}

/// Whether no trailer may have this name.
pub(crate) fn is_forbidden_trailer(name: &str) -> bool {
    FORBIDDEN
        .iter()
        .any(|forbidden| name.replace('_', "-").eq_ignore_ascii_case(forbidden))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How much passes, and whether the body is over then.
    fn taken(input: &[u8]) -> Result<(usize, bool), FramingError> {
        let mut reader = ChunkReader::default();
        reader.take(input).map(|taken| (taken, reader.is_over()))
    }

    #[test]
    fn a_body_ends_behind_its_trailers() {
        assert_eq!(taken(b"3\r\nabc\r\n0\r\n\r\nGET"), Ok((13, true)));
        assert_eq!(taken(b"0\r\n\r\n"), Ok((5, true)));
        assert_eq!(taken(b"00A\r\n0123456789\r\n0\r\nX: y\r\n\r\nGET"), Ok((28, true)));
        assert_eq!(taken(b"3\r\nab"), Ok((5, false)));
        assert_eq!(taken(b""), Ok((0, false)));
    }

    #[test]
    fn trailers_pass_whole_or_not_at_all() {
        assert_eq!(taken(b"0\r\nX: y\r\n"), Ok((3, false)));
        assert_eq!(taken(b"0\r\n\r"), Ok((3, false)));
    }

    #[test]
    fn what_is_no_plain_chunk_is_refused() {
        for (input, error) in [
            (&b"3;a=b\r\nabc\r\n"[..], FramingError::ChunkSize),
            (b"3 \r\nabc\r\n", FramingError::ChunkSize),
            (b" 3\r\nabc\r\n", FramingError::ChunkSize),
            (b"+3\r\nabc\r\n", FramingError::ChunkSize),
            (b"0x3\r\nabc\r\n", FramingError::ChunkSize),
            (b"\r\nabc\r\n", FramingError::ChunkSize),
            (b"3\nabc\r\n", FramingError::ChunkSize),
            (b"3\r\r\nabc\r\n", FramingError::ChunkSize),
            (b"-1\r\n", FramingError::ChunkSize),
            (b"1000000000000000\r\n", FramingError::ChunkSize),
            (b"3\r\nabcd\r\n", FramingError::ChunkEnd),
            (b"3\r\nabc\n", FramingError::ChunkEnd),
            (b"3\r\nabc\r\r\n", FramingError::ChunkEnd),
            (b"0\r\n\n", FramingError::Trailers),
            (b"0\r\nX: y\n\r\n", FramingError::Trailers),
            (b"0\r\nX y\r\n\r\n", FramingError::Trailers),
            (b"0\r\nX: y\r\n folded\r\n\r\n", FramingError::Trailers),
            (b"0\r\nContent-Length: 3\r\n\r\n", FramingError::Trailers),
            (
                b"0\r\nA: b\r\ntransfer_encoding: chunked\r\n\r\n",
                FramingError::Trailers,
            ),
            (b"0\r\nHost: b\r\n\r\n", FramingError::Trailers),
        ] {
            assert_eq!(taken(input), Err(error), "{:?}", String::from_utf8_lossy(input));
        }
        let long = [b"0\r\nX: ", &[b'a'; LONGEST_TRAILERS][..]].concat();
        assert_eq!(taken(&long), Err(FramingError::Trailers));
    }

    proptest! {
        /// However a body is cut, it ends where it ends in one piece, and passes whole.
        #[test]
        fn cuts_do_not_matter(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
            trailers in prop::collection::vec("[a-z]{1,8}", 0..3),
            segments in prop::collection::vec(1_usize..30, 1..6),
        ) {
            let mut body = Vec::new();
            for chunk in &chunks {
                body.extend(format!("{:x}\r\n", chunk.len()).bytes());
                body.extend(chunk);
                body.extend(b"\r\n");
            }
            body.extend(b"0\r\n");
            for trailer in &trailers {
                body.extend(format!("X-{trailer}: 1\r\n").bytes());
            }
            body.extend(b"\r\n");
            let length = body.len();
            body.extend(b"GET / HTTP/1.1\r\n\r\n");
            let mut reader = ChunkReader::default();
            let (mut passed, mut there) = (0, 0);
            for segment in segments.iter().cycle() {
                there = (there + segment).min(body.len());
                passed += reader.take(&body[passed..there]).unwrap();
                prop_assert!(passed <= length);
                if there == body.len() {
                    break;
                }
            }
            prop_assert!(reader.is_over());
            prop_assert_eq!(passed, length);
        }

        #[test]
        fn noise_is_survived(noise in "[0-9a-f;\r\nX: ]{0,60}", cut: prop::sample::Index) {
            let whole = taken(noise.as_bytes());
            let mut reader = ChunkReader::default();
            let cut = cut.index(noise.len() + 1);
            let parts = reader.take(&noise.as_bytes()[..cut]).and_then(|first| {
                Ok(first + reader.take(&noise.as_bytes()[first..])?)
            });
            prop_assert_eq!(parts.map(|taken| (taken, reader.is_over())), whole);
        }
    }
}
