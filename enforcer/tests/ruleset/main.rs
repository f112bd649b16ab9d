//! The ruleset in a real kernel, with real packets, in network namespaces that each test makes for
//! itself.

#![allow(
    clippy::unwrap_used,
    reason = "clippy exempts functions marked as tests, and not what they call"
)]

mod classes;
mod document;
mod egress;
mod handover;
mod ingress;
mod interception;
mod lab;
mod listing;
mod model;
mod programs;
mod related;
mod revocation;
mod routing;
mod strangers;
