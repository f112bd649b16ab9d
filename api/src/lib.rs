//! The local API of the agent: its typed answers and its client.
//!
//! The agent serves JSON over HTTP on a Unix socket in its run directory that only root can open.
//! `-o json` of a verb prints the same types.

pub mod client;
mod error_chain;
#[cfg(feature = "examples")]
pub mod examples;
pub mod explain;
pub mod names;
pub mod records;
pub mod status;

pub use client::{ApiClient, ClientError, SOCKET, ask};
pub use error_chain::error_chain;
pub use explain::{AddressAnswer, ExplainAnswer, ExplainQuestion, ExplainVerdict, LookupAnswer};
pub use names::NameRow;
pub use records::{RecordRow, Records, RecordsSummary, WithheldRow};
pub use status::{AgentStatus, EndpointRow, RepairStatus, ReportRow, SourceStatus, SupervisorStatus};
