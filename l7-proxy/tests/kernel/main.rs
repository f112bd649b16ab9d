//! Real sockets, a real kernel and real clients around the proxy.

#![allow(
    clippy::unwrap_used,
    reason = "clippy exempts functions marked as tests, and not what they call"
)]

mod http;
mod http2;
mod lab;
mod opaque;
mod rules;
mod tls;
