//! The writer against a real kernel, each test in a network namespace that it makes for itself.
#![allow(clippy::unwrap_used)]

mod admission;
mod damage;
mod dispatch;
mod installation;
mod life;
mod members;
mod namespace;
mod programs;
mod readers;
mod sweep;
