use serde_json::json;

use crate::kubernetes::watch_cache::PolicyEvent;

use super::super::conditions::tests::policy;
use super::*;

/// A queue, its clock, and the API server's copy of one policy.
struct Agent {
    queue: StatusQueue,
    now: Instant,
}

const FEED: Resource = Resource::CiliumNetworkPolicies;

impl Agent {
    fn new(node: &str, nodes: usize) -> Self {
        let mut queue = StatusQueue::new(node.into());
        let now = Instant::now();
        let nodes = (0..nodes).map(|it| format!("node-{it}")).collect();
        queue.observe(
            StatusInput {
                policies: Vec::new(),
                nodes: Some(nodes),
            },
            now,
        );
        Self { queue, now }
    }

    fn see(&mut self, policy: &ObservedPolicy) {
        self.see_of(FEED, Some(policy.clone()));
    }

    fn see_of(&mut self, resource: Resource, policy: Option<ObservedPolicy>) {
        let policies = vec![PolicyEvent {
            resource,
            namespace: "shop".into(),
            name: "p".into(),
            policy,
        }];
        self.queue.observe(StatusInput { policies, nodes: None }, self.now);
    }

    fn in_force(&mut self, updates: u64) {
        self.queue.progress(updates, None, self.now);
    }

    fn fails(&mut self, updates: u64) {
        self.queue.progress(updates, Some("no memory".into()), self.now);
    }

    /// Waits for what is due, and writes it.
    fn write(&mut self, policy: &mut ObservedPolicy) -> Option<StatusWrite> {
        self.now = self.now.max(self.queue.due()?);
        let write = self.queue.next(self.now).expect("it is due");
        let status = write.conditions.clone().map(|conditions| {
            policy.version.conditions.clone_from(&conditions);
            policy.version.resource_version.push('+');
            (policy.version.resource_version.clone(), conditions)
        });
        self.queue
            .done(&write.policy, WriteOutcome::Written { status }, self.now);
        Some(write)
    }
}

fn summary(policy: &ObservedPolicy) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let conditions = policy.version.conditions.iter();
    conditions.map(|it| (text(&it["type"]), text(&it["status"]))).collect()
}

fn pair(kind: &str, status: &str) -> (String, String) {
    (kind.into(), status.into())
}

#[test]
fn both_conditions_are_written_at_once_when_the_policy_is_in_force() {
    let mut agent = Agent::new("node-0", 1);
    let mut policy = policy(ReportState::Accepted);
    agent.see(&policy);
    assert_eq!(agent.queue.due(), None, "it is not in force yet");
    agent.in_force(1);
    let write = agent.write(&mut policy).unwrap();
    assert_eq!(write.event, None);
    assert_eq!(summary(&policy), [pair("Valid", "True"), pair("Programmed", "True")]);
    assert_eq!(agent.write(&mut policy), None);
}

#[test]
fn of_many_agents_one_writes_and_the_others_see_it() {
    let mut agents: Vec<Agent> = (0..200).map(|it| Agent::new(&format!("node-{it}"), 200)).collect();
    let mut policy = policy(ReportState::Accepted);
    for agent in &mut agents {
        agent.see(&policy);
        agent.in_force(1);
    }
    let mut due: Vec<Instant> = agents.iter().map(|agent| agent.queue.due().unwrap()).collect();
    due.sort();
    assert!(due[1] - due[0] > Duration::from_secs(2), "the watch has time to tell");
    let first = agents
        .iter()
        .position(|agent| agent.queue.due() == Some(due[0]))
        .unwrap();
    agents[first].write(&mut policy).unwrap();
    for agent in &mut agents {
        agent.see(&policy);
        assert_eq!(agent.queue.due(), None);
    }
}

#[test]
fn a_refused_policy_gets_every_error_and_one_event() {
    let mut agent = Agent::new("node-0", 1);
    let mut policy = policy(ReportState::Rejected);
    policy.diagnostics = vec![policy::Diagnostic {
        severity: policy::Severity::Error,
        code: "bad-pattern",
        path: "spec.egress[0]".into(),
        position: None,
        reason: "it is bad".into(),
        suggestion: None,
    }];
    agent.see(&policy);
    agent.in_force(1);
    let write = agent.write(&mut policy).unwrap();
    let event = write.event.unwrap();
    assert_eq!(event.reason, "PolicyRefused");
    assert!(event.note.contains("spec.egress[0]: it is bad"));
    assert_eq!(summary(&policy), [pair("Valid", "False"), pair("Programmed", "False")]);
    assert_eq!(agent.write(&mut policy), None);
}

#[test]
fn a_node_that_fails_says_so_and_takes_it_back() {
    let mut agent = Agent::new("node-0", 1);
    let mut policy = policy(ReportState::Accepted);
    agent.see(&policy);
    agent.fails(0);
    let began = agent.now;
    let mut events = Vec::new();
    while let Some(write) = agent.write(&mut policy) {
        events.extend(write.event.map(|event| event.reason));
    }
    assert!(agent.now - began >= LASTING);
    assert_eq!(events, ["PolicyNotProgrammed"]);
    let mut said = summary(&policy);
    said.sort();
    let own = conditions::own("node-0");
    assert_eq!(
        said,
        [pair("Programmed", "False"), pair("Valid", "True"), pair(&own, "False")]
    );
    agent.in_force(1);
    while agent.write(&mut policy).is_some() {}
    assert_eq!(summary(&policy), [pair("Valid", "True"), pair("Programmed", "True")]);
}

#[test]
fn when_every_node_fails_a_few_say_so() {
    let mut agents: Vec<Agent> = (0..100).map(|it| Agent::new(&format!("node-{it}"), 100)).collect();
    let mut policy = policy(ReportState::Accepted);
    for agent in &mut agents {
        agent.see(&policy);
        agent.fails(0);
    }
    let mut writes = 0;
    // Whoever is due first writes, and all see it.
    while let Some(next) = agents
        .iter_mut()
        .filter(|agent| agent.queue.due().is_some())
        .min_by_key(|agent| agent.queue.due())
    {
        next.write(&mut policy).unwrap();
        writes += 1;
        assert!(writes <= 3 * NODES_TOLD, "a storm of writes");
        for agent in &mut agents {
            agent.see(&policy);
        }
    }
    let told = conditions::failed_nodes(&policy).count();
    assert_eq!(told, NODES_TOLD);
}

#[test]
fn a_write_that_somebody_else_was_faster_with_is_looked_at_again() {
    let mut agent = Agent::new("node-0", 1);
    let mut policy = policy(ReportState::Accepted);
    agent.see(&policy);
    agent.in_force(1);
    agent.now = agent.queue.due().unwrap();
    let write = agent.queue.next(agent.now).unwrap();
    agent.queue.done(&write.policy, WriteOutcome::Later, agent.now);
    assert!(agent.queue.due().unwrap() >= agent.now + AGAIN);
    // The watch tells of what the other wrote: nothing is left to do.
    policy.version.conditions = write.conditions.unwrap();
    agent.see(&policy);
    assert_eq!(agent.queue.due(), None);
}

#[test]
fn what_is_not_allowed_is_not_tried_again_soon() {
    let mut agent = Agent::new("node-0", 1);
    agent.see(&policy(ReportState::Accepted));
    agent.in_force(1);
    agent.now = agent.queue.due().unwrap();
    let write = agent.queue.next(agent.now).unwrap();
    agent.queue.done(&write.policy, WriteOutcome::Never, agent.now);
    assert!(agent.queue.due().unwrap() >= agent.now + LONG);
    agent.see_of(FEED, None);
    assert_eq!(agent.queue.due(), None);
}

#[test]
fn of_kinds_without_a_status_there_is_one_event() {
    let mut agent = Agent::new("node-0", 1);
    let mut refused = policy(ReportState::Rejected);
    agent.see_of(Resource::NetworkPolicies, Some(refused.clone()));
    agent.in_force(1);
    let write = agent.write(&mut refused).unwrap();
    assert_eq!((write.conditions, write.event.unwrap().reason), (None, "PolicyRefused"));
    assert_eq!(agent.queue.due(), None);
    refused.version.resource_version = "8".into();
    agent.see_of(Resource::NetworkPolicies, Some(refused.clone()));
    assert_eq!(agent.queue.due(), None);
    refused.version.generation += 1;
    agent.see_of(Resource::NetworkPolicies, Some(refused));
    assert!(agent.queue.due().is_some());
}

#[test]
fn conditions_of_other_writers_stay() {
    let mut agent = Agent::new("node-0", 1);
    let mut policy = policy(ReportState::Accepted);
    policy.version.conditions = vec![json!({"type": "Other"}), json!({"type": "gone.namegate.io/Programmed"})];
    agent.see(&policy);
    agent.in_force(1);
    agent.write(&mut policy).unwrap();
    assert_eq!(policy.version.conditions[0], json!({"type": "Other"}));
    assert_eq!(
        policy.version.conditions.len(),
        3,
        "what a node that is gone said has gone"
    );
}

#[test]
fn a_policy_is_not_written_twice_at_once_and_what_came_meanwhile_is_written_after() {
    let mut agent = Agent::new("node-0", 1);
    let mut seen = policy(ReportState::Accepted);
    agent.see(&seen);
    agent.in_force(1);
    agent.now = agent.queue.due().unwrap();
    let write = agent.queue.next(agent.now).unwrap();
    // Edited while its status is on the way.
    seen.version.generation += 1;
    seen.version.resource_version = "later".into();
    agent.see(&seen);
    assert_eq!((agent.queue.due(), agent.queue.next(agent.now)), (None, None));
    agent.queue.done(&write.policy, WriteOutcome::Later, agent.now);
    agent.now = agent.queue.due().unwrap();
    assert_eq!(agent.queue.next(agent.now).unwrap().resource_version, "later");
}

#[test]
fn of_a_policy_that_is_somebody_elses_it_is_said_that_it_is_not_in_force_and_no_more() {
    let mut agent = Agent::new("node-0", 1);
    let mut seen = policy(ReportState::Accepted);
    seen.diagnostics.push(policy::Diagnostic {
        severity: policy::Severity::Warning,
        code: policy::validate::IGNORED,
        path: String::new(),
        position: None,
        reason: "not for this agent".into(),
        suggestion: None,
    });
    agent.see(&seen);
    agent.in_force(1);
    agent.write(&mut seen).unwrap();
    assert_eq!(summary(&seen), [pair("Programmed", "False")]);
    agent.see(&seen);
    assert_eq!(agent.queue.due(), None);
}
