//! What events cost who makes them.

use std::net::Ipv4Addr;
use std::sync::Arc;

use clock::{Time, WallTime};
use events::{Event, EventDetail, EventEnd, EventKind, EventLog, EventSource, EventVerdict, LookupEvent, RingLimits};
use names::Name;
use policy::{Direction, EndpointId};

use crate::BenchIteration;

const POD: EventSource = EventSource::Pod(std::net::IpAddr::V4(Ipv4Addr::new(10, 244, 0, 10)));

/// A hundred lookups that are allowed, while nobody watches: all that they pay.
pub(crate) fn unwatched() -> BenchIteration {
    let log = Arc::new(EventLog::new(RingLimits::default()));
    Box::new(move || {
        let watched = (0..100).filter(|_| std::hint::black_box(&log).is_watched(EventKind::Lookup));
        watched.count()
    })
}

/// A lookup that is refused, of a pod that has had too many of them.
pub(crate) fn left_out() -> BenchIteration {
    let log = EventLog::new(RingLimits::default());
    let now = Time::from_millis(1);
    while log.takes(POD, EventKind::Lookup, now) {}
    Box::new(move || usize::from(log.takes(POD, EventKind::Lookup, now)))
}

/// A lookup that is refused, and recorded where the ring is full.
pub(crate) fn refused() -> BenchIteration {
    let log = EventLog::new(RingLimits {
        rate: None,
        ..RingLimits::default()
    });
    let name = Name::parse("www.denied.example").unwrap();
    let pod = EndpointId {
        namespace: "shop".into(),
        name: "web".into(),
    };
    let record = move || {
        let takes = log.takes(POD, EventKind::Lookup, Time::from_millis(1));
        log.record(POD, event(&name, &pod));
        usize::from(takes)
    };
    for _ in 0..RingLimits::default().per_source {
        record();
    }
    Box::new(record)
}

fn event(name: &Name, pod: &EndpointId) -> Event {
    Event {
        at: WallTime::from_millis(1),
        verdict: EventVerdict::Refused,
        direction: Some(Direction::Egress),
        source: Some(EventEnd {
            pod: Some(pod.clone()),
            address: Some(Ipv4Addr::new(10, 244, 0, 10).into()),
            ..EventEnd::default()
        }),
        destination: None,
        policies: vec!["shop/web".into()],
        rule: None,
        detail: EventDetail::Lookup(LookupEvent {
            name: name.clone(),
            upstream: None,
            addresses: Default::default(),
            reason: Some("namegate: no toFQDNs selector of shop/web matches www.denied.example".into()),
        }),
    }
}
