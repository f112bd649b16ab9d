//! The L7 side: connections that the kernel hands over because a rule speaks of the TLS server name
//! or of the HTTP request in them.
//!
//! The way of one connection: accept → original destination → what is to be inspected → hello or
//! request → verdict → dial → pass on. The proxy decides nothing itself: it asks through [`Judge`],
//! which the agent implements. A byte goes to the server only against a [`Judge::Judged`], which
//! only the decision core can make.
//!
//! The border:
//! - `judge`: [`Judge`] and its verdicts. `refusal`, `edit`, `event`: what they speak of.
//! - `termination`: TLS that ends here.
//! - `limits`: how much and how long, with defaults.
//! - `config`, `server`: listeners and threads, and what they are told.
//!
//! A connection:
//! - `workers`: the threads: sockets around conversations.
//! - `conversation`: one connection as a state machine: octets and time go in, octets come out.
//! - `hello`: the ClientHello of TLS, as far as names are concerned.
//! - `head`: heads of HTTP/1 requests and responses, read strictly. `framing`: their bodies.

mod config;
mod conversation;
mod edit;
mod event;
mod framing;
mod head;
mod hello;
mod judge;
mod limits;
mod refusal;
mod server;
mod termination;
mod workers;

pub use config::{DialOptions, L7ServerConfig};
pub use conversation::{Conversation, Ending};
pub use edit::HeaderEdit;
pub use event::{DialFailure, PassageEvent};
pub use head::error::HeadError;
pub use head::request::{HttpVersion, RequestHead};
pub use hello::{ClientHello, HelloProgress, HelloReader, InvalidHello};
pub use judge::{BackendVerdict, ConnectionVerdict, DialTime, HelloVerdict, Inspection, Judge, RequestVerdict};
pub use limits::PassageLimits;
pub use refusal::{Refusal, Unreadable};
pub use server::{L7Server, L7ServerError};
pub use termination::Termination;
