//! Deadlines of many lookups, set and cleared at a cost that does not depend on how many there are.
//!
//! A wheel of slots, each a doubly linked list of places. A deadline is met up to one tick late,
//! and never early.

use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(8);
/// A power of two. The wheel reaches 8 seconds ahead; what is farther away comes up then, and is
/// set again.
const SLOTS: usize = 1_024;

/// No place.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(crate) struct TimerWheel {
    start: Instant,
    /// The tick up to which everything came up.
    now: u64,
    /// The first place of each slot.
    heads: Vec<u32>,
    /// By place.
    links: Vec<Link>,
    /// How many places are set.
    count: usize,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    before: u32,
    after: u32,
    /// In which slot; `NONE`: not set.
    slot: u32,
}

impl TimerWheel {
    pub(crate) fn new(start: Instant) -> Self {
        Self {
            start,
            now: 0,
            heads: vec![NONE; SLOTS],
            links: Vec::new(),
            count: 0,
        }
    }

    /// Sets the deadline of a place, whether or not it had one.
    pub(crate) fn set(&mut self, place: u32, deadline: Instant) {
        self.clear(place);
        let index = place as usize;
        if index >= self.links.len() {
            let unset = Link {
                before: NONE,
                after: NONE,
                slot: NONE,
            };
            self.links.resize(index + 1, unset);
        }
        // Rounded up: never early.
        let tick = ticks(deadline.saturating_duration_since(self.start)) + 1;
        let tick = tick.clamp(self.now + 1, self.now + SLOTS as u64 - 1);
        let slot = (tick % SLOTS as u64) as usize;
        let after = std::mem::replace(&mut self.heads[slot], place);
        if after != NONE {
            self.links[after as usize].before = place;
        }
        self.links[index] = Link {
            before: NONE,
            after,
            slot: slot as u32,
        };
        self.count += 1;
    }

    /// Clears the deadline of a place, if it has one.
    pub(crate) fn clear(&mut self, place: u32) {
        let Some(link) = self.links.get_mut(place as usize) else {
            return;
        };
        let Link { before, after, slot } = *link;
        if slot == NONE {
            return;
        }
        link.slot = NONE;
        match before {
            NONE => self.heads[slot as usize] = after,
            _ => self.links[before as usize].after = after,
        }
        if after != NONE {
            self.links[after as usize].before = before;
        }
        self.count -= 1;
    }

    /// Takes out a place that came up.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<u32> {
        let until = ticks(now.saturating_duration_since(self.start));
        if self.count == 0 {
            self.now = self.now.max(until);
        }
        loop {
            let head = self.heads[(self.now % SLOTS as u64) as usize];
            if head != NONE {
                self.clear(head);
                return Some(head);
            }
            if self.now >= until {
                return None;
            }
            self.now += 1;
        }
    }

    /// When the next place comes up.
    pub(crate) fn next(&self) -> Option<Instant> {
        if self.count == 0 {
            return None;
        }
        (self.now..self.now + SLOTS as u64)
            .find(|tick| self.heads[(tick % SLOTS as u64) as usize] != NONE)
            .map(|tick| self.start + TICK * u32::try_from(tick).unwrap_or(u32::MAX))
    }
}

fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_millis() / TICK.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn popped(wheel: &mut TimerWheel, now: Instant) -> Vec<u32> {
        let mut places: Vec<u32> = std::iter::from_fn(|| wheel.pop(now)).collect();
        places.sort_unstable();
        places
    }

    #[test]
    fn a_place_comes_up_once_after_its_deadline_and_not_before() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut wheel = TimerWheel::new(start);
        assert_eq!(wheel.next(), None);
        wheel.set(3, at(100));
        wheel.set(1, at(2_000));
        assert!(popped(&mut wheel, at(99)).is_empty());
        let next = wheel.next().unwrap();
        assert!(next > at(100) && next <= at(116));
        assert_eq!(popped(&mut wheel, next), [3]);
        assert_eq!(popped(&mut wheel, at(10_000)), [1]);
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn what_is_out_of_reach_comes_up_early_to_be_set_again() {
        let start = Instant::now();
        let mut wheel = TimerWheel::new(start);
        let deadline = start + Duration::from_secs(100);
        wheel.set(0, deadline);
        let mut now = start;
        let mut times = 0;
        while now < deadline {
            now = wheel.next().unwrap();
            assert_eq!(popped(&mut wheel, now), [0]);
            if now < deadline {
                wheel.set(0, deadline);
            }
            times += 1;
        }
        assert!(times < 20 && now <= deadline + 2 * TICK);
    }

    proptest! {
        /// Against a plain map.
        #[test]
        fn the_wheel_agrees_with_a_plain_map(
            steps in proptest::collection::vec((0u32..20, 0u64..4_000, prop::bool::ANY, 0u64..300), 0..200),
        ) {
            let start = Instant::now();
            let mut wheel = TimerWheel::new(start);
            let mut plain = std::collections::BTreeMap::new();
            let mut now = 0;
            for (place, ahead, clear, passes) in steps {
                match clear {
                    true => {
                        wheel.clear(place);
                        plain.remove(&place);
                    }
                    false => {
                        wheel.set(place, start + Duration::from_millis(now + ahead));
                        plain.insert(place, now + ahead);
                    }
                }
                now += passes;
                for place in popped(&mut wheel, start + Duration::from_millis(now)) {
                    let due = plain.remove(&place);
                    prop_assert!(due.is_some_and(|due| due <= now), "{place} came up early");
                }
                let late = TICK.as_millis() as u64 * 2;
                prop_assert!(plain.values().all(|due| due + late >= now));
            }
        }
    }
}
