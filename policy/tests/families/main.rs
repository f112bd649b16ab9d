//! Policies as people write them, of all kinds, and the verdicts that the kinds' own documentation
//! gives them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod cluster_network_policy;
mod meeting;
mod network_policy;
mod world;
