//! A crash is not an outage: a process that keeps the agent's sockets open while the agent itself
//! is started again.
//!
//! `namegate agent --supervise` is two processes. The *supervisor* is the one that was started. It
//! runs the *worker*, which is the agent, from the same binary, and does four things: it holds a
//! duplicate of every socket that the worker listens on; it starts a worker again when one dies,
//! and hands the sockets back; it passes signals on; it reaps what is left without a parent. What
//! arrives meanwhile waits in the queues of the sockets, and the next worker answers it. It has no
//! policy, no network of its own, one thread, and no memory that grows.
//!
//! The two speak over a socket pair, which is the worker's standard input, in the words of
//! sd_notify(3): `FDSTORE=1`, `FDSTOREREMOVE=1`, `FDNAME=…`, `READY=1` ([`message`]). Descriptors
//! are handed back in the same way.
//!
//! When the supervisor dies, the worker sees the end of the socket pair and ends in order: a
//! service manager that looks after the supervisor would start a second agent beside one that
//! nobody looks after.

mod backoff;
mod message;
mod run;
mod signals;
mod store;
mod worker;

pub mod working_set;

pub use run::{SuperviseError, supervise};
pub use worker::Supervision;

/// Says to a worker that it is one: how many descriptors are handed to it, and how many workers
/// died before it, as in `12:3`.
const ENVIRONMENT: &str = "NAMEGATE_SUPERVISED";
