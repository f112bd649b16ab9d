//! Policies as people write them, of all kinds, and the verdicts that the kinds' own documentation
//! gives them. What can be said as YAML with a table of verdicts stands in `policy/tests/cases`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod cases;
mod cluster_network_policy;
mod meeting;
mod network_policy;
mod world;
