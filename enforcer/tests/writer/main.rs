//! The writer against a real kernel, each test in a network namespace that it makes for itself.
#![allow(clippy::unwrap_used)]

mod admission;
mod installation;
mod life;
mod namespace;
mod programs;
