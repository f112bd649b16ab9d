//! Whole lookups on the loopback: real sockets, a scripted resolver, and a gate that can hold, fail and refuse.

mod agent;
mod client;
mod limits;
#[path = "../packets/mod.rs"]
mod packets;
mod promise;
mod resolver;
mod tcp;
mod tproxy;
mod udp;
mod upstreams;
