//! What is told of flows that were cut. Pure.
//!
//! An edit may cut ten thousand flows of a hundred pods. An agent sends one Event for each pod and
//! direction, with their number, and few of them a minute: what else is cut meanwhile is added up.

use std::collections::BTreeMap;
use std::time::Duration;

use policy::{Direction, EndpointId};
use tokio::time::Instant;

/// So many Events are sent within a [`WINDOW`].
const BURST: usize = 10;
/// Of one pod and direction there is one within it.
const WINDOW: Duration = Duration::from_secs(60);
/// So many pods wait at most; the flows of others are told by metrics and the log alone.
const WAITING: usize = 1_000;

/// Flows of a pod that were cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutNotice {
    /// The pod whose policies do not allow them.
    pub pod: EndpointId,
    /// Whose: those that it opened, or those that were opened to it.
    pub direction: Direction,
    /// How many.
    pub flows: usize,
}

type PodDirection = (EndpointId, Direction);

/// Notices over time → those that are sent.
#[derive(Debug, Default)]
pub(super) struct CutEvents {
    waiting: BTreeMap<PodDirection, usize>,
    /// When something was said of each lately.
    told: BTreeMap<PodDirection, Instant>,
}

impl CutEvents {
    pub(super) fn take(&mut self, notice: CutNotice) {
        let key = (notice.pod, notice.direction);
        if self.waiting.len() < WAITING || self.waiting.contains_key(&key) {
            *self.waiting.entry(key).or_default() += notice.flows;
        }
    }

    /// When there is something to send.
    pub(super) fn due(&self) -> Option<Instant> {
        let of_one = |key| self.told.get(key).map(|told| *told + WINDOW);
        let first = self.waiting.keys().map(of_one).min()?;
        let mut lately: Vec<Instant> = self.told.values().copied().collect();
        lately.sort_unstable_by(|one, other| other.cmp(one));
        let pace = lately.get(BURST - 1).map(|of_burst| *of_burst + WINDOW);
        let now = Instant::now();
        Some(first.unwrap_or(now).max(pace.unwrap_or(now)))
    }

    /// What is sent now.
    pub(super) fn next(&mut self, now: Instant) -> Option<CutNotice> {
        self.told.retain(|_, told| *told + WINDOW > now);
        let key = self.waiting.keys().find(|key| !self.told.contains_key(*key))?.clone();
        let flows = self.waiting.remove(&key)?;
        self.told.insert(key.clone(), now);
        let (pod, direction) = key;
        Some(CutNotice { pod, direction, flows })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(pod: usize, flows: usize) -> CutNotice {
        CutNotice {
            pod: EndpointId {
                namespace: "shop".into(),
                name: format!("p{pod:04}"),
            },
            direction: Direction::Ingress,
            flows,
        }
    }

    /// What is sent within a time, and when.
    fn sent(events: &mut CutEvents, from: Instant, within: Duration) -> Vec<(Duration, CutNotice)> {
        let mut sent = Vec::new();
        let mut now = from;
        while let Some(due) = events.due().filter(|due| *due <= from + within) {
            now = now.max(due);
            match events.next(now) {
                Some(notice) => sent.push((now - from, notice)),
                None => break,
            }
        }
        sent
    }

    #[test]
    fn flows_of_a_pod_are_one_event_and_what_follows_within_a_minute_another() {
        let start = Instant::now() + Duration::from_secs(3_600);
        let mut events = CutEvents::default();
        events.take(notice(1, 3));
        events.take(notice(1, 4));
        assert_eq!(events.next(start), Some(notice(1, 7)));
        events.take(notice(1, 5));
        events.take(notice(1, 6));
        assert_eq!(events.next(start), None);
        assert_eq!(events.due(), Some(start + WINDOW));
        assert_eq!(events.next(start + WINDOW), Some(notice(1, 11)));
        assert_eq!(events.due(), None);
    }

    #[test]
    fn many_pods_are_told_of_slowly() {
        let start = Instant::now() + Duration::from_secs(3_600);
        let mut events = CutEvents::default();
        (0..2 * WAITING).for_each(|pod| events.take(notice(pod, 1)));
        assert_eq!(events.waiting.len(), WAITING);
        let sent = sent(&mut events, start, Duration::from_secs(120));
        let at_once = sent.iter().filter(|(after, _)| after.is_zero()).count();
        assert_eq!(at_once, BURST);
        assert!(sent.len() <= 3 * BURST, "{}", sent.len());
        assert!(sent.len() > BURST + 10, "{}", sent.len());
    }
}
