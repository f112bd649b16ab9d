//! Bodies of HTTP/1 messages (RFC 9112 §6 and §7): how much of what comes belongs to one.
//!
//! A body passes as it came, chunks and trailers included, since there is one way to read what
//! passes here: sizes are hexadecimal digits and nothing else, lines end with CR LF, and trailers
//! frame nothing.

mod chunked;

use crate::head::length::LengthFields;
use crate::head::response::ResponseHead;
use chunked::ChunkReader;
pub(crate) use chunked::is_forbidden_trailer;

/// What is wrong with a body. The words are for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub(crate) enum FramingError {
    /// A chunk's size that is no hexadecimal number of at most 15 digits and CR LF.
    #[error("a chunk's size is malformed, or has an extension")]
    ChunkSize,
    /// A chunk that is not followed by CR LF.
    #[error("a chunk does not end with CR LF")]
    ChunkEnd,
    /// Trailers that are malformed, too long, or frame or route.
    #[error("the trailers are malformed, too long, or hold a field that frames or routes")]
    Trailers,
}

/// Finds the end of one body.
#[derive(Debug)]
pub(crate) enum BodyReader {
    /// So many octets are still to come.
    Length(u64),
    Chunked(ChunkReader),
    /// Everything until the sender ends.
    UntilEnd,
}

impl BodyReader {
    /// Of a request: without a length it has no body.
    pub(crate) fn of_request(length: LengthFields) -> Self {
        match length.is_chunked {
            true => Self::Chunked(ChunkReader::default()),
            false => Self::Length(length.content_length.unwrap_or(0)),
        }
    }

    /// Of a final response, which answers HEAD or not (RFC 9112 §6.3).
    pub(crate) fn of_response(response: &ResponseHead<'_>, answers_head: bool) -> Self {
        if answers_head || matches!(response.status, 204 | 304) {
            return Self::Length(0);
        }
        match (response.length.is_chunked, response.length.content_length) {
            (true, _) => Self::Chunked(ChunkReader::default()),
            (false, Some(length)) => Self::Length(length),
            (false, None) => Self::UntilEnd,
        }
    }

    /// How many octets of `input` belong to the body and may pass. `input` begins where the last
    /// call stopped. Fewer than there are means that the body has ended, or that what follows can
    /// only be read when more of it is there.
    pub(crate) fn take(&mut self, input: &[u8]) -> Result<usize, FramingError> {
        match self {
            Self::Length(rest) => {
                let taken = usize::try_from(*rest).map_or(input.len(), |rest| rest.min(input.len()));
                *rest -= taken as u64;
                Ok(taken)
            }
            Self::Chunked(reader) => reader.take(input),
            Self::UntilEnd => Ok(input.len()),
        }
    }

    /// Whether the body is over. One that lasts until its sender ends never is.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Self::Length(rest) => *rest == 0,
            Self::Chunked(reader) => reader.is_over(),
            Self::UntilEnd => false,
        }
    }
}
