//! What is to stand in a policy's status.
//!
//! - `Valid`: whether it was understood. Every agent of one version comes to the same result.
//! - `Programmed`: whether it is in force. True as long as no node says otherwise: nodes report
//!   failures only.
//! - `NODE.namegate.io/Programmed`, False: that node says otherwise. The first few who fail say so;
//!   their number is what `Programmed` is about then.

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;
use policy::{Diagnostic, Severity, validate};
use serde_json::{Value, json};

use crate::kubernetes::watch_cache::ObservedPolicy;
use crate::report::ReportState;

/// The condition that says whether a policy was understood.
pub const VALID: &str = "Valid";
/// The condition that says whether it is in force.
pub const PROGRAMMED: &str = "Programmed";
/// What a node's own condition ends with.
const OF_NODE: &str = ".namegate.io/Programmed";
/// How many nodes say of a policy that it is not in force: enough to start looking, and far from a
/// storm of writes.
pub const NODES_TOLD: usize = 4;
/// Of a message; the API allows 32,768 bytes.
const LONGEST: usize = 30_000;

/// What a version of a policy has come to on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeOutcome {
    /// It is not known yet.
    Pending,
    /// It is in the kernel.
    InForce,
    /// It is not, and why.
    Failed(String),
}

/// A condition, without the time of its last transition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Its type.
    pub kind: String,
    /// True or False.
    pub holds: bool,
    /// One word, stable.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// The version that it is about.
    pub generation: i64,
}

/// Whether the policy was understood.
pub fn valid(policy: &ObservedPolicy) -> Condition {
    let (holds, reason, summary) = match policy.state {
        ReportState::Accepted => (true, "Accepted", ""),
        ReportState::Partial => (
            true,
            "PartlyEnforced",
            "parts of it are not enforced, and open nothing: ",
        ),
        ReportState::KeptLastGood => (false, "Refused", "its last good version stays in force: "),
        ReportState::Rejected => (false, "Refused", ""),
    };
    let least = match holds {
        true => Severity::Unenforced,
        false => Severity::Error,
    };
    // Warnings are of interest where nothing worse is.
    let least = if policy.state == ReportState::Accepted {
        Severity::Warning
    } else {
        least
    };
    // What stands in for a refused policy is said as a warning.
    let least = if policy.state == ReportState::Rejected {
        Severity::Warning
    } else {
        least
    };
    let findings = policy
        .diagnostics
        .iter()
        .filter(|it| it.severity >= least)
        .map(sentence);
    let mut message = findings.fold(summary.to_owned(), |mut message, finding| {
        if !message.is_empty() && !message.ends_with(": ") {
            message.push_str("; ");
        }
        message.push_str(&finding);
        message
    });
    if message.is_empty() {
        message.push_str("every part of it was understood");
    }
    Condition {
        kind: VALID.into(),
        holds,
        reason,
        message: shortened(message),
        generation: policy.version.generation,
    }
}

/// Whether the policy is somebody else's to enforce.
pub fn is_ignored(policy: &ObservedPolicy) -> bool {
    policy
        .diagnostics
        .iter()
        .any(|finding| finding.code == validate::IGNORED)
}

/// Whether the policy is in force, as far as this agent can tell; `None`: it cannot.
///
/// What stands in the status decides, and not what this node knows besides: agents that disagreed
/// would write against each other for ever.
pub fn programmed(policy: &ObservedPolicy, nodes: &BTreeSet<String>, here: &NodeOutcome) -> Option<Condition> {
    let condition = |holds, reason, message| {
        Some(Condition {
            kind: PROGRAMMED.into(),
            holds,
            reason,
            message,
            generation: policy.version.generation,
        })
    };
    if is_ignored(policy) {
        let said = "it says itself that it is not for this agent (`namegate.io/mode: ignore`)";
        return condition(false, "Ignored", said.into());
    }
    match policy.state {
        ReportState::KeptLastGood => {
            return condition(
                false,
                "LastGoodInForce",
                "an earlier version of it is in force, since this one is refused".into(),
            );
        }
        ReportState::Rejected => {
            return condition(
                false,
                "Refused",
                "it is refused: what it was meant to allow is not allowed".into(),
            );
        }
        ReportState::Accepted | ReportState::Partial => {}
    }
    let failed: BTreeSet<&str> = failed_nodes(policy).filter(|name| nodes.contains(*name)).collect();
    if !failed.is_empty() {
        let listed: Vec<&str> = failed.iter().copied().take(NODES_TOLD).collect();
        let more = if failed.len() >= NODES_TOLD {
            ", and perhaps more"
        } else {
            ""
        };
        return condition(
            false,
            "FailedOnNodes",
            format!("not in force on {}{more}", listed.join(", ")),
        );
    }
    match here {
        NodeOutcome::InForce => condition(true, "Programmed", "no node reports a failure".into()),
        _ => None,
    }
}

/// What this node says of itself; `None`: nothing bad.
pub fn of_node(policy: &ObservedPolicy, node: &str, here: &NodeOutcome) -> Option<Condition> {
    let NodeOutcome::Failed(reason) = here else { return None };
    Some(Condition {
        kind: own(node),
        holds: false,
        reason: "InstallFailed",
        message: shortened(reason.clone()),
        generation: policy.version.generation,
    })
}

/// The type of a node's own condition.
pub fn own(node: &str) -> String {
    format!("{node}{OF_NODE}")
}

/// The nodes that say of this version that it is not in force there.
pub fn failed_nodes(policy: &ObservedPolicy) -> impl Iterator<Item = &str> {
    let generation = policy.version.generation;
    let current = move |condition: &&Value| {
        condition["observedGeneration"]
            .as_i64()
            .is_none_or(|it| it == generation)
    };
    let conditions = policy.version.conditions.iter().filter(current);
    conditions.filter_map(|condition| condition["type"].as_str()?.strip_suffix(OF_NODE))
}

impl Condition {
    /// Whether it stands there already.
    pub fn stands_in(&self, conditions: &[Value]) -> bool {
        find(conditions, &self.kind).is_some_and(|known| {
            // The schema of another project's definition may have no place for the generation.
            let generation = known["observedGeneration"].as_i64();
            known["status"] == self.status()
                && known["reason"] == self.reason
                && known["message"] == self.message
                && generation.is_none_or(|it| it == self.generation)
        })
    }

    /// Puts it in its place among `conditions`.
    pub fn write(&self, conditions: &mut Vec<Value>, now: Timestamp) {
        let known = find(conditions, &self.kind);
        let since = known
            .filter(|known| known["status"] == self.status())
            .map(|known| known["lastTransitionTime"].clone());
        let since = since
            .filter(Value::is_string)
            .unwrap_or_else(|| format!("{now:.0}").into());
        let condition = json!({
            "type": self.kind,
            "status": self.status(),
            "reason": self.reason,
            "message": self.message,
            "observedGeneration": self.generation,
            "lastTransitionTime": since,
        });
        match conditions.iter_mut().find(|it| it["type"] == self.kind.as_str()) {
            Some(known) => *known = condition,
            None => conditions.push(condition),
        }
    }

    fn status(&self) -> &'static str {
        if self.holds { "True" } else { "False" }
    }
}

fn find<'c>(conditions: &'c [Value], kind: &str) -> Option<&'c Value> {
    conditions.iter().find(|condition| condition["type"] == kind)
}

fn sentence(finding: &Diagnostic) -> String {
    let mut text = String::new();
    if !finding.path.is_empty() {
        text.push_str(&finding.path);
        text.push_str(": ");
    }
    text.push_str(&finding.reason);
    if let Some(suggestion) = &finding.suggestion {
        text.push_str(&format!(" ({suggestion})"));
    }
    text
}

/// Cut to what the API takes, between two characters.
fn shortened(text: String) -> String {
    cut(text, LONGEST)
}

/// At most so many bytes, and a mark where there were more.
pub(super) fn cut(mut text: String, longest: usize) -> String {
    if text.len() > longest {
        let end = (0..=longest).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use crate::kubernetes::wire::ObjectVersion;

    use super::*;

    /// A policy of generation 3 with nothing in its status.
    pub(crate) fn policy(state: ReportState) -> ObservedPolicy {
        ObservedPolicy {
            version: ObjectVersion {
                uid: "u".into(),
                generation: 3,
                resource_version: "7".into(),
                conditions: Vec::new(),
            },
            state,
            diagnostics: Vec::new(),
            update: 1,
        }
    }

    fn nodes(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_error_is_in_the_message() {
        let mut policy = policy(ReportState::Rejected);
        let finding = |path: &str, reason: &str| Diagnostic {
            severity: Severity::Error,
            code: "bad",
            path: path.into(),
            position: None,
            reason: reason.into(),
            suggestion: None,
        };
        policy.diagnostics = vec![finding("spec.a", "one"), finding("spec.b", "two")];
        let condition = valid(&policy);
        assert!(!condition.holds);
        assert_eq!(condition.message, "spec.a: one; spec.b: two");
        policy.diagnostics = vec![finding("spec.a", &"é".repeat(LONGEST))];
        assert!(valid(&policy).message.len() < 32_768);
    }

    #[test]
    fn a_policy_is_programmed_until_a_node_that_exists_says_otherwise() {
        let mut policy = policy(ReportState::Accepted);
        let nodes = nodes(&["a", "b"]);
        let summary = |policy: &_, here: &NodeOutcome| programmed(policy, &nodes, here);
        assert_eq!(summary(&policy, &NodeOutcome::Pending), None);
        assert!(summary(&policy, &NodeOutcome::InForce).unwrap().holds);
        let mut failure = of_node(&policy, "b", &NodeOutcome::Failed("no memory".into())).unwrap();
        failure.write(&mut policy.version.conditions, Timestamp::UNIX_EPOCH);
        let condition = summary(&policy, &NodeOutcome::InForce).unwrap();
        assert!(!condition.holds);
        assert_eq!(condition.message, "not in force on b");
        // Of an earlier version, and of a node that is gone.
        policy.version.conditions.clear();
        failure.generation = 2;
        failure.write(&mut policy.version.conditions, Timestamp::UNIX_EPOCH);
        failure.kind = own("gone");
        failure.generation = 3;
        failure.write(&mut policy.version.conditions, Timestamp::UNIX_EPOCH);
        assert!(summary(&policy, &NodeOutcome::InForce).unwrap().holds);
    }

    #[test]
    fn the_time_of_a_transition_stays_while_the_status_does() {
        let mut condition = valid(&policy(ReportState::Accepted));
        let mut conditions = vec![json!({"type": "Other", "status": "True"})];
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        condition.write(&mut conditions, at(10));
        assert!(condition.stands_in(&conditions));
        let first = conditions[1]["lastTransitionTime"].clone();
        assert_eq!(first, "1970-01-01T00:00:10Z");
        condition.message = "other".into();
        assert!(!condition.stands_in(&conditions));
        condition.write(&mut conditions, at(20));
        assert_eq!(conditions[1]["lastTransitionTime"], first);
        condition.holds = false;
        condition.write(&mut conditions, at(30));
        assert_eq!(conditions[1]["lastTransitionTime"], "1970-01-01T00:00:30Z");
        assert_eq!(conditions.len(), 2);
    }
}
