//! The DNS side: sockets, the lookup pipeline, upstreams.
//!
//! The way of one lookup, stage by stage: parse → identify → decide → forward → validate → learn →
//! commit → release. Only *forward* and *commit* wait. What decides and what commits is not known here: it is
//! asked through [`Gate`], which the agent implements.
//!
//! - [`gate`]: the border to the rest of the agent.
//! - `pipeline`: one lookup from bytes to bytes.
//! - `message`: reading queries, out of what `wire` sees in a packet.
//! - `upstream`: asking resolvers over UDP and TCP.
//! - `validate`: which addresses does an answer teach, and may it be believed?
//! - `reply`: refusals and errors of our own, and the one way to release an answer.
//! - [`server`]: the sockets that pods' lookups arrive on.

mod frame;
pub mod gate;
mod message;
mod pipeline;
mod reply;
pub mod server;
mod upstream;
mod validate;
mod wire;

#[cfg(test)]
#[path = "../tests/packets/mod.rs"]
mod packets;

pub use gate::{
    Asked, Denial, Discard, Event, Gate, Identity, Lesson, NotAdmitted, Question, Rcode, Screening, Transport,
    UpstreamOutcome,
};
pub use server::{Listener, ListenerKind, Server, ServerConfig, ServerError};
