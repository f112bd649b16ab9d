//! Which rules of the policies in force somebody has needed. Pure.
//!
//! The kernel does not count by rule. What is known: the names that Pods were answered since the
//! agent started, and the events that it remembers.

use api::{AnsweredNameRow, RuleRow};
use clock::WallTime;
use events::{Event, EventBatch};
use names::Name;
use planner::Plan;
use policy::{Action, PeerSelector, Policy, PolicyRule};

use crate::records::wall_text;

/// So many peers of a rule are named.
const PEERS: usize = 6;

/// All rules, with what is known of their use since the agent `started`.
pub(crate) fn rules(
    plan: &Plan,
    answered: &[AnsweredNameRow],
    remembered: &EventBatch,
    started: WallTime,
) -> Vec<RuleRow> {
    let names: Vec<Name> = answered.iter().filter_map(|row| Name::parse(&row.name).ok()).collect();
    let since = wall_text(started);
    let of_policy = |policy: &Policy| -> Vec<RuleRow> {
        let id = policy.id.to_string();
        let deciding = remembered
            .events
            .iter()
            .filter(|(_, event)| event.policies.contains(&id));
        let deciding: Vec<&Event> = deciding.map(|(_, event)| &**event).collect();
        let rules = policy.specs.iter().flat_map(|spec| spec.rules());
        let rows = rules.map(|rule| {
            let hits = deciding
                .iter()
                .filter(|event| event.rule.as_deref().is_some_and(|it| is_within(it, rule)));
            let (count, last) = hits.fold((0, None), |(count, _), event| (count + 1, Some(event.at)));
            RuleRow {
                policy: id.clone(),
                is_audited: policy.extensions.audit,
                rule: rule.origin.clone(),
                action: match rule.action {
                    Action::Allow => "allow",
                    Action::Deny => "deny",
                    Action::Pass => "pass",
                }
                .into(),
                peers: peers(rule),
                hits: count,
                names: selected(rule, &names),
                last_hit: last.map(wall_text),
                since: since.clone(),
            }
        });
        rows.collect()
    };
    plan.policies.iter().flat_map(|policy| of_policy(policy)).collect()
}

/// Whether an event's rule is this one or a part of it.
fn is_within(decided: &str, rule: &PolicyRule) -> bool {
    let rest = decided.strip_prefix(&rule.origin);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// How many of these names a rule selects.
fn selected(rule: &PolicyRule, names: &[Name]) -> usize {
    let PeerSelector::Names(patterns) = &rule.peers else {
        return 0;
    };
    let mut selected: Vec<&Name> = names
        .iter()
        .filter(|name| patterns.iter().any(|pattern| pattern.matches(name)))
        .collect();
    selected.sort_unstable();
    selected.dedup();
    selected.len()
}

/// Whom a rule speaks of, in short.
fn peers(rule: &PolicyRule) -> String {
    let all: Vec<String> = match &rule.peers {
        PeerSelector::Names(patterns) => patterns.iter().map(ToString::to_string).collect(),
        PeerSelector::Prefixes(prefixes) => prefixes.iter().map(|(_, prefix)| prefix.to_string()).collect(),
        PeerSelector::Objects(objects) => objects.iter().map(ToString::to_string).collect(),
        PeerSelector::Unresolved => Vec::new(),
    };
    let shown = all.iter().take(PEERS).cloned().collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(PEERS) {
        0 => shown,
        more => format!("{shown}, and {more} more"),
    }
}
