//! A value for each port of each protocol.

use crate::ports::{PortRange, PortSet, Protocol};

/// A value for all traffic, with exceptions for ranges of ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortMap<T> {
    /// The value of every port and protocol that is in no exception, those without ports included.
    pub base: T,
    /// Sorted, disjoint, neighbours with one value joined; none has the base's value.
    pub exceptions: Vec<(PortRange, T)>,
}

impl<T: Copy + PartialEq> PortMap<T> {
    /// The same value everywhere.
    pub fn uniform(base: T) -> Self {
        Self {
            base,
            exceptions: Vec::new(),
        }
    }

    /// The value at a port; of a protocol that has none and is not told apart, with `None`.
    pub fn at(&self, traffic: Option<(Protocol, u16)>) -> T {
        let Some((protocol, port)) = traffic else {
            return self.base;
        };
        let holds =
            |(range, _): &&(PortRange, T)| range.protocol == protocol && (range.first..=range.last).contains(&port);
        self.exceptions
            .iter()
            .find(holds)
            .map_or(self.base, |(_, value)| *value)
    }

    /// Replaces each value at `ports` by what `change` makes of it.
    pub fn change(&mut self, ports: &PortSet, change: impl Fn(T) -> T) {
        match ports {
            PortSet::All => {
                self.base = change(self.base);
                self.exceptions
                    .iter_mut()
                    .for_each(|(_, value)| *value = change(*value));
            }
            PortSet::Ranges(ranges) => {
                let mut changed = Vec::new();
                for range in ranges {
                    changed.extend(self.tiles(*range).map(|(tile, value)| (tile, change(value))));
                }
                let holes = ports;
                for (range, value) in std::mem::take(&mut self.exceptions) {
                    if let PortSet::Ranges(left) = PortSet::Ranges(vec![range]).subtract(holes) {
                        changed.extend(left.into_iter().map(|range| (range, value)));
                    }
                }
                self.exceptions = changed;
            }
        }
        self.settle();
    }

    /// The values, each replaced by what `to` makes of it.
    pub fn map<U: Copy + PartialEq>(&self, to: impl Fn(T) -> U) -> PortMap<U> {
        let mut mapped = PortMap {
            base: to(self.base),
            exceptions: self
                .exceptions
                .iter()
                .map(|(range, value)| (*range, to(*value)))
                .collect(),
        };
        mapped.settle();
        mapped
    }

    /// The values of both at each port.
    pub fn zip<U: Copy + PartialEq>(&self, other: &PortMap<U>) -> PortMap<(T, U)> {
        let mut zipped = PortMap::uniform((self.base, other.base));
        for (range, _) in &self.exceptions {
            let tiles = other.tiles(*range).flat_map(|(tile, theirs)| {
                let ours = self.tiles(tile);
                ours.map(move |(tile, ours)| (tile, (ours, theirs)))
            });
            zipped.exceptions.extend(tiles);
        }
        let ours = PortSet::from_ranges(self.exceptions.iter().map(|(range, _)| *range));
        for (range, theirs) in &other.exceptions {
            if let PortSet::Ranges(left) = PortSet::Ranges(vec![*range]).subtract(&ours) {
                let left = left.into_iter().map(|range| (range, (self.base, *theirs)));
                zipped.exceptions.extend(left);
            }
        }
        zipped.settle();
        zipped
    }

    /// The ports among `ports` whose value fulfils the condition. Of [`PortSet::All`], only the
    /// exceptions are tried.
    pub fn ports_where(&self, ports: &PortSet, condition: impl Fn(T) -> bool) -> PortSet {
        let tiles: Vec<(PortRange, T)> = match ports {
            PortSet::All => self.exceptions.clone(),
            PortSet::Ranges(ranges) => ranges.iter().flat_map(|range| self.tiles(*range)).collect(),
        };
        let fulfil = tiles.into_iter().filter(|(_, value)| condition(*value));
        PortSet::from_ranges(fulfil.map(|(range, _)| range))
    }

    /// Subranges of `range` that have one value each.
    fn tiles(&self, range: PortRange) -> impl Iterator<Item = (PortRange, T)> {
        let mut tiles = Vec::new();
        // `None` after the last port that there is.
        let mut next = Some(range.first);
        for (exception, value) in &self.exceptions {
            let Some(first) = next.filter(|first| *first <= range.last) else {
                break;
            };
            if exception.protocol != range.protocol || exception.last < first || exception.first > range.last {
                continue;
            }
            if exception.first > first {
                let last = exception.first - 1;
                tiles.push((PortRange { first, last, ..range }, self.base));
            }
            let first = exception.first.max(first);
            let last = exception.last.min(range.last);
            tiles.push((PortRange { first, last, ..range }, *value));
            next = last.checked_add(1);
        }
        if let Some(first) = next.filter(|first| *first <= range.last) {
            tiles.push((PortRange { first, ..range }, self.base));
        }
        tiles.into_iter()
    }

    fn settle(&mut self) {
        let base = self.base;
        self.exceptions.retain(|(_, value)| *value != base);
        self.exceptions.sort_unstable_by_key(|(range, _)| *range);
        self.exceptions.dedup_by(|(next, next_value), (kept, value)| {
            let joins = next.protocol == kept.protocol
                && next_value == value
                && u32::from(next.first) == u32::from(kept.last) + 1;
            if joins {
                kept.last = next.last;
            }
            joins
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn port_set() -> impl Strategy<Value = PortSet> {
        let range = (prop::sample::select(&Protocol::ALL[..]), 0_u16..8, 0_u16..8)
            .prop_map(|(protocol, first, last)| PortRange { protocol, first, last });
        prop_oneof![
            1 => Just(PortSet::All),
            6 => prop::collection::vec(range, 0..4).prop_map(PortSet::from_ranges),
        ]
    }

    fn probes() -> impl Iterator<Item = Option<(Protocol, u16)>> {
        let ports = Protocol::ALL
            .into_iter()
            .flat_map(|protocol| (0..10).map(move |port| Some((protocol, port))));
        ports.chain([None])
    }

    fn holds(ports: &PortSet, traffic: Option<(Protocol, u16)>) -> bool {
        match traffic {
            Some((protocol, port)) => ports.contains(protocol, port),
            None => *ports == PortSet::All,
        }
    }

    proptest! {
        #[test]
        fn each_port_has_the_value_that_was_put_there_last(changes in prop::collection::vec((port_set(), 0_u8..4), 0..6)) {
            let mut map = PortMap::uniform(9);
            for (ports, value) in &changes {
                map.change(ports, |_| *value);
            }
            for traffic in probes() {
                let last = changes.iter().rev().find(|(ports, _)| holds(ports, traffic));
                prop_assert_eq!(map.at(traffic), last.map_or(9, |(_, value)| *value), "{:?}", traffic);
            }
            let normal = map.exceptions.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].0.last < pair[1].0.first || pair[0].0.protocol < pair[1].0.protocol);
            prop_assert!(normal, "{:?}", map);
        }

        #[test]
        fn a_selection_holds_the_ports_that_fulfil_it(changes in prop::collection::vec((port_set(), 0_u8..4), 0..6), among in port_set()) {
            let mut map = PortMap::uniform(9);
            for (ports, value) in &changes {
                map.change(ports, |_| *value);
            }
            let selected = map.ports_where(&among, |value| value < 2);
            for traffic in probes().filter(Option::is_some) {
                let expected = holds(&among, traffic) && map.at(traffic) < 2;
                // Of all ports, only exceptions can be listed.
                if among != PortSet::All || map.at(traffic) != map.base {
                    prop_assert_eq!(holds(&selected, traffic), expected, "{:?}", traffic);
                }
            }
        }
    }
}
