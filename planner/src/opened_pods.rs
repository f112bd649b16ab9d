//! Pods that a deleted policy leaves open.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use policy::{Action, Endpoint, EndpointId, Policy, PolicyId};

use super::Plan;

/// How many pods are named.
const NAMED: usize = 5;

/// A policy that is gone, and the pods that nothing restricts any more without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenedPods {
    /// Which.
    pub policy: PolicyId,
    /// Whom it leaves open; not empty.
    pub pods: Vec<EndpointId>,
}

/// What the policies that `now` lacks leave open.
pub fn opened(before: &Plan, now: &Plan) -> Vec<OpenedPods> {
    if Arc::ptr_eq(&before.policies, &now.policies) {
        return Vec::new();
    }
    let left: BTreeSet<&PolicyId> = now.policies.iter().map(|policy| &policy.id).collect();
    let deleted = before.policies.iter().filter(|policy| !left.contains(&policy.id));
    let opened = deleted.map(|policy| {
        let is_open = |endpoint: &&Endpoint| {
            restricts(policy, endpoint) && !now.policies.iter().any(|other| restricts(other, endpoint))
        };
        let pods = now.local.iter().filter(is_open).map(|endpoint| endpoint.id.clone());
        OpenedPods {
            policy: policy.id.clone(),
            pods: pods.collect(),
        }
    });
    opened.filter(|opened| !opened.pods.is_empty()).collect()
}

/// Whether a policy in force refuses the endpoint anything.
fn restricts(policy: &Policy, endpoint: &Endpoint) -> bool {
    !policy.extensions.audit
        && policy.specs.iter().any(|spec| {
            let denies = || {
                spec.directions
                    .egress
                    .rules
                    .iter()
                    .any(|rule| rule.action == Action::Deny)
            };
            (spec.directions.egress.closes || denies()) && spec.subject.matches(&endpoint.labels)
        })
}

impl fmt::Display for OpenedPods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named: Vec<String> = self.pods.iter().take(NAMED).map(ToString::to_string).collect();
        write!(
            f,
            "{} {} is deleted, and no policy restricts {}",
            self.policy.kind.as_str(),
            self.policy,
            named.join(", ")
        )?;
        if let Some(more) = self.pods.len().checked_sub(NAMED).filter(|more| *more > 0) {
            write!(f, " and {more} more pods")?;
        }
        f.write_str(" any more: egress is OPEN")
    }
}
