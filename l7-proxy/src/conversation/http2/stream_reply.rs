//! The proxy's own answers on a stream, in the form that its client reads.

use bytes::Bytes;
use h2::server::SendResponse;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};

use crate::conversation::reply::OwnReply;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// What an answer of the proxy's own looks like on one stream.
#[derive(Debug, Clone)]
pub(super) enum StreamReply {
    /// A status of HTTP, with a text.
    Text,
    /// The answer to HEAD has no body.
    Head,
    /// A status of gRPC, in a response that is trailers alone. It has the request's content type.
    Grpc(HeaderValue),
}

impl StreamReply {
    pub(super) fn to(method: &Method, fields: &HeaderMap) -> Self {
        match fields.get(CONTENT_TYPE) {
            Some(kind) if is_grpc(kind.as_bytes()) => Self::Grpc(kind.clone()),
            _ if method == Method::HEAD => Self::Head,
            _ => Self::Text,
        }
    }

    /// Answers. What the client still sends of its request is refused.
    pub(super) fn send(&self, reply: OwnReply, mut respond: SendResponse<Bytes>) {
        let mut response = Response::new(());
        let fields = response.headers_mut();
        let text = match self {
            Self::Grpc(kind) => {
                fields.insert(CONTENT_TYPE, kind.clone());
                fields.insert(GRPC_STATUS, HeaderValue::from_static(grpc_status(reply)));
                fields.insert(GRPC_MESSAGE, HeaderValue::from_static(reply.text()));
                None
            }
            Self::Text | Self::Head => {
                let text = Bytes::from(format!("{}\r\n", reply.text()));
                fields.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
                fields.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
                *response.status_mut() = StatusCode::from_u16(reply.status()).unwrap_or(StatusCode::FORBIDDEN);
                matches!(self, Self::Text).then_some(text)
            }
        };
        // A client that has reset the stream wants no answer.
        if let Ok(mut body) = respond.send_response(response, text.is_none())
            && let Some(text) = text
        {
            let _ = body.send_data(text, true);
        }
    }
}

/// gRPC, but not gRPC-Web, which has its status in the body.
fn is_grpc(content_type: &[u8]) -> bool {
    matches!(
        content_type.strip_prefix(b"application/grpc"),
        Some([] | [b'+' | b';', ..])
    )
}

/// The status that a client of gRPC is to see (`PERMISSION_DENIED`, `UNAVAILABLE`, `INTERNAL`).
fn grpc_status(reply: OwnReply) -> &'static str {
    match reply {
        OwnReply::Denied | OwnReply::Misdirected => "7",
        OwnReply::BadGateway | OwnReply::GatewayTimeout => "14",
        OwnReply::BadRequest | OwnReply::RequestTimeout | OwnReply::HeadTooLong | OwnReply::VersionNotSupported => "13",
    }
}
