//! The supervisor keeps the agent's sockets open while a crashed agent is started again.
//!
//! `namegate agent --supervise` is two processes. The *supervisor* is the one that was started. It
//! runs the *worker*, which is the agent, from the same binary. The supervisor
//!
//! - holds a duplicate of every socket that the worker listens on;
//! - starts a new worker when one dies, and hands the sockets to it;
//! - starts a new worker when one ends because its configuration has changed;
//! - forwards signals to the worker;
//! - tells the service manager when a worker is ready;
//! - reaps processes that have lost their parent.
//!
//! Lookups that arrive while no worker runs wait in the queues of the sockets, and the next worker
//! answers them. The supervisor has no policy, no network of its own, one thread, and bounded
//! memory.
//!
//! The two talk over a socket pair, which is the worker's standard input. The messages are those of
//! sd_notify(3): `FDSTORE=1`, `FDSTOREREMOVE=1`, `FDNAME=…`, `READY=1`, `RELOADING=1`
//! ([`message`]). The supervisor hands descriptors over in the same form.
//!
//! When the supervisor dies, the worker sees the end of the socket pair and shuts down. Otherwise a
//! service manager that restarts the supervisor would start a second agent beside the first.

mod descriptor_store;
mod message;
mod restart_backoff;
mod run;
mod signals;
mod worker;

pub mod service_manager;
pub mod trim_memory;

pub use run::{SuperviseError, supervise};
pub use worker::Supervision;

/// The environment variable that makes a process a worker: how many descriptors it is handed, and
/// how many workers have died before it, as in `12:3`.
const ENVIRONMENT: &str = "NAMEGATE_SUPERVISED";
