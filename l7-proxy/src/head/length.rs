//! What frames a body (RFC 9112 §6), read from the fields of a head of either kind.

use super::error::HeadError;

/// What the fields say about the body's length.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LengthFields {
    pub(crate) content_length: Option<u64>,
    pub(crate) is_chunked: bool,
}

impl LengthFields {
    /// Reads one field, whatever its name.
    pub(crate) fn read(&mut self, name: &str, value: &[u8]) -> Result<(), HeadError> {
        if name.eq_ignore_ascii_case("content-length") {
            if self.content_length.is_some() || value.contains(&b',') {
                return Err(HeadError::RepeatedContentLength);
            }
            self.content_length = Some(number(value).ok_or(HeadError::ContentLength)?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            if self.is_chunked || value != b"chunked" {
                return Err(HeadError::TransferEncoding);
            }
            self.is_chunked = true;
        } else if is_ambiguous(name) {
            return Err(HeadError::AmbiguousFieldName);
        }
        Ok(())
    }

    /// When all fields are read.
    pub(crate) fn check(&self, is_http_1_0: bool) -> Result<(), HeadError> {
        match (self.is_chunked, self.content_length) {
            (true, Some(_)) => Err(HeadError::TwoLengths),
            (true, None) if is_http_1_0 => Err(HeadError::TransferEncoding),
            _ => Ok(()),
        }
    }
}

/// Digits alone: no sign, no white space.
fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(value).ok()?.parse().ok()
}

/// CGI, and what came after it, makes one variable of `Content-Length` and `Content_Length`.
fn is_ambiguous(name: &str) -> bool {
    name.contains('_')
        && ["content-length", "transfer-encoding"].iter().any(|known| {
            name.len() == known.len()
                && name
                    .bytes()
                    .zip(known.bytes())
                    .all(|(one, other)| one.to_ascii_lowercase() == other || (one == b'_' && other == b'-'))
        })
}
