//! The live flows that `explain` is asked about, and what becomes of each. Pure.
//!
//! A policy decides about the first packet of a flow. What began before an edit goes on, unless the
//! agent cuts it (`revocation`); a flow may also outlive the lease that let it in. So that a
//! connection is open says little of what policies say now, and the other way round.

use std::collections::BTreeSet;
use std::net::IpAddr;

use api::{FlowAnswer, FlowFate};
use enforcer::revocation::{Flow, FlowVerdict};
use policy::{Direction, Protocol};
use settings::Revocation;

/// So many are told; the rest are counted.
const TOLD: usize = 20;

/// Which flows are meant: those that one of the sources opened to one of the destinations.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FlowQuestion<'a> {
    pub(crate) sources: &'a BTreeSet<IpAddr>,
    pub(crate) destinations: &'a BTreeSet<IpAddr>,
    /// The receiver's port, or any.
    pub(crate) traffic: Option<(Protocol, u16)>,
}

/// The flows that are meant, and how many more there are.
pub(crate) fn answers(
    flows: impl IntoIterator<Item = Flow>,
    asked: FlowQuestion<'_>,
    verdict: impl Fn(&Flow) -> FlowVerdict,
    revoke: Revocation,
) -> (Vec<FlowAnswer>, usize) {
    let mut meant: Vec<Flow> = flows.into_iter().filter(|flow| asked.means(flow)).collect();
    meant.sort_unstable_by_key(|flow| (flow.protocol, flow.source, flow.destination));
    let more = meant.len().saturating_sub(TOLD);
    meant.truncate(TOLD);
    let told = meant.iter().map(|flow| {
        let (fate, reason) = fate(flow, verdict(flow), revoke);
        FlowAnswer {
            protocol: name_of(flow.protocol),
            source: flow.source,
            destination: flow.destination,
            fate,
            reason,
        }
    });
    (told.collect(), more)
}

impl FlowQuestion<'_> {
    fn means(self, flow: &Flow) -> bool {
        let is_traffic = self.traffic.is_none_or(|(protocol, port)| {
            let is_port = match protocol {
                Protocol::Icmp | Protocol::Icmpv6 => flow.icmp_type.map(u16::from) == Some(port),
                Protocol::Tcp | Protocol::Udp | Protocol::Sctp => flow.destination.port() == port,
            };
            flow.protocol == protocol.number() && is_port
        });
        let is_destination = [flow.destination, flow.asked]
            .iter()
            .any(|it| self.destinations.contains(&it.ip()));
        is_traffic && self.sources.contains(&flow.source.ip()) && is_destination
    }
}

fn fate(flow: &Flow, verdict: FlowVerdict, revoke: Revocation) -> (FlowFate, String) {
    let direction = |direction: Direction| match direction {
        Direction::Egress => "the sender's egress policies",
        Direction::Ingress => "the receiver's ingress policies",
    };
    match (verdict, revoke) {
        (FlowVerdict::Allowed, _) if flow.is_expected => (
            FlowFate::Kept,
            "it belongs to another flow, as a protocol helper has told the kernel".to_owned(),
        ),
        (FlowVerdict::Allowed, _) => (FlowFate::Kept, "no policy denies it".to_owned()),
        (FlowVerdict::Denied(of), Revocation::Off) => (
            FlowFate::Kept,
            format!("it began before {} denied it, and `--revoke off` leaves it alone", direction(of)),
        ),
        (FlowVerdict::Denied(of), _) => (
            FlowFate::Cut,
            format!("{} do not allow it: it is refused both ways", direction(of)),
        ),
        (FlowVerdict::Unattributed, Revocation::Strict) => (
            FlowFate::Cut,
            "no lease holds the address, and `--revoke strict` cuts what no name is known of".to_owned(),
        ),
        (FlowVerdict::Unattributed, _) => (
            FlowFate::Kept,
            "no lease holds the address any more, and it is not known which name led there; `--revoke strict` would cut it"
                .to_owned(),
        ),
    }
}

fn name_of(protocol: u8) -> String {
    let known = Protocol::ALL.into_iter().find(|known| known.number() == protocol);
    known.map_or_else(|| format!("protocol {protocol}"), |known| known.to_string())
}

#[cfg(test)]
mod tests {
    use crate::samples::flow;

    use super::*;

    fn told(verdict: FlowVerdict, revoke: Revocation) -> (FlowFate, String) {
        let flow = flow("10.0.0.2:4000", "10.0.0.3:80", "10.96.0.1:8080");
        fate(&flow, verdict, revoke)
    }

    #[test]
    fn flows_between_the_two_ends_are_told_whichever_address_was_asked() {
        let flows = [
            flow("10.0.0.2:4000", "10.0.0.3:80", "10.96.0.1:8080"),
            flow("10.0.0.2:4001", "10.0.0.4:80", "10.0.0.4:80"),
            flow("10.0.0.3:4002", "10.0.0.2:80", "10.0.0.2:80"),
        ];
        let sources = BTreeSet::from(["10.0.0.2".parse().unwrap()]);
        let of = |destination: &str, traffic| {
            let destinations = BTreeSet::from([destination.parse().unwrap()]);
            let asked = FlowQuestion {
                sources: &sources,
                destinations: &destinations,
                traffic,
            };
            let (told, more) = answers(flows, asked, |_| FlowVerdict::Allowed, Revocation::Attributed);
            assert_eq!(more, 0);
            told.into_iter().map(|flow| flow.source.port()).collect::<Vec<_>>()
        };
        assert_eq!(of("10.0.0.3", None), [4000]);
        assert_eq!(
            of("10.96.0.1", Some((Protocol::Tcp, 80))),
            [4000],
            "the receiver's port"
        );
        assert_eq!(of("10.0.0.3", Some((Protocol::Tcp, 8080))), [0; 0]);
        assert_eq!(of("10.0.0.3", Some((Protocol::Udp, 80))), [0; 0]);
        assert_eq!(of("10.0.0.4", None), [4001]);
    }

    #[test]
    fn many_flows_are_counted_and_not_told_one_by_one() {
        let flows: Vec<Flow> = (0..25)
            .map(|n| flow(&format!("10.0.0.2:{}", 4000 + n), "10.0.0.3:80", "10.0.0.3:80"))
            .collect();
        let [sources, destinations] = ["10.0.0.2", "10.0.0.3"].map(|it| BTreeSet::from([it.parse().unwrap()]));
        let asked = FlowQuestion {
            sources: &sources,
            destinations: &destinations,
            traffic: None,
        };
        let (told, more) = answers(flows, asked, |_| FlowVerdict::Allowed, Revocation::Off);
        assert_eq!((told.len(), more), (TOLD, 5));
    }

    #[test]
    fn what_becomes_of_a_flow_follows_from_policies_and_from_what_is_revoked() {
        use Revocation::{Attributed, Off, Strict};
        let denied = FlowVerdict::Denied(Direction::Ingress);
        for (verdict, revoke, expected, said) in [
            (FlowVerdict::Allowed, Strict, FlowFate::Kept, "no policy denies it"),
            (denied, Attributed, FlowFate::Cut, "the receiver's ingress"),
            (denied, Off, FlowFate::Kept, "`--revoke off`"),
            (
                FlowVerdict::Unattributed,
                Attributed,
                FlowFate::Kept,
                "`--revoke strict` would",
            ),
            (FlowVerdict::Unattributed, Strict, FlowFate::Cut, "`--revoke strict`"),
        ] {
            let (fate, reason) = told(verdict, revoke);
            assert_eq!(fate, expected, "{verdict:?} {revoke:?}");
            assert!(reason.contains(said), "{reason}");
        }
    }
}
