//! Heads of HTTP/1 messages.

pub(crate) mod request;
