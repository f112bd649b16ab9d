//! The DNS side: sockets, the lookup pipeline, upstreams.
//!
//! The way of one lookup, stage by stage: parse → identify → decide → forward → validate → learn →
//! commit → release. Only *forward* and *commit* wait. What decides and what commits is not known here: it is
//! asked through [`Gate`], which the agent implements.
//!
//! - [`gate`]: the border to the rest of the agent.
//! - `message`: reading queries, making refusals, truncating answers.
//! - `validate`: does this answer belong to that question, and which addresses does it teach?
//! - `pipeline`: one lookup from bytes to bytes.
//! - `upstream`: asking a resolver over UDP and TCP.
//! - [`server`]: the sockets that pods' lookups arrive on.

pub mod gate;
pub mod server;

pub use gate::{Asked, Denial, Event, Gate, Identity, Lesson, NotAdmitted, Question, Screening};
pub use server::{Listener, ListenerKind, Server, ServerConfig, ServerError};
