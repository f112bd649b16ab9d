//! The DNS side: sockets, the lookup pipeline, upstreams.
//!
//! The way of one lookup, stage by stage: receive → screen → forward → validate → admit → release.
//! Only *forward* and *admit* wait. What decides and what commits is not known here: it is asked
//! through [`Gate`], which the agent implements.
//!
//! - [`gate`]: the border to the rest of the agent; `completion`: how it says later what came of an
//!   admission.
//! - `stages`: the steps that look at bytes and ask the gate, and wait for nothing.
//! - `lookups`: the story of a datagram, as a state machine without sockets; `timer_wheel` keeps
//!   its deadlines.
//! - `cache`: answers kept, if that is wanted.
//! - `single_flight`: one copy of a question in flight, of all workers.
//! - `worker`: the threads that feed it; everything between a packet and `lookups`.
//! - `tcp_lookups`: the same story for a query that came by TCP, as a task.
//! - `message`: reading queries, out of what `wire` sees in a packet.
//! - `cookie`: DNS cookies, which are between us and the client, or us and the upstream.
//! - `upstream`: whom to ask, how often, what it understands, and what an answer is good for;
//!   `edns`: what is agreed with it alone.
//! - `validate`: which addresses does an answer teach, and may it be believed?
//! - `reply`: refusals and errors of our own, and the one way to release an answer.
//! - `bench_harness`: a worker without sockets, to be measured.
//! - [`server`]: listeners, limits, and connections.

mod answer;
#[doc(hidden)]
pub mod bench_harness;
mod cache;
mod client_quota;
mod completion;
mod config;
mod cookie;
mod edns;
mod event;
mod frame;
mod gate;
mod listener;
mod lookup_key;
mod lookups;
mod message;
mod question;
mod rcode;
mod reply;
mod server;
mod single_flight;
mod stages;
mod tcp_lookups;
mod timer_wheel;
mod upstream;
mod validate;
mod wire;
mod worker;

#[cfg(test)]
#[path = "../tests/packets/mod.rs"]
mod packets;

pub use answer::{AddressTtls, ValidatedAnswer};
pub use completion::{AdmissionError, AdmissionErrorKind, Completion};
pub use config::{CacheConfig, ServerConfig};
pub use event::{CacheOutcome, DiscardReason, ProxyEvent, UpstreamOutcome, WithheldReason};
pub use gate::{AdmissionStatus, CommitMode, Denial, Gate, Screening};
pub use listener::{Listener, ListenerKind};
pub use question::{DnsQuestion, QueryTarget, Transport};
pub use rcode::Rcode;
pub use server::{DnsServer, ServerError, SocketStore};
pub use upstream::encrypted::{EncryptedProtocol, EncryptedUpstream, UnusableUpstream};
pub use validate::InvalidAnswer;
