//! Where Kubernetes objects come from, what they add up to, and what is written back into them.
//!
//! Every source feeds the same loop with the same [`Update`]s, so that a directory of files is a
//! cluster too. This is the only crate that talks to an API server.
//!
//! - [`object`], [`report`], [`source`], [`progress`]: what sources send, what the agent
//!   answers.
//! - [`slim`]: objects of Kubernetes with the fields alone that are read.
//! - [`reading`]: one document → one object, or why not.
//! - [`directory`]: the source that reads files: [`tree`], `file_stamp`, `inotify`; [`catalogue`]
//!   keeps what they say over time and the last good versions (pure), `last_good_snapshot` keeps
//!   the latter on disk.
//! - `log_dedup`: findings are logged once for as long as they hold.
//! - [`mesh`]: the source that adds other clusters to one of these.
//! - [`kubernetes`]: the source that watches the API server of a cluster.
//! - [`index`]: all objects, indexed by what is asked about them. Pure.
//! - [`status`]: conditions and Events, written into policies.
//! - [`readiness`]: descriptors that the runtime waits for.
//! - [`taint`]: what holds Pods back from a node until its agent is ready.

pub mod catalogue;
pub mod check;
pub mod directory;
pub mod index;
pub mod kubernetes;
pub mod mesh;
pub mod object;
pub mod progress;
pub mod readiness;
pub mod reading;
pub mod report;
pub mod slim;
pub mod source;
pub mod status;
pub mod taint;
pub mod tree;

mod file_stamp;
mod inotify;
mod kept_object;
mod last_good_snapshot;
mod log_dedup;
mod object_set;

pub use index::Cluster;
pub use kept_object::KeptObject;
pub use object::{Object, ObjectChange, ObjectKey, Update};
pub use progress::Progress;
pub use report::{ReadReport, ReportState};
pub use source::{ObjectSource, SourceHandles};
