//! What refused a packet, in a person's words.

use enforcer::records::Record;
use policy::Name;

use crate::plan::Plan;

/// What decided about a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribution {
    /// The policy, or several.
    pub policy: String,
    /// The rule of it, where one decided; a packet that no rule allows has none.
    pub rule: Option<String>,
}

/// The policies that select the sender: together they are why it may reach only what they allow.
pub fn by_selection(plan: &Plan, record: &Record, _name: Option<&Name>) -> Option<Attribution> {
    let row = plan
        .endpoints
        .iter()
        .find(|row| row.addresses.contains(&record.source))?;
    (!row.policies.is_empty()).then(|| Attribution {
        policy: row.policies.join(","),
        rule: None,
    })
}
