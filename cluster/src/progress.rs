//! How far the agent is with what a source told it.

use std::sync::Arc;

use crate::index::mesh::OtherClusterFigures;
use crate::report::ReadReport;

/// What is in force of a source's updates. The agent writes it, and the writer of statuses and the
/// local API read it.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// The reports of the last update.
    pub reports: Arc<[ReadReport]>,
    /// What is known of other clusters.
    pub others: Vec<OtherClusterFigures>,
    /// Whether a ruleset of this process is in the kernel and all its listeners are bound.
    pub in_force: bool,
    /// Why the newest plan is not in force.
    pub failure: Option<String>,
    /// What somebody else has changed of what is in force, as long as it is not repaired.
    pub damage: Option<String>,
    /// What was repaired last, for people, and how many repairs there were.
    pub repair: Option<(String, u64)>,
    /// How many of the source's updates are in force, the first ones.
    pub updates_in_force: u64,
}
