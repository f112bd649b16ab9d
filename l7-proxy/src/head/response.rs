//! The head of a response, as far as its framing is concerned. It goes to the client as it came.

use std::mem::MaybeUninit;

use super::MOST_FIELDS;
use super::connection_field::ConnectionOptions;
use super::error::HeadError;
use super::length::LengthFields;

/// The head of a response.
#[derive(Debug)]
pub(crate) struct ResponseHead<'a> {
    pub(crate) status: u16,
    pub(crate) is_http_1_0: bool,
    pub(crate) length: LengthFields,
    pub(crate) options: ConnectionOptions,
    /// The values of Upgrade.
    pub(crate) upgrade: Option<&'a [u8]>,
}

impl<'a> ResponseHead<'a> {
    /// Reads a whole head, with its empty line, in which every line ends with CR LF.
    pub(crate) fn parse(head: &'a [u8]) -> Result<Self, HeadError> {
        let mut space = [const { MaybeUninit::uninit() }; MOST_FIELDS];
        let mut parsed = httparse::Response::new(&mut []);
        let outcome =
            httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, head, &mut space);
        match outcome {
            Ok(httparse::Status::Complete(length)) if length == head.len() => {}
            Ok(_) => return Err(HeadError::StartLine),
            Err(error) => return Err(HeadError::from(error)),
        }
        let mut response = Self {
            status: parsed.code.ok_or(HeadError::StartLine)?,
            is_http_1_0: parsed.version == Some(0),
            length: LengthFields::default(),
            options: ConnectionOptions::default(),
            upgrade: None,
        };
        if !(100..=999).contains(&response.status) {
            return Err(HeadError::StartLine);
        }
        for field in parsed.headers.iter() {
            response.length.read(field.name, field.value)?;
            if field.name.eq_ignore_ascii_case("connection") {
                response.options.read(field.value, |_| false)?;
            } else if field.name.eq_ignore_ascii_case("upgrade") {
                response.upgrade = Some(field.value);
            }
        }
        response.length.check(response.is_http_1_0)?;
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_framing_are_read() {
        let response =
            ResponseHead::parse(b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\nConnection: close\r\n\r\n").unwrap();
        assert_eq!(response.status, 200);
        assert_eq!(response.length.content_length, Some(12));
        assert!(response.options.close);
        let response = ResponseHead::parse(b"HTTP/1.0 204\r\n\r\n").unwrap();
        assert!(response.is_http_1_0);
        assert_eq!(response.status, 204);
    }

    #[test]
    fn what_could_be_framed_in_two_ways_is_refused() {
        for (fields, error) in [
            (
                "Content-Length: 1\r\nContent-Length: 1\r\n",
                HeadError::RepeatedContentLength,
            ),
            ("Content-Length: 1, 1\r\n", HeadError::RepeatedContentLength),
            (
                "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
                HeadError::TwoLengths,
            ),
            ("Transfer-Encoding: gzip, chunked\r\n", HeadError::TransferEncoding),
            ("A : b\r\n", HeadError::FieldName),
            ("A: b\r\n c\r\n", HeadError::FieldName),
        ] {
            let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
            assert_eq!(ResponseHead::parse(head.as_bytes()).unwrap_err(), error, "{fields}");
        }
        assert_eq!(
            ResponseHead::parse(b"HTTP/2 200 OK\r\n\r\n").unwrap_err(),
            HeadError::Version
        );
        assert_eq!(
            ResponseHead::parse(b"HTTP/1.1 099 OK\r\n\r\n").unwrap_err(),
            HeadError::StartLine
        );
    }
}
