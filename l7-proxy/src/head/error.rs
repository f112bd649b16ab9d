//! What is wrong with a head.

use thiserror::Error;

/// What is wrong with a head. The words are for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum HeadError {
    /// An empty line before the start line.
    #[error("an empty line comes before the start line")]
    LeadingEmptyLine,
    /// LF without CR, or CR without LF (RFC 9112 §2.2).
    #[error("a line does not end with CR LF")]
    BareLineEnd,
    /// More octets than the limit.
    #[error("the head is too long")]
    TooLong,
    /// More fields than [`MOST_FIELDS`](super::MOST_FIELDS).
    #[error("the head has too many fields")]
    TooManyFields,
    /// A start line with an octet or a space where none may be.
    #[error("the start line is malformed")]
    StartLine,
    /// Another version than HTTP/1.0 and HTTP/1.1.
    #[error("the version is neither HTTP/1.0 nor HTTP/1.1")]
    Version,
    /// A name that is no token, white space before the colon, or a folded line.
    #[error("a field's name is no token, or a line is folded")]
    FieldName,
    /// A value with a control character.
    #[error("a field's value has a control character")]
    FieldValue,
    /// A name that some servers take for one that frames the message.
    #[error("a field's name looks like one that frames the message")]
    AmbiguousFieldName,
    /// HTTP/1.1 without Host.
    #[error("there is no Host")]
    NoHost,
    /// More than one Host.
    #[error("there are several Host fields")]
    RepeatedHost,
    /// A Host, or an authority, that is no host name or address with or without a port.
    #[error("the host is malformed")]
    Host,
    /// An authority in the target that is not the Host.
    #[error("the target's authority differs from Host")]
    OtherAuthority,
    /// A target in none of the forms that the method allows, or with an octet that none may hold.
    #[error("the target is malformed")]
    Target,
    /// An escape in the path that is no `%` and two hexadecimal digits.
    #[error("an escape in the path is malformed")]
    Escape,
    /// An escaped slash, backslash or NUL in the path, a backslash, or any of these escaped twice.
    #[error("the path hides a slash, a backslash, a dot or NUL")]
    HiddenOctet,
    /// Dot segments that lead above the root, or with parameters.
    #[error("the path's dot segments lead nowhere")]
    DotSegment,
    /// Several Content-Length fields, or a list in one.
    #[error("there are several Content-Length fields")]
    RepeatedContentLength,
    /// A Content-Length that is no number.
    #[error("Content-Length is no number")]
    ContentLength,
    /// Content-Length beside Transfer-Encoding.
    #[error("there are both Content-Length and Transfer-Encoding")]
    TwoLengths,
    /// A Transfer-Encoding that is not exactly `chunked`, once, in HTTP/1.1.
    #[error("Transfer-Encoding is not exactly one \"chunked\" of HTTP/1.1")]
    TransferEncoding,
    /// A Connection field that is no list of tokens, or names a field that was judged.
    #[error("Connection names a field that is for the server")]
    ConnectionOption,
    /// A body where there may be none (CONNECT).
    #[error("CONNECT has no body")]
    Body,
}

impl From<httparse::Error> for HeadError {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::HeaderName => Self::FieldName,
            httparse::Error::HeaderValue => Self::FieldValue,
            httparse::Error::NewLine => Self::BareLineEnd,
            httparse::Error::TooManyHeaders => Self::TooManyFields,
            httparse::Error::Version => Self::Version,
            httparse::Error::Status | httparse::Error::Token => Self::StartLine,
        }
    }
}
