//! The policy for what a Pod was seen to do: `GET /v1/suggestion`.

use serde::{Deserialize, Serialize};

/// For which Pod, and of what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SuggestionQuestion {
    /// The Pod, as `NAMESPACE/NAME`.
    pub pod: String,
    /// Only of what is not older than this, in milliseconds.
    pub since_ms: Option<u64>,
    /// `audited`, `refused` or `all`.
    pub from: String,
    /// So many names below one parent become a pattern.
    pub generalize: Option<usize>,
}

/// A policy, with what is to be known of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuggestionAnswer {
    /// The policy, as the text of a file.
    pub policy: String,
    /// Of how many events it is made.
    pub events: u64,
    /// What of them stays refused with it in force, because a denial or a tier before refuses it.
    pub not_allowed: Vec<String>,
    /// So many events of the node are forgotten, or were not recorded.
    pub lost: u64,
}
