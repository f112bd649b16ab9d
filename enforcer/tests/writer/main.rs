//! The writer against a real kernel, each test in a network namespace that it makes for itself.

mod admission;
mod installation;
mod life;
mod namespace;
mod programs;
