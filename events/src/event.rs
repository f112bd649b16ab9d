//! What an event says.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clock::WallTime;
use names::Name;
use policy::{Direction, EndpointId};
use smallvec::SmallVec;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When, by the wall clock. Events stand in the order of their sequence numbers, whatever
    /// somebody does to that clock.
    pub at: WallTime,
    /// What was decided.
    pub verdict: EventVerdict,
    /// Whose policies decided, the sender's or the receiver's; `None` where no traffic is meant.
    pub direction: Option<Direction>,
    /// Who asked, or opened the connection.
    pub source: Option<EventEnd>,
    /// Whom it was meant for.
    pub destination: Option<EventEnd>,
    /// The policies that decided.
    pub policies: Vec<String>,
    /// The rule of them; `None` where none decided alone.
    pub rule: Option<String>,
    /// What kind of event it is, with what only that kind has.
    pub detail: EventDetail,
}

/// What was decided about an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventVerdict {
    /// It was let through.
    Allowed,
    /// Policies refused it.
    Refused,
    /// It was let through, because the policies that would have refused it are in mode audit.
    Audited,
    /// It was allowed, and failed.
    Failed,
    /// Nothing was decided: news of a policy or of the agent.
    Noted,
}

/// The kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventKind {
    /// A DNS lookup.
    Lookup,
    /// A connection, or a packet of none.
    Flow,
    /// A request inside a connection.
    Request,
    /// News of a policy.
    Policy,
    /// News of the agent.
    Agent,
}

/// One end of a lookup, a flow or a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventEnd {
    /// The Pod that has the address.
    pub pod: Option<EndpointId>,
    /// The address.
    pub address: Option<IpAddr>,
    /// The port; `None` where there is none, or nobody looks at it.
    pub port: Option<u16>,
    /// The names that led the other end there.
    pub names: SmallVec<[Name; 1]>,
}

/// The kind of an event, with what only that kind has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventDetail {
    /// A DNS lookup.
    Lookup(LookupEvent),
    /// A connection, or a packet of none.
    Flow(FlowEvent),
    /// A request inside a connection.
    Request(RequestEvent),
    /// News of a policy.
    Policy(PolicyNews),
    /// News of the agent.
    Agent(AgentEvent),
}

/// A DNS lookup that was allowed, refused, or failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookupEvent {
    /// The name that was asked for.
    pub name: Name,
    /// The upstream that answered, where one did.
    pub upstream: Option<SocketAddr>,
    /// The addresses of the answer.
    pub addresses: SmallVec<[IpAddr; 2]>,
    /// Why it was refused or failed, in a sentence.
    pub reason: Option<String>,
}

/// A flow, as far as it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowEvent {
    /// The IANA protocol number.
    pub protocol: u8,
    /// The type of the ICMP message.
    pub icmp_type: Option<u8>,
    /// What NAT made of it.
    pub nat: FlowNat,
    /// What the flow carried; `None` as long as it has not ended.
    pub totals: Option<FlowTotals>,
}

/// The other side of a NAT; each `None` where nothing was translated, or nobody knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlowNat {
    /// Whom the first packet was sent to; the event's destination is what that became.
    pub asked: Option<SocketAddr>,
    /// What the source became.
    pub sent_as: Option<SocketAddr>,
}

/// What a flow carried, both ways together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowTotals {
    /// Packets; `None` where the kernel does not count.
    pub packets: Option<u64>,
    /// Octets, IP headers included; `None` where the kernel does not count.
    pub bytes: Option<u64>,
    /// From the first packet until the kernel closed or forgot it.
    pub duration: Duration,
}

/// A request inside a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestEvent {
    /// Whether it came in TLS.
    pub is_tls: bool,
    /// The method of HTTP; `None` where only the server's name is known (TLS).
    pub method: Option<String>,
    /// The host that was asked for.
    pub host: String,
    /// The path.
    pub path: Option<String>,
    /// The status of the answer.
    pub status: Option<u16>,
    /// Why it was refused, in a sentence.
    pub reason: Option<String>,
}

/// News of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyNews {
    /// The policy, as `NAMESPACE/NAME` or `NAME`.
    pub policy: String,
    /// What changed.
    pub change: PolicyChange,
}

/// What changed about a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyChange {
    /// It is in force for these endpoints.
    InForce(Vec<String>),
    /// It selects no endpoint of this node any more.
    SelectsNone,
    /// It was read, and this is its state: `accepted`, `partial`, `kept-last-good`, `rejected`.
    Read(&'static str),
}

/// News of the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentEvent {
    /// A plan is in force for the first time.
    Ready,
    /// A plan could not be put in force: why.
    NotInForce(String),
    /// The kernel's records cannot be read: why.
    NotRecording(String),
    /// The kernel had more records than were read in time.
    RecordsLost,
    /// Flows that are allowed cannot be watched: why.
    NotWatching(String),
    /// More flows began and ended than were read in time.
    FlowsLost,
    /// The kernel does not count what flows carry.
    FlowsNotCounted,
}

impl EventDetail {
    /// The kind alone.
    pub fn kind(&self) -> EventKind {
        match self {
            EventDetail::Lookup(_) => EventKind::Lookup,
            EventDetail::Flow(_) => EventKind::Flow,
            EventDetail::Request(_) => EventKind::Request,
            EventDetail::Policy(_) => EventKind::Policy,
            EventDetail::Agent(_) => EventKind::Agent,
        }
    }
}

impl EventVerdict {
    /// All of them.
    pub const ALL: [EventVerdict; 5] = [
        EventVerdict::Allowed,
        EventVerdict::Refused,
        EventVerdict::Audited,
        EventVerdict::Failed,
        EventVerdict::Noted,
    ];

    /// The word for it in JSON and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            EventVerdict::Allowed => "allowed",
            EventVerdict::Refused => "refused",
            EventVerdict::Audited => "audited",
            EventVerdict::Failed => "failed",
            EventVerdict::Noted => "noted",
        }
    }

    /// The inverse of [`as_str`](Self::as_str).
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.as_str() == word)
    }
}

impl EventKind {
    /// All of them.
    pub const ALL: [EventKind; 5] = [
        EventKind::Lookup,
        EventKind::Flow,
        EventKind::Request,
        EventKind::Policy,
        EventKind::Agent,
    ];

    /// The word for it in JSON and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Lookup => "lookup",
            EventKind::Flow => "flow",
            EventKind::Request => "request",
            EventKind::Policy => "policy",
            EventKind::Agent => "agent",
        }
    }

    /// The inverse of [`as_str`](Self::as_str).
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

#[cfg(test)]
pub(crate) mod samples {
    use super::*;

    /// A refused lookup of this Pod.
    pub(crate) fn lookup(pod: &str, name: &str) -> Event {
        Event {
            at: WallTime::from_millis(1_000),
            verdict: EventVerdict::Refused,
            direction: Some(Direction::Egress),
            source: Some(EventEnd {
                pod: Some(pod.parse().unwrap()),
                address: Some([10, 0, 0, 2].into()),
                ..EventEnd::default()
            }),
            destination: None,
            policies: vec!["shop/web".into()],
            rule: None,
            detail: EventDetail::Lookup(LookupEvent {
                name: Name::parse(name).unwrap(),
                upstream: None,
                addresses: SmallVec::new(),
                reason: Some("no".into()),
            }),
        }
    }

    /// An audited flow of this Pod.
    pub(crate) fn flow(pod: &str, to: &str, port: u16, name: &str) -> Event {
        Event {
            verdict: EventVerdict::Audited,
            destination: Some(EventEnd {
                pod: None,
                address: Some(to.parse().unwrap()),
                port: Some(port),
                names: [Name::parse(name).unwrap()].into_iter().collect(),
            }),
            detail: EventDetail::Flow(FlowEvent {
                protocol: 6,
                icmp_type: None,
                nat: FlowNat::default(),
                totals: None,
            }),
            ..lookup(pod, name)
        }
    }
}
