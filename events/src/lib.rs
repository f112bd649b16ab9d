//! What happened on this node: one stream, many views of it.
//!
//! Whoever decides something records an [`Event`] in the [`EventLog`]; whoever shows something
//! reads from it. Nobody waits for a reader: what a reader has not read when it is overwritten is
//! lost, and the reader is told how much that was. Memory is bounded, and shared fairly: a source
//! that floods drives out its own events and those of no other ([`EventRing`]).
//!
//! - [`event`]: what an event says.
//! - [`ring`]: which events are remembered, and which are lost.
//! - [`log`]: the ring that writers and readers share.
//! - [`filter`]: which events somebody wants to see.
//! - [`account`]: what somebody did, out of events; [`learned_policy`]: the policy that would have
//!   been enough for it.

pub mod account;
pub mod event;
pub mod filter;
pub mod learned_policy;
pub mod log;
pub mod ring;
mod sampler;

pub use event::{
    AgentEvent, Event, EventDetail, EventEnd, EventKind, EventVerdict, FlowEvent, FlowNat, FlowTotals, LookupEvent,
    PolicyChange, PolicyNews, RequestEvent,
};
pub use filter::EventFilter;
pub use log::{EventBatch, EventLog, EventReader, RecordedTotals};
pub use ring::{EventRing, EventSource, RingLimits};
pub use sampler::SamplingRate;
