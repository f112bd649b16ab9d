//! What became of lookups, as events.
//!
//! What is refused or fails is always recorded, what is allowed only while somebody watches: then a
//! lookup that nobody watches costs one load. What recording costs is paid once the replies are
//! sent, where a batch of lookups ends (`Gate::replied`).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use dns_proxy::ValidatedAnswer;
use events::{Event, EventDetail, EventEnd, EventKind, EventSource, EventVerdict, LookupEvent};
use names::Name;
use planner::{Governed, Plan};
use policy::{Direction, EndpointId};
use smallvec::SmallVec;

use super::{ClientIdentity, GateCore, WorkerState, lookup_log};

/// A lookup that was refused, as far as the moment must be kept.
#[derive(Debug)]
pub(super) struct RefusedLookup {
    source: IpAddr,
    endpoint: Option<Arc<Governed>>,
    name: Name,
    reason: String,
}

/// Denied lookups since the last replies were sent, to be counted by namespace once they are. All
/// of them, whether they are recorded or not.
#[derive(Debug, Default)]
pub(super) struct DeniedLookups(Vec<(Option<Arc<Governed>>, u64)>);

impl DeniedLookups {
    /// Adds one. Those that follow each other are mostly one client's.
    fn add(&mut self, endpoint: Option<&Arc<Governed>>) {
        match self.0.last_mut() {
            Some((last, count)) if last.as_ref().map(Arc::as_ptr) == endpoint.map(Arc::as_ptr) => *count += 1,
            _ => self.0.push((endpoint.cloned(), 1)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl GateCore {
    /// Counts what was denied.
    #[cold]
    pub(super) fn count_denied(&self, denied: &mut DeniedLookups) {
        for (endpoint, count) in denied.0.drain(..) {
            let namespace = endpoint.as_ref().map_or("", |endpoint| &endpoint.id.namespace);
            self.metrics.denied_lookups(namespace, count);
        }
    }

    /// Notes a lookup that is refused, unless this source has had too many.
    pub(super) fn refused(
        &self,
        worker_state: &mut WorkerState,
        plan: &Plan,
        source: IpAddr,
        name: &Name,
        reason: &dyn Fn() -> String,
    ) {
        let endpoint = plan.governed.get(&source);
        worker_state.denied.add(endpoint);
        let part = match endpoint {
            Some(_) => EventSource::Pod(source),
            None => EventSource::Others,
        };
        if self.events.takes(part, EventKind::Lookup, clock::now()) {
            worker_state.refused.push(RefusedLookup {
                source,
                endpoint: endpoint.cloned(),
                name: name.clone(),
                reason: reason(),
            });
        }
    }

    /// Records what was noted, with the policies that decided.
    #[cold]
    pub(super) fn record_refused(&self, noted: &mut Vec<RefusedLookup>) {
        let in_force = self.in_force.load();
        let now = clock::now();
        for lookup in noted.drain(..) {
            let endpoint = lookup.endpoint.as_deref();
            let policies = lookup_log::policies(&in_force.plan, endpoint, &lookup.name);
            self.refused.note(
                now,
                lookup.source,
                endpoint.map(|governed| &governed.id),
                &lookup.name,
                (&lookup.reason, &policies),
            );
            let client = LookupClient {
                address: lookup.source,
                pod: endpoint.map(|governed| governed.id.clone()),
            };
            self.record(
                client,
                EventVerdict::Refused,
                policies,
                LookupEvent {
                    name: lookup.name,
                    upstream: None,
                    addresses: SmallVec::new(),
                    reason: Some(lookup.reason),
                },
            );
        }
    }

    /// An answer is released.
    pub(super) fn released(&self, identity: &ClientIdentity, validated: &ValidatedAnswer, because: &str) {
        lookup_log::admitted(identity, validated, because);
        if self.events.is_watched(EventKind::Lookup) {
            self.record_allowed(identity, validated);
        }
    }

    #[cold]
    fn record_allowed(&self, identity: &ClientIdentity, validated: &ValidatedAnswer) {
        let in_force = self.in_force.load();
        let plan = &in_force.plan;
        let (endpoint, address) = match identity {
            ClientIdentity::Endpoint(endpoint, _) | ClientIdentity::Coming(endpoint, ..) => {
                let mut addresses = plan.local.iter().filter(|local| local.id == endpoint.id);
                let own = addresses.next().and_then(|local| local.addresses.first().copied());
                (Some(&**endpoint), own)
            }
            ClientIdentity::Other(address) => (None, Some(*address)),
        };
        let client = LookupClient {
            address: address.unwrap_or(IpAddr::from([0; 4])),
            pod: endpoint.map(|governed| governed.id.clone()),
        };
        if self.events.takes(client.part(), EventKind::Lookup, clock::now()) {
            let policies = lookup_log::policies(plan, endpoint, &validated.name);
            self.record(
                client,
                EventVerdict::Allowed,
                policies,
                LookupEvent {
                    name: validated.name.clone(),
                    upstream: Some(validated.source),
                    addresses: validated.addresses.iter().map(|(address, _)| *address).collect(),
                    reason: None,
                },
            );
        }
    }

    /// A lookup that was allowed has failed.
    #[cold]
    pub(super) fn failed(&self, plan: &Plan, source: IpAddr, (name, upstream): (&Name, Option<SocketAddr>), why: &str) {
        let endpoint = plan.governed.get(&source).map(|governed| &**governed);
        let client = LookupClient {
            address: source,
            pod: endpoint.map(|governed| governed.id.clone()),
        };
        if self.events.takes(client.part(), EventKind::Lookup, clock::now()) {
            let policies = lookup_log::policies(plan, endpoint, name);
            self.record(
                client,
                EventVerdict::Failed,
                policies,
                LookupEvent {
                    name: name.clone(),
                    upstream,
                    addresses: SmallVec::new(),
                    reason: Some(why.to_owned()),
                },
            );
        }
    }

    fn record(&self, client: LookupClient, verdict: EventVerdict, policies: Vec<String>, lookup: LookupEvent) {
        let part = client.part();
        let event = Event {
            at: clock::wall_now(),
            verdict,
            direction: Some(Direction::Egress),
            source: Some(EventEnd {
                pod: client.pod,
                address: Some(client.address),
                ..EventEnd::default()
            }),
            destination: None,
            policies,
            rule: None,
            detail: EventDetail::Lookup(lookup),
        };
        self.events.record(part, event);
    }
}

/// Who asked.
struct LookupClient {
    address: IpAddr,
    pod: Option<EndpointId>,
}

impl LookupClient {
    fn part(&self) -> EventSource {
        match self.pod {
            Some(_) => EventSource::Pod(self.address),
            None => EventSource::Others,
        }
    }
}
