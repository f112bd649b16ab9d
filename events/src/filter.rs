//! Which events somebody wants to see. Pure.

use clock::WallTime;
use ipnet::IpNet;
use names::Pattern;
use policy::EndpointId;

use crate::event::{Event, EventDetail, EventEnd, EventKind, EventVerdict};

/// Conditions that an event must all meet. Of several values of one condition, one is enough; an
/// empty list asks for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// A Pod at either end.
    pub pods: Vec<EndpointId>,
    /// The namespace of a Pod at either end.
    pub namespaces: Vec<String>,
    /// The name that was asked for, or that led to the destination.
    pub to_names: Vec<Pattern>,
    /// The destination's address, or one of the answer.
    pub to_networks: Vec<IpNet>,
    /// The port at either end.
    pub ports: Vec<u16>,
    /// What was decided.
    pub verdicts: Vec<EventVerdict>,
    /// The kind.
    pub kinds: Vec<EventKind>,
    /// Not before this.
    pub since: Option<WallTime>,
}

impl EventFilter {
    /// Whether the event meets all conditions.
    pub fn matches(&self, event: &Event) -> bool {
        let ends = || [&event.source, &event.destination].into_iter().flatten();
        let is_any_pod = |test: &dyn Fn(&EndpointId) -> bool| ends().filter_map(|end| end.pod.as_ref()).any(test);
        self.since.is_none_or(|since| event.at >= since)
            && (self.kinds.is_empty() || self.kinds.contains(&event.detail.kind()))
            && (self.verdicts.is_empty() || self.verdicts.contains(&event.verdict))
            && (self.pods.is_empty() || is_any_pod(&|pod| self.pods.contains(pod)))
            && (self.namespaces.is_empty() || is_any_pod(&|pod| self.namespaces.contains(&pod.namespace)))
            && (self.ports.is_empty() || ends().any(|end| end.port.is_some_and(|port| self.ports.contains(&port))))
            && (self.to_names.is_empty() || self.has_name(event))
            && (self.to_networks.is_empty() || self.has_address(event))
    }

    /// The kinds of which somebody with this filter wants to see what is allowed.
    pub fn watched(&self) -> impl Iterator<Item = EventKind> {
        let wants_allowed = self.verdicts.is_empty() || self.verdicts.contains(&EventVerdict::Allowed);
        let all = EventKind::ALL.into_iter().filter(move |_| wants_allowed);
        all.filter(|kind| self.kinds.is_empty() || self.kinds.contains(kind))
    }

    fn has_name(&self, event: &Event) -> bool {
        let asked = match &event.detail {
            EventDetail::Lookup(lookup) => Some(&lookup.name),
            _ => None,
        };
        let led = event.destination.iter().flat_map(|end| &end.names);
        asked
            .into_iter()
            .chain(led)
            .any(|name| self.to_names.iter().any(|pattern| pattern.matches(name)))
    }

    fn has_address(&self, event: &Event) -> bool {
        let answered = match &event.detail {
            EventDetail::Lookup(lookup) => lookup.addresses.as_slice(),
            _ => &[],
        };
        let to = event.destination.as_ref().and_then(|EventEnd { address, .. }| *address);
        answered
            .iter()
            .copied()
            .chain(to)
            .any(|address| self.to_networks.iter().any(|network| network.contains(&address)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::samples;

    fn seen(change: impl FnOnce(&mut EventFilter)) -> (bool, bool) {
        let mut filter = EventFilter::default();
        change(&mut filter);
        let lookup = samples::lookup("shop/web", "api.example");
        let flow = samples::flow("shop/db", "192.0.2.7", 443, "www.cdn.example");
        (filter.matches(&lookup), filter.matches(&flow))
    }

    #[test]
    fn each_condition_picks_its_events() {
        assert_eq!(seen(|_| {}), (true, true));
        assert_eq!(seen(|it| it.pods = vec!["shop/web".parse().unwrap()]), (true, false));
        assert_eq!(seen(|it| it.namespaces = vec!["shop".into()]), (true, true));
        assert_eq!(seen(|it| it.namespaces = vec!["bank".into()]), (false, false));
        let pattern = |text| vec![Pattern::pattern(text).unwrap()];
        assert_eq!(seen(|it| it.to_names = pattern("*.example")), (true, false));
        assert_eq!(seen(|it| it.to_names = pattern("**.cdn.example")), (false, true));
        assert_eq!(
            seen(|it| it.to_networks = vec!["192.0.2.0/24".parse().unwrap()]),
            (false, true)
        );
        assert_eq!(seen(|it| it.ports = vec![80, 443]), (false, true));
        assert_eq!(seen(|it| it.verdicts = vec![EventVerdict::Refused]), (true, false));
        assert_eq!(seen(|it| it.kinds = vec![EventKind::Flow]), (false, true));
        assert_eq!(seen(|it| it.since = Some(WallTime::from_millis(1_001))), (false, false));
    }

    #[test]
    fn all_conditions_must_be_met() {
        let both = seen(|it| {
            it.kinds = vec![EventKind::Lookup];
            it.pods = vec!["shop/db".parse().unwrap()];
        });
        assert_eq!(both, (false, false));
    }

    #[test]
    fn who_does_not_want_what_is_allowed_watches_nothing() {
        let mut filter = EventFilter::default();
        assert_eq!(filter.watched().count(), EventKind::ALL.len());
        filter.kinds = vec![EventKind::Flow];
        assert_eq!(filter.watched().collect::<Vec<_>>(), [EventKind::Flow]);
        filter.verdicts = vec![EventVerdict::Refused];
        assert_eq!(filter.watched().count(), 0);
    }

    #[test]
    fn every_word_reads_back() {
        for verdict in EventVerdict::ALL {
            assert_eq!(EventVerdict::named(verdict.as_str()), Some(verdict));
        }
        for kind in EventKind::ALL {
            assert_eq!(EventKind::named(kind.as_str()), Some(kind));
        }
        assert_eq!(EventKind::named("drop"), None);
    }
}
