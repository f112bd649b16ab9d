//! What the proxy answers itself.

use crate::refusal::Refusal;

/// An answer of the proxy's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnReply {
    Denied,
    Misdirected,
    BadRequest,
    RequestTimeout,
    HeadTooLong,
    VersionNotSupported,
    BadGateway,
    GatewayTimeout,
}

impl OwnReply {
    /// To a request that the judge refuses.
    pub(super) fn to(refusal: Refusal) -> Self {
        match refusal {
            Refusal::OtherHost => Self::Misdirected,
            _ => Self::Denied,
        }
    }

    /// Status with reason, and text.
    fn parts(self) -> (&'static str, &'static str) {
        match self {
            Self::Denied => ("403 Forbidden", "Access denied"),
            Self::Misdirected => (
                "421 Misdirected Request",
                "The request is for another host than the connection",
            ),
            Self::BadRequest => ("400 Bad Request", "The request is malformed"),
            Self::RequestTimeout => ("408 Request Timeout", "The request did not come in time"),
            Self::HeadTooLong => (
                "431 Request Header Fields Too Large",
                "The head of the request is too long, or has more than 100 fields",
            ),
            Self::VersionNotSupported => ("505 HTTP Version Not Supported", "HTTP/1.1 is spoken here"),
            Self::BadGateway => (
                "502 Bad Gateway",
                "The server cannot be reached, or its answer is malformed",
            ),
            Self::GatewayTimeout => (
                "504 Gateway Timeout",
                "The server did not accept the connection in time",
            ),
        }
    }

    /// The status code.
    pub(super) fn status(self) -> u16 {
        let (status, _) = self.parts();
        status
            .split(' ')
            .next()
            .and_then(|code| code.parse().ok())
            .unwrap_or(500)
    }

    /// What it says, in words for people.
    pub(super) fn text(self) -> &'static str {
        self.parts().1
    }

    /// The response in HTTP/1.1. `is_head` leaves the body out, `closes` announces the end of the
    /// connection.
    pub(super) fn write(self, is_head: bool, closes: bool) -> Vec<u8> {
        let (status, text) = self.parts();
        let connection = if closes { "Connection: close\r\n" } else { "" };
        let length = text.len() + 2;
        let mut reply =
            format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n{connection}\r\n");
        if !is_head {
            reply.push_str(text);
            reply.push_str("\r\n");
        }
        reply.into_bytes()
    }
}
