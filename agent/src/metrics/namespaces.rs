//! Counters with a label that is no closed enum, and bounded all the same.

use std::collections::HashMap;

use parking_lot::Mutex;
use policy::Direction;
use prometheus::{IntCounter, IntCounterVec};

/// Namespaces with a series of their own: more than a node usually has pods.
const MOST: usize = 256;
/// The label of all further ones. No namespace can be called that.
const OTHERS: &str = "(others)";

/// A counter for each namespace, in one direction where there are two, up to a bound; the
/// namespaces that come first have their own.
#[derive(Debug)]
pub(super) struct Namespaces {
    counters: IntCounterVec,
    direction: Option<Direction>,
    known: Mutex<HashMap<String, IntCounter>>,
}

impl Namespaces {
    /// `counters` have the labels `direction`, if there is one, and `namespace`.
    pub(super) fn new(counters: IntCounterVec, direction: Option<Direction>) -> Self {
        Self {
            counters,
            direction,
            known: Mutex::default(),
        }
    }

    /// Adds to the count of a namespace.
    pub(super) fn count(&self, namespace: &str, more: u64) {
        let mut known = self.known.lock();
        if let Some(counter) = known.get(namespace) {
            return counter.inc_by(more);
        }
        let label = match known.len() < MOST {
            true => namespace,
            false => OTHERS,
        };
        let counter = match self.direction {
            Some(direction) => self.counters.with_label_values(&[direction.as_str(), label]),
            None => self.counters.with_label_values(&[label]),
        };
        counter.inc_by(more);
        if label == namespace {
            known.insert(namespace.to_owned(), counter);
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Opts;
    use prometheus::core::Collector;

    use super::*;

    #[test]
    fn namespaces_without_end_share_one_series() {
        let counters = IntCounterVec::new(Opts::new("x_total", "x"), &["direction", "namespace"]).unwrap();
        let namespaces = Namespaces::new(counters.clone(), Some(Direction::Ingress));
        for _ in 0..2 {
            for number in 0..1_000 {
                namespaces.count(&format!("n{number}"), 1);
            }
        }
        assert_eq!(counters.collect()[0].get_metric().len(), MOST + 1);
        assert_eq!(counters.with_label_values(&["ingress", "n0"]).get(), 2);
        assert_eq!(
            counters.with_label_values(&["ingress", OTHERS]).get(),
            2 * (1_000 - MOST as u64)
        );
    }
}
