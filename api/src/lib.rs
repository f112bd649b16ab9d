//! The local API of the agent: its typed answers and its client.
//!
//! The agent serves JSON over HTTP on a Unix socket in its run directory that only root can open.
//! `-o json` of a verb prints the same types. So their fields are a public interface: a new one
//! needs `#[serde(default)]`, because client and agent may be of different versions.
//!
//! - [`client`]: asks a running agent.
//! - [`status`], [`names`], [`records`], [`explain`], [`events`], [`suggestion`]: the answers, one
//!   module for each path.
//! - [`error_chain`](error_chain()): an error with its causes in one line.
//! - [`rules`]: rules with what is known of their use. `event_text`: events as people read them.
//! - `examples` (feature): one of each answer, for tests.

pub mod client;
mod error_chain;
mod event_text;
pub mod events;
#[cfg(feature = "examples")]
pub mod examples;
pub mod explain;
pub mod names;
pub mod records;
pub mod rules;
pub mod status;
pub mod suggestion;

pub use client::{ApiClient, ClientError, SOCKET, ask};
pub use error_chain::error_chain;
pub use events::{EventEndRow, EventQuery, EventRow, FlowNatRow, FlowTotalsRow, LookupAnswerRow, RequestRow};
pub use explain::{
    AddressAnswer, DirectionAnswer, ExplainAnswer, ExplainQuestion, ExplainVerdict, FlowAnswer, FlowFate, LookupAnswer,
    TrafficDirection,
};
pub use names::{AnsweredNameRow, NameRow};
pub use records::{RecordRow, Records, RecordsSummary, RefusedLookupRow, Sightings, WithheldRow};
pub use rules::RuleRow;
pub use status::{
    AgentStatus, EndpointRow, OtherClusterStatus, RepairStatus, ReportRow, SourceStatus, SupervisorStatus,
};
pub use suggestion::{SuggestionAnswer, SuggestionQuestion};
