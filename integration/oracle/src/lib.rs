//! What policies mean, told a second time.
//!
//! The compiled program and the kernel are quick and clever; this crate is slow and obvious. It
//! reads the objects as they are written and follows the documentation of their kinds sentence by
//! sentence (docs/policies.md). Tests hold the three against each other. So that a misunderstanding
//! cannot hide in code that both sides use, nothing of `policy` is used here.
//!
//! - [`world`]: the objects, and which names resolve to what.
//! - [`probe`]: a packet.
//! - [`Oracle`]: what becomes of it.
//! - [`generate`]: worlds and probes, out of few words, so that rules overlap.

pub mod generate;
pub mod probe;
pub mod world;

mod announced;
mod cilium;
mod cluster_network_policy;
mod decide;
mod flow;
mod json;
mod labels;
mod names;
mod network_policy;
mod refused;
mod verdict;

pub use announced::Announced;
pub use decide::{Oracle, Policies};
pub use flow::Direction;
pub use probe::{Probe, Protocol, Sender, Traffic};
pub use refused::is_refused;
pub use verdict::Verdict;
pub use world::World;
