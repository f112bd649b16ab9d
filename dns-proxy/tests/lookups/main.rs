//! Whole lookups on the loopback: real sockets, a scripted resolver, and a gate that can hold, fail
//! and refuse.
#![allow(
    clippy::unwrap_used,
    reason = "these are tests, though not all of it stands in functions marked as such"
)]

mod agent;
mod cache;
mod client;
mod cookies;
mod encrypted;
mod limits;
#[path = "../packets/mod.rs"]
mod packets;
mod promise;
mod resolver;
mod single_flight;
mod tcp;
mod tproxy;
mod truncated;
mod udp;
mod upstream_cookies;
mod upstreams;
