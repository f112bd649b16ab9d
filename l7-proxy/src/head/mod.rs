//! Heads of HTTP messages, read strictly (of HTTP/1 by RFC 9112).
//!
//! A head that two readers could take for different things is refused and never put right: most of
//! request smuggling is a proxy that is kind. `httparse` finds the tokens; what is demanded beyond
//! that is here.
//!
//! - `scan`: where a head ends. `error`: what is wrong with one.
//! - `request`, `target`, `host`, `connection_field`: a request, as it is judged and forwarded.
//! - `response`: a response, as far as its framing is concerned.
//! - `http2`: a request of HTTP/2, held against the same list.
//! - `length`: what frames a body, of both.
//! - `write`: the head that goes to the server.

mod connection_field;
pub(crate) mod error;
mod host;
pub(crate) mod http2;
pub(crate) mod length;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod scan;
mod target;
pub(crate) mod write;

/// The most fields a head may have.
pub(crate) const MOST_FIELDS: usize = 100;
