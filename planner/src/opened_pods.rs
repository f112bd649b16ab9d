//! Pods that a deleted policy leaves open.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use policy::{Action, Direction, Endpoint, EndpointId, Policy, PolicyId};

use super::Plan;

/// How many pods are named.
const NAMED: usize = 5;

/// A policy that is gone, and the pods that nothing restricts any more in a direction without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenedPods {
    /// Which.
    pub policy: PolicyId,
    /// What is open.
    pub direction: Direction,
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
    let deleted = deleted.flat_map(|policy| Direction::BOTH.map(|direction| (policy, direction)));
    let opened = deleted.map(|(policy, direction)| {
        let is_open = |endpoint: &&Endpoint| {
            let restricts = |policy: &Policy| restricts(policy, direction, endpoint);
            restricts(policy) && !now.policies.iter().any(|other| restricts(other))
        };
        let pods = now.local.iter().filter(is_open).map(|endpoint| endpoint.id.clone());
        OpenedPods {
            policy: policy.id.clone(),
            direction,
            pods: pods.collect(),
        }
    });
    opened.filter(|opened| !opened.pods.is_empty()).collect()
}

/// Whether a policy in force refuses the endpoint anything in a direction.
fn restricts(policy: &Policy, direction: Direction, endpoint: &Endpoint) -> bool {
    !policy.extensions.audit
        && policy.specs.iter().any(|spec| {
            let written = &spec.directions[direction];
            let denies = || written.rules_that(Action::Deny).next().is_some();
            (written.closes || denies()) && spec.selects(endpoint)
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
        write!(f, " any more: {} is OPEN", self.direction)
    }
}
