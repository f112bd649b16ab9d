//! News of policies and of the agent, as events.

use std::collections::{BTreeMap, BTreeSet};

use api::EndpointRow;
use cluster::ReadReport;
use events::{AgentEvent, Event, EventDetail, EventLog, EventSource, EventVerdict, PolicyChange, PolicyNews};

use crate::policy_log;

/// News of the agent, of this moment.
pub(crate) fn of_agent(news: AgentEvent) -> Event {
    let verdict = match news {
        AgentEvent::Ready | AgentEvent::FlowsNotCounted => EventVerdict::Noted,
        AgentEvent::NotInForce(_)
        | AgentEvent::NotRecording(_)
        | AgentEvent::RecordsLost
        | AgentEvent::NotWatching(_)
        | AgentEvent::FlowsLost => EventVerdict::Failed,
    };
    event(verdict, Vec::new(), EventDetail::Agent(news))
}

/// Records how policies were read, where that has changed.
pub(crate) fn read(log: &EventLog, before: &[ReadReport], now: &[ReadReport]) {
    let known: BTreeSet<_> = before.iter().filter_map(policy_log::told).collect();
    for (_, policy, state) in now.iter().filter_map(policy_log::told) {
        // A policy that is as it was is no news.
        if known
            .iter()
            .any(|(_, name, former)| (*name, *former) == (policy, state))
        {
            continue;
        }
        record_policy(log, policy, PolicyChange::Read(state));
    }
}

/// Records whom policies in force select, where that has changed.
pub(crate) fn in_force(log: &EventLog, before: &[EndpointRow], now: &[EndpointRow]) {
    let changes: BTreeMap<_, _> = policy_log::changes(before, now).into_iter().collect();
    for (policy, endpoints) in changes {
        let change = match endpoints.is_empty() {
            true => PolicyChange::SelectsNone,
            false => PolicyChange::InForce(endpoints.into_iter().map(str::to_owned).collect()),
        };
        record_policy(log, policy, change);
    }
}

fn record_policy(log: &EventLog, policy: &str, change: PolicyChange) {
    let verdict = match change {
        PolicyChange::Read("rejected" | "kept-last-good") => EventVerdict::Failed,
        _ => EventVerdict::Noted,
    };
    let detail = EventDetail::Policy(PolicyNews {
        policy: policy.to_owned(),
        change,
    });
    log.record(EventSource::Node, event(verdict, vec![policy.to_owned()], detail));
}

fn event(verdict: EventVerdict, policies: Vec<String>, detail: EventDetail) -> Event {
    Event {
        at: clock::wall_now(),
        verdict,
        direction: None,
        source: None,
        destination: None,
        policies,
        rule: None,
        detail,
    }
}
