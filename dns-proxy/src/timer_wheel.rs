//! The deadlines of lookups in flight: a hashed timing wheel.
//!
//! Setting and clearing a deadline takes constant time, however many there are, which a heap does
//! not: nearly every lookup sets one and clears it microseconds later. The price is precision: a
//! deadline fires up to one tick late, and never early.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::lookup_key::LookupKey;

/// The precision of the wheel.
const TICK: Duration = Duration::from_millis(8);

/// How many ticks the wheel reaches ahead: 8 seconds. A deadline farther away fires then, and the
/// caller sets it again. A power of two.
const BUCKETS: usize = 1_024;

/// No lookup, or no bucket.
const NONE: u32 = u32::MAX;

/// Each bucket is a doubly linked list of the deadlines of one tick.
#[derive(Debug)]
pub(crate) struct TimerWheel {
    start: Instant,
    /// The tick up to which all deadlines have fired.
    now: u64,
    /// The first deadline of each bucket, by the slot of its lookup.
    heads: Vec<u32>,
    /// The links of the lists, by the slot of the lookup.
    links: Vec<WheelLink>,
    /// How many deadlines are set.
    count: usize,
    /// No deadline is set for a tick before this one, so that [`next`](Self::next) need not look at
    /// all buckets in between again.
    earliest: Cell<u64>,
}

#[derive(Debug, Clone, Copy)]
struct WheelLink {
    key: LookupKey,
    before: u32,
    after: u32,
    /// `NONE`: not set.
    bucket: u32,
}

impl TimerWheel {
    pub(crate) fn new(start: Instant) -> Self {
        Self {
            start,
            now: 0,
            heads: vec![NONE; BUCKETS],
            links: Vec::new(),
            count: 0,
            earliest: Cell::new(0),
        }
    }

    /// Sets the deadline of a lookup, in place of the one that it had.
    pub(crate) fn set(&mut self, key: LookupKey, deadline: Instant) {
        self.clear(key);
        let slot = key.slot();
        let index = slot as usize;
        if index >= self.links.len() {
            let unset = WheelLink {
                key,
                before: NONE,
                after: NONE,
                bucket: NONE,
            };
            self.links.resize(index + 1, unset);
        }
        // Rounded up, so that it never fires early.
        let tick = ticks(deadline.saturating_duration_since(self.start)) + 1;
        let tick = tick.clamp(self.now + 1, self.now + BUCKETS as u64 - 1);
        self.earliest.set(match self.count {
            0 => tick,
            _ => self.earliest.get().min(tick),
        });
        let bucket = (tick % BUCKETS as u64) as usize;
        let after = std::mem::replace(&mut self.heads[bucket], slot);
        if after != NONE {
            self.links[after as usize].before = slot;
        }
        self.links[index] = WheelLink {
            key,
            before: NONE,
            after,
            bucket: bucket as u32,
        };
        self.count += 1;
    }

    /// Clears the deadline of a lookup, if it has one.
    pub(crate) fn clear(&mut self, key: LookupKey) {
        self.clear_slot(key.slot());
    }

    fn clear_slot(&mut self, slot: u32) {
        let Some(link) = self.links.get_mut(slot as usize) else {
            return;
        };
        let WheelLink {
            before, after, bucket, ..
        } = *link;
        if bucket == NONE {
            return;
        }
        link.bucket = NONE;
        match before {
            NONE => self.heads[bucket as usize] = after,
            _ => self.links[before as usize].after = after,
        }
        if after != NONE {
            self.links[after as usize].before = before;
        }
        self.count -= 1;
    }

    /// Takes out a lookup whose deadline has fired.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<LookupKey> {
        let until = ticks(now.saturating_duration_since(self.start));
        if self.count == 0 {
            self.now = self.now.max(until);
        }
        loop {
            let head = self.heads[(self.now % BUCKETS as u64) as usize];
            if head != NONE {
                self.clear_slot(head);
                return Some(self.links[head as usize].key);
            }
            if self.now >= until {
                return None;
            }
            self.now += 1;
        }
    }

    /// When the next deadline fires.
    pub(crate) fn next(&self) -> Option<Instant> {
        if self.count == 0 {
            return None;
        }
        let from = self.earliest.get().max(self.now);
        let tick =
            (from..self.now + BUCKETS as u64).find(|tick| self.heads[(tick % BUCKETS as u64) as usize] != NONE)?;
        self.earliest.set(tick);
        Some(self.start + TICK * u32::try_from(tick).unwrap_or(u32::MAX))
    }
}

fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_millis() / TICK.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(slot: u32) -> LookupKey {
        LookupKey::of_test(slot)
    }

    /// The slots of the lookups whose deadlines have fired.
    fn popped(wheel: &mut TimerWheel, now: Instant) -> Vec<u32> {
        let mut slots: Vec<u32> = std::iter::from_fn(|| wheel.pop(now)).map(LookupKey::slot).collect();
        slots.sort_unstable();
        slots
    }

    #[test]
    fn a_deadline_fires_once_and_not_early() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut wheel = TimerWheel::new(start);
        assert_eq!(wheel.next(), None);
        wheel.set(key(3), at(100));
        wheel.set(key(1), at(2_000));
        assert!(popped(&mut wheel, at(99)).is_empty());
        let next = wheel.next().unwrap();
        assert!(next > at(100) && next <= at(116));
        assert_eq!(popped(&mut wheel, next), [3]);
        assert_eq!(popped(&mut wheel, at(10_000)), [1]);
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn a_deadline_out_of_reach_fires_early_to_be_set_again() {
        let start = Instant::now();
        let mut wheel = TimerWheel::new(start);
        let deadline = start + Duration::from_secs(100);
        wheel.set(key(0), deadline);
        let mut now = start;
        let mut times = 0;
        while now < deadline {
            now = wheel.next().unwrap();
            assert_eq!(popped(&mut wheel, now), [0]);
            if now < deadline {
                wheel.set(key(0), deadline);
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
            for (slot, ahead, clear, passes) in steps {
                match clear {
                    true => {
                        wheel.clear(key(slot));
                        plain.remove(&slot);
                    }
                    false => {
                        wheel.set(key(slot), start + Duration::from_millis(now + ahead));
                        plain.insert(slot, now + ahead);
                    }
                }
                now += passes;
                for slot in popped(&mut wheel, start + Duration::from_millis(now)) {
                    let due = plain.remove(&slot);
                    prop_assert!(due.is_some_and(|due| due <= now), "{slot} fired early");
                }
                let first = plain.values().copied().min().map(|due| start + Duration::from_millis(due));
                let next = wheel.next();
                prop_assert_eq!(next.is_some(), first.is_some());
                prop_assert!(next.zip(first).is_none_or(|(next, first)| next >= first && next <= first + 2 * TICK));
                let late = TICK.as_millis() as u64 * 2;
                prop_assert!(plain.values().all(|due| due + late >= now));
            }
        }
    }
}
