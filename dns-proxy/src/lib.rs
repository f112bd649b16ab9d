//! The DNS side: sockets, the lookup pipeline, upstreams.
//!
//! The way of one lookup, stage by stage: receive → screen → forward → validate → admit → release.
//! Only *forward* and *admit* wait. The proxy decides and commits nothing itself: it asks through
//! [`Gate`], which the agent implements.
//!
//! The border:
//! - `gate`, `question`, `answer`, `completion`, `event`, `rcode`: [`Gate`] and what it speaks of.
//! - `config`, `listener`, `server`: settings, listeners and connections.
//!
//! A lookup:
//! - `stages`: the steps that look at bytes and ask the gate, and wait for nothing.
//! - `lookups`: lookups, as a state machine without sockets; `timer_wheel` keeps their
//!   deadlines, `single_flight` keeps one copy of a question in flight, `cache` keeps answers.
//! - `worker`: the threads that feed that state machine; everything between a packet and `lookups`.
//! - `client_quota`: how many lookups and connections one client may have.
//!
//! Messages:
//! - `client_query` reads queries. `answer_match` tells whether an answer belongs to one,
//!   `validate` which addresses it may teach. `reply` makes what clients get. All read messages by
//!   `wire_format`.
//! - `edns`, `cookie`: what is agreed with a neighbour alone.
//!
//! Upstreams:
//! - `upstream`: whom to ask, how often, over what, and what an answer is good for.
//!
//! `bench_harness` is a worker without sockets, for benchmarks.

mod answer;
mod answer_match;
#[doc(hidden)]
pub mod bench_harness;
mod cache;
mod client_query;
mod client_quota;
mod completion;
mod config;
mod cookie;
mod denial;
mod edns;
mod event;
mod gate;
mod listener;
mod lookup_key;
mod lookups;
mod question;
mod rcode;
mod reply;
mod server;
mod single_flight;
mod stages;
mod tcp_framing;
mod timer_wheel;
mod upstream;
mod validate;
mod wire_format;
mod worker;

#[cfg(test)]
#[path = "../tests/packets/mod.rs"]
mod packets;

pub use answer::{AddressTtls, ValidatedAnswer};
pub use completion::{AdmissionError, AdmissionErrorKind, Completion};
pub use config::{CacheConfig, ServerConfig};
pub use denial::{Denial, DenialKind};
pub use event::{CacheOutcome, DiscardReason, ProxyEvent, UpstreamOutcome, WithheldReason};
pub use gate::{AdmissionStatus, CommitMode, Gate, Screening};
pub use listener::{Listener, ListenerKind};
pub use question::{DnsQuestion, QueryTarget, Transport};
pub use rcode::Rcode;
pub use server::{DnsServer, MOST_WORKERS, ServerError, SocketStore};
pub use upstream::encrypted::{EncryptedProtocol, EncryptedUpstream, UnusableUpstream};
pub use validate::InvalidAnswer;
