//! Events as the local API shows them, and what it is asked for.

use std::str::FromStr;
use std::time::Duration;

use api::{EventEndRow, EventQuery, EventRow, FlowNatRow, FlowTotalsRow, LookupAnswerRow, RequestRow};
use clock::WallTime;
use events::{
    AgentEvent, Event, EventDetail, EventEnd, EventFilter, EventKind, EventVerdict, FlowNat, FlowTotals, PolicyChange,
    PolicyNews,
};
use ipnet::IpNet;
use names::Pattern;
use planner::Plan;
use policy::{Endpoint, EndpointId};

use crate::records::{protocol, wall_text};

/// What a reader of events has asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventRequest {
    /// Which events.
    pub filter: EventFilter,
    /// Of what is remembered only the last so many.
    pub last: Option<usize>,
    /// Whether what comes is wanted too.
    pub follow: bool,
    /// Only what comes after the event with this number, which was seen.
    pub after: Option<u64>,
}

impl EventRequest {
    /// Reads a query.
    ///
    /// # Errors
    /// Says for people what cannot be read.
    pub fn read(query: &EventQuery, now: WallTime) -> Result<Self, String> {
        let filter = EventFilter {
            pods: list(&query.pod, |text| match text.split_once('/') {
                Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
                    EndpointId::from_str(text).map_err(|never| match never {})
                }
                _ => Err(format!("{text}: write the pod's namespace and name, as in shop/web")),
            })?,
            namespaces: list(&query.namespace, |text| Ok(text.to_owned()))?,
            to_names: list(&query.to_fqdn, |text| {
                let pattern = match text.contains('*') {
                    true => Pattern::pattern(text),
                    false => Pattern::name(text),
                };
                pattern.map_err(|error| format!("{text} is no name and no pattern: {error}"))
            })?,
            to_networks: list(&query.to_ip, network)?,
            ports: list(&query.port, |text| {
                text.parse()
                    .map_err(|_| format!("{text} is no port; it is a number up to 65535"))
            })?,
            verdicts: list(&query.verdict, |text| {
                EventVerdict::named(text).ok_or_else(|| one_of(text, EventVerdict::ALL.map(EventVerdict::as_str)))
            })?,
            kinds: list(&query.kind, |text| {
                EventKind::named(text).ok_or_else(|| one_of(text, EventKind::ALL.map(EventKind::as_str)))
            })?,
            since: query.since_ms.map(|ago| now.before(Duration::from_millis(ago))),
        };
        Ok(Self {
            filter,
            last: query.last,
            follow: query.follow,
            after: None,
        })
    }
}

fn list<T>(text: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    text.split(',').filter(|part| !part.is_empty()).map(read).collect()
}

fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse().map(|address: std::net::IpAddr| IpNet::from(address));
    text.parse()
        .or_else(|_| address())
        .map_err(|_| format!("{text} is no address and no network, as in 192.0.2.0/24"))
}

fn one_of<const N: usize>(text: &str, words: [&str; N]) -> String {
    format!("{text} is not one of {}", words.join(", "))
}

/// An event with the labels that its Pods have under this plan.
pub fn row(number: u64, event: &Event, node: &str, plan: &Plan) -> EventRow {
    let mut row = EventRow {
        time: wall_text(event.at),
        sequence: number,
        node: node.to_owned(),
        kind: event.detail.kind().as_str().into(),
        verdict: event.verdict.as_str().into(),
        direction: event.direction.map(|direction| direction.as_str().into()),
        source: event.source.as_ref().map(|end| end_row(end, &plan.local)),
        destination: event.destination.as_ref().map(|end| end_row(end, &plan.local)),
        policies: event.policies.clone(),
        rule: event.rule.clone(),
        ..EventRow::default()
    };
    match &event.detail {
        EventDetail::Lookup(lookup) => {
            row.lookup = Some(LookupAnswerRow {
                name: lookup.name.to_string(),
                upstream: lookup.upstream,
                addresses: lookup.addresses.to_vec(),
            });
            row.reason.clone_from(&lookup.reason);
        }
        EventDetail::Flow(flow) => {
            row.protocol = Some(protocol(flow.protocol));
            row.icmp_type = flow.icmp_type;
            row.nat = nat_row(flow.nat);
            row.totals = flow.totals.map(totals_row);
        }
        EventDetail::Request(request) => {
            row.request = Some(RequestRow {
                method: request.method.clone(),
                host: request.host.clone(),
                path: request.path.clone(),
                status: request.status,
            });
            row.reason.clone_from(&request.reason);
        }
        EventDetail::Policy(policy) => row.reason = Some(policy_news(policy)),
        EventDetail::Agent(agent) => row.reason = Some(agent_news(agent)),
    }
    row
}

/// The row that says that events were lost.
pub fn lost(count: u64, node: &str, now: WallTime) -> EventRow {
    EventRow {
        time: wall_text(now),
        node: node.to_owned(),
        kind: EventKind::Agent.as_str().into(),
        verdict: EventVerdict::Failed.as_str().into(),
        reason: Some(format!(
            "{count} events are not shown: they came too fast, or are forgotten"
        )),
        lost: Some(count),
        ..EventRow::default()
    }
}

fn end_row(end: &EventEnd, local: &[Endpoint]) -> EventEndRow {
    let endpoint = end
        .pod
        .as_ref()
        .and_then(|pod| local.iter().find(|known| known.id == *pod));
    let labels = endpoint.into_iter().flat_map(|endpoint| &endpoint.labels);
    EventEndRow {
        namespace: end.pod.as_ref().map(|pod| pod.namespace.clone()),
        pod: end.pod.as_ref().map(|pod| pod.name.clone()),
        labels: labels.map(|(key, value)| format!("{key}={value}")).collect(),
        address: end.address,
        port: end.port,
        names: end.names.iter().map(ToString::to_string).collect(),
    }
}

fn nat_row(nat: FlowNat) -> Option<FlowNatRow> {
    let FlowNat { asked, sent_as } = nat;
    (nat != FlowNat::default()).then_some(FlowNatRow { asked, sent_as })
}

fn totals_row(totals: FlowTotals) -> FlowTotalsRow {
    FlowTotalsRow {
        packets: totals.packets,
        bytes: totals.bytes,
        duration_ms: u64::try_from(totals.duration.as_millis()).unwrap_or(u64::MAX),
    }
}

fn policy_news(news: &PolicyNews) -> String {
    let policy = &news.policy;
    match &news.change {
        PolicyChange::InForce(endpoints) => format!("{policy} is in force for {}", endpoints.join(", ")),
        PolicyChange::SelectsNone => format!("{policy} selects no endpoint of this node any more"),
        PolicyChange::Read(state) => format!("{policy} was read: {state}"),
    }
}

fn agent_news(news: &AgentEvent) -> String {
    match news {
        AgentEvent::Ready => "the policies are in force".into(),
        AgentEvent::NotInForce(why) => format!("the policies could not be put in force: {why}"),
        AgentEvent::NotRecording(why) => format!("packets are not recorded: {why}"),
        AgentEvent::RecordsLost => "records of packets were lost, because too many came at once".into(),
        AgentEvent::NotWatching(why) => format!("flows that are allowed cannot be watched: {why}"),
        AgentEvent::FlowsLost => {
            "flows that were allowed are not shown: more began and ended than could be read".into()
        }
        AgentEvent::FlowsNotCounted => "packets and bytes of flows are not counted: \
             set the sysctl net.netfilter.nf_conntrack_acct to 1 to have them from the next flow on"
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_into_a_filter() {
        let query = EventQuery {
            pod: "shop/web,shop/db".into(),
            to_fqdn: "*.example,api.test".into(),
            to_ip: "192.0.2.0/24,2001:db8::1".into(),
            port: "80,443".into(),
            verdict: "refused,audited".into(),
            kind: "lookup".into(),
            since_ms: Some(300_000),
            follow: true,
            ..EventQuery::default()
        };
        let request = EventRequest::read(&query, WallTime::from_millis(1_000_000)).unwrap();
        let filter = &request.filter;
        assert_eq!(
            (filter.pods.len(), filter.to_names.len(), filter.to_networks.len()),
            (2, 2, 2)
        );
        assert_eq!(
            (filter.ports.as_slice(), filter.kinds.as_slice()),
            (&[80, 443][..], &[EventKind::Lookup][..])
        );
        assert_eq!(filter.verdicts, [EventVerdict::Refused, EventVerdict::Audited]);
        assert_eq!(filter.since, Some(WallTime::from_millis(700_000)));
        assert!(request.follow);
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let said = |change: fn(&mut EventQuery)| {
            let mut query = EventQuery::default();
            change(&mut query);
            EventRequest::read(&query, WallTime::default()).unwrap_err()
        };
        assert!(said(|query| query.pod = "web".into()).contains("shop/web"));
        assert!(said(|query| query.to_fqdn = "a..b".into()).contains("empty label"));
        assert!(said(|query| query.to_ip = "example".into()).contains("192.0.2.0/24"));
        assert!(said(|query| query.port = "http".into()).contains("65535"));
        assert!(said(|query| query.verdict = "dropped".into()).contains("refused"));
        assert!(said(|query| query.kind = "l7".into()).contains("lookup, flow"));
    }
}
