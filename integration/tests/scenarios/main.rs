//! End-to-end scenarios. One binary, because linking costs more than running. Needs root.

// Clippy's exception for tests does not reach the functions that they share.
#![allow(clippy::unwrap_used)]

mod arrivals;
mod cache;
mod clusters;
mod commissioned;
mod companions;
mod confined;
mod crashes;
mod damage;
mod failures;
mod families;
mod foreign;
mod hubble;
mod ingress;
mod inspected_services;
mod inspected_upgrades;
mod inspection;
mod kernel;
mod lifecycle;
mod log;
mod lookups;
mod networks;
mod observe;
mod pages;
mod peers;
mod policies;
mod quiet;
mod records;
mod retries;
mod revocation;
mod services;
mod strangers;
mod transitions;
mod upgrades;

use namegate_integration::ScenarioBuilder;

/// The usual beginning: two pods, one resolver, the binary built from this workspace.
fn plan() -> ScenarioBuilder {
    ScenarioBuilder::new(env!("CARGO_BIN_EXE_namegate-under-test"))
}
