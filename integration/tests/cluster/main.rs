//! The agent on a node of a cluster: a real API server, the agent's own ServiceAccount, and pods
//! that are Pods. Skipped where Go is missing. Needs root.

// Clippy's exceptions for tests do not reach the functions that they share.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod burst;
mod changes;
mod cuts;
mod forgotten;
mod mesh;
mod new_pods;
mod outages;
mod statuses;

use std::net::IpAddr;

use namegate_integration::{ScenarioBuilder, ip};

const ALLOWED: &str = "a.example";
const RECORDS: [&str; 2] = ["a.example 60 A 198.51.100.1", "b.example 60 A 198.51.100.2"];

/// Three pods, one resolver, the binary built from this workspace.
fn plan() -> ScenarioBuilder {
    ScenarioBuilder::new(env!("CARGO_BIN_EXE_namegate-under-test"))
        .pods(3)
        .records(&RECORDS)
}

/// What no policy lets pod 0 reach.
fn denied() -> IpAddr {
    ip("198.51.100.99")
}
