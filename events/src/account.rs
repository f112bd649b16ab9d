//! What a command or a Pod did on the network, out of its events. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use names::Name;

use crate::event::{Event, EventDetail, EventVerdict, FlowEvent, LookupEvent, RequestEvent};

/// What somebody has looked up and connected to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkAccount {
    /// By the names that were looked up, or led somewhere.
    pub names: BTreeMap<Name, NameUse>,
    /// Destinations that no name has led to.
    pub nameless: BTreeMap<FlowEnd, FlowUse>,
    /// How often requests were refused, in connections that are looked into.
    pub refused_requests: BTreeMap<RequestLine, u64>,
    /// So many events were not seen.
    pub lost: u64,
}

/// What somebody did with a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameUse {
    /// Lookups that were answered, also with nothing.
    pub answered: u64,
    /// Lookups that were refused.
    pub refused: u64,
    /// Why the last of these was.
    pub reason: Option<String>,
    /// What it resolved to.
    pub addresses: BTreeSet<IpAddr>,
    /// Where it led to.
    pub flows: BTreeMap<FlowEnd, FlowUse>,
}

/// A request as people write it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestLine {
    /// Whether it came in TLS.
    pub is_tls: bool,
    /// The host, with a port where one was written.
    pub host: String,
    /// The path with the query; `None` where the connection was refused by its name alone.
    pub path: Option<String>,
    /// The method; `None` likewise.
    pub method: Option<String>,
}

/// How many flows began to one destination.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlowUse {
    /// Let through.
    pub passed: u64,
    /// Refused.
    pub refused: u64,
}

/// Where a flow leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowEnd {
    /// The destination's address.
    pub address: IpAddr,
    /// Over what.
    pub traffic: FlowTraffic,
}

/// What rules tell apart of a flow's traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowTraffic {
    /// The IANA protocol number.
    pub protocol: u8,
    /// The port, or the type of the ICMP message.
    pub port: Option<u16>,
}

impl NetworkAccount {
    /// Takes in an event. Returns whether something new was refused.
    pub fn take(&mut self, event: &Event) -> bool {
        match &event.detail {
            EventDetail::Lookup(lookup) => self.looked_up(event.verdict, lookup),
            EventDetail::Flow(flow) => self.flowed(event, flow),
            EventDetail::Request(request) => self.requested(event.verdict, request),
            EventDetail::Policy(_) | EventDetail::Agent(_) => false,
        }
    }

    fn requested(&mut self, verdict: EventVerdict, request: &RequestEvent) -> bool {
        let is_refused = verdict == EventVerdict::Refused;
        if is_refused {
            let line = RequestLine {
                is_tls: request.is_tls,
                host: request.host.clone(),
                path: request.path.clone(),
                method: request.method.clone(),
            };
            *self.refused_requests.entry(line).or_default() += 1;
        }
        is_refused
    }

    fn looked_up(&mut self, verdict: EventVerdict, lookup: &LookupEvent) -> bool {
        let of_name = self.names.entry(lookup.name.clone()).or_default();
        match verdict {
            EventVerdict::Refused => {
                of_name.refused += 1;
                of_name.reason.clone_from(&lookup.reason);
                return true;
            }
            EventVerdict::Allowed | EventVerdict::Audited => {
                of_name.answered += 1;
                of_name.addresses.extend(&lookup.addresses);
            }
            EventVerdict::Failed | EventVerdict::Noted => {}
        }
        false
    }

    fn flowed(&mut self, event: &Event, flow: &FlowEvent) -> bool {
        let Some(destination) = &event.destination else {
            return false;
        };
        let Some(address) = destination.address.filter(|address| !is_of_the_link(*address)) else {
            return false;
        };
        let end = FlowEnd {
            address,
            traffic: FlowTraffic {
                protocol: flow.protocol,
                port: destination.port.or(flow.icmp_type.map(u16::from)),
            },
        };
        let flows = match destination.names.first() {
            Some(name) => &mut self.names.entry(name.clone()).or_default().flows,
            None => &mut self.nameless,
        };
        let of_end = flows.entry(end).or_default();
        if flow.totals.is_some() {
            // Its beginning counts, and counts once also where nobody saw it.
            of_end.passed = of_end.passed.max(1);
            return false;
        }
        match event.verdict {
            EventVerdict::Refused => {
                of_end.refused += 1;
                true
            }
            _ => {
                of_end.passed += 1;
                false
            }
        }
    }
}

/// Whether a packet to this address is one that the kernel or a discovery protocol sends by itself,
/// and that never leaves the sandbox's own link.
fn is_of_the_link(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_multicast() || v6.is_unicast_link_local(),
    }
}

impl fmt::Display for FlowTraffic {
    /// As in `443/TCP`; for ICMP the type stands in the port's place.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(port) = self.port {
            write!(f, "{port}/")?;
        }
        match self.protocol {
            1 => f.write_str("ICMP"),
            6 => f.write_str("TCP"),
            17 => f.write_str("UDP"),
            58 => f.write_str("ICMPv6"),
            132 => f.write_str("SCTP"),
            other => write!(f, "protocol {other}"),
        }
    }
}

/// Events, for the tests of what is made of them.
#[cfg(any(test, feature = "samples"))]
pub mod samples {
    #![allow(clippy::unwrap_used)] // Of names and addresses that tests write.

    use clock::WallTime;

    use crate::event::{EventEnd, FlowNat};

    use super::*;

    /// A name.
    pub fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    /// A lookup with these addresses as its answer.
    pub fn lookup(verdict: EventVerdict, asked: &str, addresses: &[&str]) -> Event {
        let addresses = addresses.iter().map(|text| text.parse().unwrap());
        Event {
            at: WallTime::default(),
            verdict,
            direction: None,
            source: None,
            destination: None,
            policies: Vec::new(),
            rule: None,
            detail: EventDetail::Lookup(LookupEvent {
                name: name(asked),
                upstream: None,
                addresses: addresses.collect(),
                reason: Some("namegate: no".into()),
            }),
        }
    }

    /// A flow to this address, protocol and port or ICMP type, which the name led to.
    pub fn flow(verdict: EventVerdict, to: &str, (protocol, port): (u8, u16), led: Option<&str>) -> Event {
        let is_icmp = matches!(protocol, 1 | 58);
        Event {
            destination: Some(EventEnd {
                address: Some(to.parse().unwrap()),
                port: Some(port).filter(|_| !is_icmp),
                names: led.map(name).into_iter().collect(),
                ..EventEnd::default()
            }),
            detail: EventDetail::Flow(FlowEvent {
                protocol,
                icmp_type: u8::try_from(port).ok().filter(|_| is_icmp),
                nat: FlowNat::default(),
                totals: None,
            }),
            ..lookup(verdict, "unused.example", &[])
        }
    }

    /// A request in TLS that was refused.
    pub fn refused_request(method: &str, host: &str, path: &str) -> Event {
        Event {
            detail: EventDetail::Request(RequestEvent {
                is_tls: true,
                method: Some(method.to_owned()),
                host: host.to_owned(),
                path: Some(path.to_owned()),
                status: None,
                reason: None,
            }),
            ..lookup(EventVerdict::Refused, "unused.example", &[])
        }
    }

    /// The account of these events.
    pub fn account(events: &[Event]) -> NetworkAccount {
        let mut account = NetworkAccount::default();
        for event in events {
            account.take(event);
        }
        account
    }
}

#[cfg(test)]
mod tests {
    use super::samples::{account, flow, lookup, name};
    use super::*;
    use crate::event::FlowTotals;

    fn ended(mut event: Event) -> Event {
        if let EventDetail::Flow(flow) = &mut event.detail {
            flow.totals = Some(FlowTotals {
                packets: None,
                bytes: None,
                duration: std::time::Duration::ZERO,
            });
        }
        event
    }

    #[test]
    fn lookups_and_flows_are_counted_by_name_and_destination() {
        let seen = account(&[
            lookup(EventVerdict::Allowed, "a.example", &["192.0.2.1"]),
            lookup(EventVerdict::Allowed, "a.example", &[]),
            lookup(EventVerdict::Refused, "b.example", &[]),
            flow(EventVerdict::Audited, "192.0.2.1", (6, 443), Some("a.example")),
            flow(EventVerdict::Audited, "192.0.2.1", (6, 443), Some("a.example")),
            ended(flow(EventVerdict::Allowed, "192.0.2.1", (6, 443), Some("a.example"))),
            flow(EventVerdict::Refused, "192.0.2.9", (6, 25), None),
            flow(EventVerdict::Refused, "224.0.0.251", (17, 5353), None),
            flow(EventVerdict::Refused, "ff02::2", (58, 133), None),
        ]);
        let a = &seen.names[&name("a.example")];
        assert_eq!((a.answered, a.refused, a.addresses.len()), (2, 0, 1));
        assert_eq!(a.flows.values().map(|it| it.passed).collect::<Vec<_>>(), [2]);
        assert_eq!(seen.names[&name("b.example")].refused, 1);
        let nameless: Vec<_> = seen.nameless.keys().map(|end| end.traffic.to_string()).collect();
        assert_eq!(nameless, ["25/TCP"], "what stays on the link is nobody's wish");
    }
}
