//! Rules of policies, with what is known of their use.

use serde::{Deserialize, Serialize};

/// A rule of a policy in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuleRow {
    /// The policy, as `NAMESPACE/NAME` or `NAME`.
    pub policy: String,
    /// Whether the policy is in mode audit.
    pub is_audited: bool,
    /// Where in it the rule stands, as in `spec.egress[0]`.
    pub rule: String,
    /// `allow`, `deny`, `pass`.
    pub action: String,
    /// Whom it speaks of, in short.
    pub peers: String,
    /// How many remembered events it decided.
    pub hits: u64,
    /// How many names that it selects Pods were answered.
    pub names: usize,
    /// The time of the last of these events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_hit: Option<String>,
    /// Since when its use is known: the agent's start.
    pub since: String,
}

impl RuleRow {
    /// Whether nothing is known to have needed it.
    pub fn is_unused(&self) -> bool {
        self.hits == 0 && self.names == 0
    }
}
