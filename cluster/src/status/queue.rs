//! The queue of statuses: every policy, with what is to be written into it and when. Pure: events
//! and time are arguments.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;

use crate::kubernetes::resources::{Resource, ResourceKind};
use crate::kubernetes::watch_cache::ObservedPolicy;
use crate::report::ReportState;

use super::StatusInput;
use super::conditions::{self, Condition, NODES_TOLD, NodeOutcome};
use super::rendezvous;

/// A failure that lasts shorter is no news: installations are tried again every second.
const LASTING: Duration = Duration::from_secs(3);
/// How wide the nodes are spread that fail together, so that most see that enough have said so.
const SPREAD: Duration = Duration::from_secs(10);
/// After a write that came to nothing: the watch says meanwhile what stands there.
const AGAIN: Duration = Duration::from_secs(2);
/// After a refusal that will not change by itself.
const LONG: Duration = Duration::from_secs(300);

/// Which object a policy is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyRef {
    /// The watch that the policy came from.
    pub resource: Resource,
    /// The namespace of the policy; empty for a kind without namespaces.
    pub namespace: String,
    /// The name of the policy.
    pub name: String,
}

/// One write of a status, of an Event, or of both.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusWrite {
    /// The policy that is written to.
    pub policy: PolicyRef,
    /// The uid of the object, which tells it from another of the same name.
    pub uid: String,
    /// The version that the write is based on.
    pub resource_version: String,
    /// The whole list of conditions; `None`: the kind has no status.
    pub conditions: Option<Vec<Value>>,
    /// The Event that is sent besides.
    pub event: Option<EventNotice>,
}

/// What an Event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventNotice {
    /// One stable word, for machines.
    pub reason: &'static str,
    /// A sentence for people.
    pub note: String,
}

/// The result of a write.
#[derive(Debug, Clone, PartialEq)]
pub enum WriteOutcome {
    /// It succeeded: the version that it made, with the conditions as the API server keeps them.
    Written {
        /// The new version; `None`: it was only an Event.
        status: Option<(String, Vec<Value>)>,
    },
    /// A conflict, or the API server is away: try again soon.
    Later,
    /// It is forbidden, or there is no such object: try again much later.
    Never,
}

/// The policies and their due writes.
#[derive(Debug)]
pub struct StatusQueue {
    node: String,
    nodes: BTreeSet<String>,
    policies: BTreeMap<PolicyRef, QueuedPolicy>,
    /// Policies that wait for an update to be in force, by its number. Some may be gone.
    awaiting: BTreeSet<(u64, PolicyRef)>,
    /// Policies with a due write, by its time.
    due: BTreeSet<(Instant, PolicyRef)>,
    updates_in_force: u64,
    failure: Option<String>,
}

#[derive(Debug)]
struct QueuedPolicy {
    policy: ObservedPolicy,
    /// When the conditions that all agents would write are due.
    summary_due: Option<Instant>,
    /// When this node's own condition is due.
    own_due: Option<Instant>,
    /// The version of which an Event was sent, for kinds whose objects do not show it.
    noticed: Option<(String, i64)>,
    not_before: Option<Instant>,
    /// Whether a write is in flight.
    is_written: bool,
    /// The time at which it stands in the queue's list of due writes.
    listed: Option<Instant>,
}

impl StatusQueue {
    /// The empty queue of the agent on `node`.
    pub fn new(node: String) -> Self {
        Self {
            node,
            nodes: BTreeSet::new(),
            policies: BTreeMap::new(),
            awaiting: BTreeSet::new(),
            due: BTreeSet::new(),
            updates_in_force: 0,
            failure: None,
        }
    }

    /// Takes policies that were observed, and nodes that came or went.
    pub fn observe(&mut self, input: StatusInput, now: Instant) {
        if let Some(nodes) = input.nodes {
            self.nodes = nodes;
        }
        for seen in input.policies {
            let key = PolicyRef {
                resource: seen.resource,
                namespace: seen.namespace,
                name: seen.name,
            };
            let Some(policy) = seen.policy else {
                if let Some(listed) = self.policies.remove(&key).and_then(|gone| gone.listed) {
                    self.due.remove(&(listed, key));
                }
                continue;
            };
            if policy.update > self.updates_in_force {
                self.awaiting.insert((policy.update, key.clone()));
            }
            let entry = self.policies.entry(key.clone()).or_insert_with(|| QueuedPolicy {
                policy: policy.clone(),
                summary_due: None,
                own_due: None,
                noticed: None,
                not_before: None,
                is_written: false,
                listed: None,
            });
            entry.policy = policy;
            self.schedule(&key, now);
        }
    }

    /// Takes how many updates are in force, and why the next one is not. It takes a look at the
    /// policies alone that wait for an update: of all others nothing follows from it.
    pub fn progress(&mut self, updates_in_force: u64, failure: Option<String>, now: Instant) {
        if (self.updates_in_force, &self.failure) == (updates_in_force, &failure) {
            return;
        }
        let is_other_failure = self.failure != failure;
        self.updates_in_force = updates_in_force;
        self.failure = failure;
        let mut still_awaiting = std::mem::take(&mut self.awaiting);
        let mut concerned: Vec<PolicyRef> = Vec::new();
        still_awaiting.retain(|(update, key)| {
            let awaits = *update > updates_in_force;
            if !awaits || is_other_failure {
                concerned.push(key.clone());
            }
            awaits
        });
        self.awaiting = still_awaiting;
        for key in concerned {
            self.schedule(&key, now);
        }
    }

    /// When the next write is due.
    pub fn due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// The next due write. A policy whose last write is not [done](Self::done) has none.
    pub fn next(&mut self, now: Instant) -> Option<StatusWrite> {
        let (_, key) = self.due.first().filter(|(due, _)| *due <= now)?;
        let key = key.clone();
        let here = self.here(&self.policies.get(&key)?.policy);
        let (node, nodes) = (&self.node, &self.nodes);
        let entry = self.policies.get_mut(&key)?;
        let summary = entry.summary_due.is_some_and(|due| due <= now);
        let own = entry.own_due.is_some_and(|due| due <= now);
        let policy = &entry.policy;
        let version = (policy.version.uid.clone(), policy.version.generation);

        let mut written = policy.version.conditions.clone();
        let mut event = None;
        if own {
            let kind = conditions::own(node);
            match conditions::of_node(policy, node, &here) {
                Some(condition) => {
                    event = Some(EventNotice {
                        reason: "PolicyNotProgrammed",
                        note: format!("not in force on {node}: {}", condition.message),
                    });
                    condition.write(&mut written, Timestamp::now());
                }
                None => written.retain(|condition| condition["type"] != kind.as_str()),
            }
        }
        // Whoever is gone has nothing to say; nobody else takes it away.
        written.retain(|condition| of_a_node_that_is(condition, nodes, node));
        if summary {
            let valid = conditions::valid(policy);
            let is_new = !valid.stands_in(&policy.version.conditions);
            event = notice(policy, &valid).filter(|_| is_new).or(event);
            for condition in summaries(policy, nodes, &here) {
                condition.write(&mut written, Timestamp::now());
            }
        }
        entry.noticed = Some(version);
        entry.is_written = true;
        let (uid, resource_version) = (policy.version.uid.clone(), policy.version.resource_version.clone());
        self.list(&key);
        let write = StatusWrite {
            uid,
            resource_version,
            conditions: ResourceKind::of(key.resource).has_status().then_some(written),
            event,
            policy: key,
        };
        Some(write)
    }

    /// Takes the result of a write.
    pub fn done(&mut self, key: &PolicyRef, outcome: WriteOutcome, now: Instant) {
        let Some(entry) = self.policies.get_mut(key) else {
            return;
        };
        (entry.summary_due, entry.own_due) = (None, None);
        entry.is_written = false;
        match outcome {
            WriteOutcome::Written { status } => {
                entry.not_before = None;
                // The watch will say the same, a little later.
                if let Some((version, conditions)) = status {
                    entry.policy.version.resource_version = version;
                    entry.policy.version.conditions = conditions;
                }
            }
            WriteOutcome::Later => {
                entry.not_before = Some(now + AGAIN);
                entry.noticed = None;
            }
            WriteOutcome::Never => entry.not_before = Some(now + LONG),
        }
        self.schedule(key, now);
    }

    /// Sets the due times of a policy.
    fn schedule(&mut self, key: &PolicyRef, now: Instant) {
        let Some(entry) = self.policies.get(key) else { return };
        let here = self.here(&entry.policy);
        let summary = self.summary_is_wanting(key, entry, &here);
        let own = own_is_wanting(&entry.policy, &self.node, &here);
        // Only now: it costs a hash for each node, and most policies need nothing.
        let wait = summary
            .then(|| rendezvous::place(&entry.policy.version.uid, &self.node, &self.nodes))
            // Whoever is not the first cannot see whether the first has sent an Event.
            .filter(|place| *place == 0 || ResourceKind::of(key.resource).has_status())
            .map(|place| rendezvous::wait(place, rand::random()));
        let failed = matches!(here, NodeOutcome::Failed(_));
        let Some(entry) = self.policies.get_mut(key) else {
            return;
        };
        let earliest = entry.not_before.unwrap_or(now);
        entry.summary_due = wait.map(|wait| entry.summary_due.unwrap_or((now + wait).max(earliest)));
        entry.own_due = own.then(|| {
            let lasting = if failed { LASTING } else { Duration::ZERO };
            let wait = lasting + SPREAD.mul_f64(rand::random());
            entry.own_due.unwrap_or((now + wait).max(earliest))
        });
        self.list(key);
    }

    /// Puts a policy where it belongs among the due writes.
    fn list(&mut self, key: &PolicyRef) {
        let Some(entry) = self.policies.get_mut(key) else {
            return;
        };
        let due = entry.due();
        if due == entry.listed {
            return;
        }
        if let Some(before) = entry.listed {
            self.due.remove(&(before, key.clone()));
        }
        if let Some(due) = due {
            self.due.insert((due, key.clone()));
        }
        entry.listed = due;
    }

    fn summary_is_wanting(&self, key: &PolicyRef, entry: &QueuedPolicy, here: &NodeOutcome) -> bool {
        let policy = &entry.policy;
        if *here == NodeOutcome::Pending {
            // Both conditions are written at once, when both are known.
            return false;
        }
        if !ResourceKind::of(key.resource).has_status() {
            let version = (policy.version.uid.clone(), policy.version.generation);
            return entry.noticed.as_ref() != Some(&version) && notice(policy, &conditions::valid(policy)).is_some();
        }
        let mut wanted = summaries(policy, &self.nodes, here);
        wanted.any(|condition| !condition.stands_in(&policy.version.conditions))
    }

    fn here(&self, policy: &ObservedPolicy) -> NodeOutcome {
        match &self.failure {
            _ if policy.update == 0 => NodeOutcome::Pending,
            _ if policy.update <= self.updates_in_force => NodeOutcome::InForce,
            Some(failure) => NodeOutcome::Failed(failure.clone()),
            None => NodeOutcome::Pending,
        }
    }
}

impl QueuedPolicy {
    fn due(&self) -> Option<Instant> {
        let due = [self.summary_due, self.own_due].into_iter().flatten().min();
        due.filter(|_| !self.is_written)
    }
}

/// The conditions that all agents would write.
fn summaries(policy: &ObservedPolicy, nodes: &BTreeSet<String>, here: &NodeOutcome) -> impl Iterator<Item = Condition> {
    [
        // Of somebody else's policy that is not ours to say.
        Some(conditions::valid(policy)).filter(|_| !conditions::is_ignored(policy)),
        conditions::programmed(policy, nodes, here),
    ]
    .into_iter()
    .flatten()
}

/// Whether this node has to say something of itself, or to take it back.
fn own_is_wanting(policy: &ObservedPolicy, node: &str, here: &NodeOutcome) -> bool {
    let kind = conditions::own(node);
    let told = policy
        .version
        .conditions
        .iter()
        .any(|condition| condition["type"] == kind.as_str());
    match conditions::of_node(policy, node, here) {
        Some(condition) if told => !condition.stands_in(&policy.version.conditions),
        Some(_) => conditions::failed_nodes(policy).count() < NODES_TOLD,
        None => told && *here != NodeOutcome::Pending,
    }
}

fn of_a_node_that_is(condition: &Value, nodes: &BTreeSet<String>, node: &str) -> bool {
    match condition["type"]
        .as_str()
        .and_then(|kind| kind.strip_suffix(".namegate.io/Programmed"))
    {
        Some(name) => name == node || nodes.contains(name),
        None => true,
    }
}

/// What is to be said of a policy that fails.
fn notice(policy: &ObservedPolicy, valid: &Condition) -> Option<EventNotice> {
    let reason = match policy.state {
        ReportState::Accepted => return None,
        ReportState::Partial => "PolicyPartlyEnforced",
        ReportState::KeptLastGood | ReportState::Rejected => "PolicyRefused",
    };
    Some(EventNotice {
        reason,
        note: valid.message.clone(),
    })
}

#[cfg(test)]
mod tests;
