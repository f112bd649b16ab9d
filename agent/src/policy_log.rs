//! One policy in the log: how it was read and whom it selects, each time that changes.
//!
//! The lines are DEBUG and have the field `policy`. That of a policy that is refused, or that keeps
//! its last good version, stands beside the warning about it.

use std::collections::{BTreeMap, BTreeSet};

use api::EndpointRow;
use cluster::ReadReport;
use tracing::{Level, debug, enabled};

/// Logs how policies were read, where that has changed.
pub(crate) fn read(before: &[ReadReport], now: &[ReadReport]) {
    if enabled!(Level::DEBUG) {
        let known: BTreeSet<_> = before.iter().filter_map(told).collect();
        for (kind, policy, state) in now.iter().filter_map(told).filter(|told| !known.contains(told)) {
            debug!(policy, kind, state, "was read");
        }
    }
}

/// Kind, namespace and name, and state of a policy; `None` for other objects.
pub(crate) fn told(report: &ReadReport) -> Option<(&str, &str, &'static str)> {
    let (kind, name) = report.object.split_once(' ')?;
    kind.ends_with("Policy").then_some((kind, name, report.state.as_str()))
}

/// Logs whom policies in force select, where that has changed.
pub(crate) fn in_force(before: &[EndpointRow], now: &[EndpointRow]) {
    if enabled!(Level::DEBUG) {
        for (policy, endpoints) in changes(before, now) {
            match endpoints.is_empty() {
                true => debug!(policy, "selects no endpoint of this node any more"),
                false => debug!(policy, endpoints = endpoints.join(", "), "is in force"),
            }
        }
    }
}

/// The policies that select others than before, with whom they select.
pub(crate) fn changes<'a>(before: &'a [EndpointRow], now: &'a [EndpointRow]) -> Vec<(&'a str, Vec<&'a str>)> {
    let (before, mut now) = (selected(before), selected(now));
    for policy in before.keys().copied() {
        now.entry(policy).or_default();
    }
    now.retain(|policy, endpoints| before.get(policy) != Some(&*endpoints));
    now.into_iter().collect()
}

fn selected(rows: &[EndpointRow]) -> BTreeMap<&str, Vec<&str>> {
    let mut selected: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for row in rows {
        for policy in &row.policies {
            selected.entry(policy).or_default().push(&row.endpoint);
        }
    }
    selected
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(endpoint: &str, policies: &[&str]) -> EndpointRow {
        EndpointRow {
            endpoint: endpoint.into(),
            addresses: Vec::new(),
            egress: String::new(),
            ingress: String::new(),
            program: None,
            ingress_program: None,
            policies: policies.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn a_policy_is_told_when_it_selects_others_than_before() {
        let before = [row("n/a", &["n/stays", "n/grows"]), row("n/b", &["n/goes"])];
        let now = [row("n/a", &["n/stays", "n/grows"]), row("n/b", &["n/grows", "n/comes"])];
        assert_eq!(
            changes(&before, &now),
            [
                ("n/comes", vec!["n/b"]),
                ("n/goes", vec![]),
                ("n/grows", vec!["n/a", "n/b"]),
            ]
        );
        assert!(changes(&now, &now).is_empty());
    }
}
