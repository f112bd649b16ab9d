//! The elements with a timeout: a hash map by element, and a queue by the moment that comes next
//! for each.
//!
//! There may be hundreds of thousands of elements, so each stands in memory once, in a slot. An
//! index finds the slot of an element. The slots that are due at the same moment form a linked
//! list: first at the element's `end`, then at the moment when it is `gone`. When an element is
//! given a later end, its slot stays in its list until that is due and is queued again then. So to
//! renew a lease, which happens all the time, costs one look into the index.
//!
//! The slot of an element that leaves before its time (a full set evicts thousands a second, whose
//! leases may have a day left) stays in its list too. When such slots are as many as half of the
//! others, all are put together anew.

use std::collections::BTreeMap;
use std::mem;

use ahash::RandomState;
use clock::Time;
use hashbrown::HashTable;

use crate::layout::{Element, SetId};

use super::{Holder, Lifetime};

/// The elements and their queue: about 90 octets an element.
#[derive(Debug)]
pub(super) struct ExpiringElements {
    slots: Vec<ElementSlot>,
    /// Finds the slot of an element.
    index: HashTable<SlotIndex>,
    /// The first slot of the list of each moment. Every slot is in one of these lists, at its `end`
    /// or before, or, when that is over, at its `gone`; or it is in the list of free slots.
    due: BTreeMap<Time, SlotIndex>,
    free: SlotIndex,
    /// How many slots are in a list though their element has left.
    vacant: usize,
    /// Seeded at random, because whoever owns a name chooses its addresses and must not choose
    /// their hash buckets.
    hasher: RandomState,
}

type SlotIndex = u32;

/// So many vacant slots are not worth to be put together anew for.
const FEW: usize = 64;

/// The end of a list.
const NONE: SlotIndex = SlotIndex::MAX;

#[derive(Debug, Clone, Copy)]
struct ElementSlot {
    element: Element,
    lifetime: Lifetime,
    next: SlotIndex,
    holder: Holder,
    /// When the element was last written, in hundredths of a second.
    written: u32,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExpiryEvent {
    /// The lease of this element is over; the kernel may still hold it.
    Ended(Element),
    /// The kernel does not hold this element any more. It was taken out.
    Gone(Element, Holder),
}

impl Default for ExpiringElements {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            index: HashTable::new(),
            due: BTreeMap::new(),
            free: NONE,
            vacant: 0,
            hasher: RandomState::new(),
        }
    }
}

impl ExpiringElements {
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn get(&self, element: &Element) -> Option<Lifetime> {
        Some(self.slots[self.find(element)? as usize].lifetime)
    }

    /// The holder of an element, and when it was last written.
    pub(super) fn origin(&self, element: &Element) -> Option<(Holder, Time)> {
        let slot = &self.slots[self.find(element)? as usize];
        Some((slot.holder, Time::from_millis(u64::from(slot.written) * 10)))
    }

    /// Adds an element, or gives it another lifetime.
    pub(super) fn insert(&mut self, element: Element, lifetime: Lifetime, holder: Holder, written: Time) {
        // Fits for more than a year; then all count as equally old.
        let written = u32::try_from(written.as_millis() / 10).unwrap_or(u32::MAX);
        let slot = ElementSlot {
            element,
            lifetime,
            next: NONE,
            holder,
            written,
        };
        match self.find(&element) {
            // The list that the slot is in would be due too late.
            Some(number) if lifetime.end < self.slots[number as usize].lifetime.gone => {
                self.vacate(number);
                self.add(slot);
                self.compact();
            }
            Some(number) => {
                let next = self.slots[number as usize].next;
                self.slots[number as usize] = ElementSlot { next, ..slot };
            }
            None => self.add(slot),
        }
    }

    pub(super) fn remove(&mut self, element: &Element) -> Option<Holder> {
        let number = self.find(element)?;
        let holder = self.slots[number as usize].holder;
        self.vacate(number);
        self.compact();
        Some(holder)
    }

    /// When something is due next.
    pub(super) fn next_due(&self) -> Option<Time> {
        self.due.first_key_value().map(|(due, _)| *due)
    }

    /// The elements of a set that one holder has, with what decides which is evicted first: when it
    /// was written, and its lifetime.
    pub(super) fn held_by(&self, set: SetId, holder: Holder) -> impl Iterator<Item = (u32, Lifetime, Element)> {
        self.index.iter().filter_map(move |number| {
            let slot = &self.slots[*number as usize];
            (slot.holder == holder && slot.element.set == set).then_some((slot.written, slot.lifetime, slot.element))
        })
    }

    /// What is due: each end of a lease once, and each element that is gone.
    pub(super) fn pop_due(&mut self, now: Time) -> Option<ExpiryEvent> {
        while let Some(mut chain) = self.due.first_entry().filter(|chain| *chain.key() <= now) {
            let number = *chain.get();
            let ElementSlot {
                element,
                lifetime,
                next,
                holder,
                ..
            } = self.slots[number as usize];
            match next {
                NONE => drop(chain.remove()),
                _ => *chain.get_mut() = next,
            }
            let is_used = self.find(&element) == Some(number);
            if is_used && lifetime.end > now {
                self.file(number, lifetime.end);
                continue;
            }
            if is_used && lifetime.gone > now {
                self.file(number, lifetime.gone);
                return Some(ExpiryEvent::Ended(element));
            }
            match is_used {
                true => self.unindex(number),
                false => self.vacant -= 1,
            }
            self.slots[number as usize].next = mem::replace(&mut self.free, number);
            if is_used {
                return Some(ExpiryEvent::Gone(element, holder));
            }
        }
        None
    }

    /// All elements, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Element, Lifetime, Holder)> {
        self.index.iter().map(|number| {
            let slot = &self.slots[*number as usize];
            (&slot.element, slot.lifetime, slot.holder)
        })
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&Element) -> bool) {
        let before = self.index.len();
        self.index.retain(|number| keep(&self.slots[*number as usize].element));
        self.vacant += before - self.index.len();
        self.compact();
    }

    /// Adds a slot to the index and the queue.
    fn add(&mut self, slot: ElementSlot) {
        let ElementSlot { element, lifetime, .. } = slot;
        let number = self.take_slot(slot);
        self.file(number, lifetime.end);
        let (slots, hasher) = (&self.slots, &self.hasher);
        let hash_of = |number: &SlotIndex| hash(hasher, &slots[*number as usize].element);
        self.index.insert_unique(hash(hasher, &element), number, hash_of);
    }

    fn take_slot(&mut self, slot: ElementSlot) -> SlotIndex {
        match self.free {
            NONE => {
                if self.slots.len() == self.slots.capacity() {
                    // By an eighth and not by doubling: sets may be full, and a slot is large.
                    self.slots.reserve_exact((self.slots.len() / 8).max(64));
                }
                self.slots.push(slot);
                // Sets hold fewer elements than there are numbers: their capacities are of this
                // type.
                (self.slots.len() - 1) as SlotIndex
            }
            number => {
                self.free = mem::replace(&mut self.slots[number as usize], slot).next;
                number
            }
        }
    }

    /// Puts a slot that is in no list into the list of a moment.
    fn file(&mut self, number: SlotIndex, at: Time) {
        let first = self.due.insert(at, number);
        self.slots[number as usize].next = first.unwrap_or(NONE);
    }

    /// Takes a slot out of the index. It stays in its list, and is free when that is due, or when
    /// the slots are put together anew.
    fn vacate(&mut self, number: SlotIndex) {
        self.unindex(number);
        self.vacant += 1;
    }

    /// Puts the slots of all elements together, each in the list that it was in, if many others are
    /// vacant: what that costs for each of these is bounded.
    fn compact(&mut self) {
        if self.vacant <= self.index.len() / 2 + FEW {
            return;
        }
        let mut slots: Vec<ElementSlot> = Vec::with_capacity(self.index.len());
        let mut due = mem::take(&mut self.due);
        for first in due.values_mut() {
            let mut number = mem::replace(first, NONE);
            while number != NONE {
                let slot = self.slots[number as usize];
                if self.find(&slot.element) == Some(number) {
                    slots.push(ElementSlot { next: *first, ..slot });
                    *first = (slots.len() - 1) as SlotIndex;
                }
                number = slot.next;
            }
        }
        due.retain(|_, first| *first != NONE);
        self.index.clear();
        for number in 0..slots.len() as SlotIndex {
            let hash_of = |number: &SlotIndex| hash(&self.hasher, &slots[*number as usize].element);
            self.index.insert_unique(hash_of(&number), number, hash_of);
        }
        self.slots = slots;
        self.due = due;
        self.free = NONE;
        self.vacant = 0;
    }

    fn unindex(&mut self, number: SlotIndex) {
        let hash = hash(&self.hasher, &self.slots[number as usize].element);
        if let Ok(found) = self.index.find_entry(hash, |other| *other == number) {
            found.remove();
        }
    }

    fn find(&self, element: &Element) -> Option<SlotIndex> {
        let is_it = |number: &SlotIndex| self.slots[*number as usize].element == *element;
        self.index.find(hash(&self.hasher, element), is_it).copied()
    }
}

fn hash(hasher: &RandomState, element: &Element) -> u64 {
    hasher.hash_one(element)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use policy::ProgramId;
    use policy::classifier::SetClass;
    use proptest::prelude::*;

    use super::*;
    use crate::layout::{ElementKey, IpFamily, SetKind};

    const HOLDER: Holder = Holder(1);

    fn element(number: u32) -> Element {
        Element {
            set: SetId {
                program: ProgramId(1),
                class: SetClass::Allow,
                kind: SetKind::All,
                family: IpFamily::V4,
            },
            key: ElementKey {
                address: std::net::Ipv4Addr::from_bits(number).into(),
                port: None,
            },
        }
    }

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    fn lifetime(end: u64) -> Lifetime {
        Lifetime {
            end: at(end),
            gone: at(end + 10),
        }
    }

    /// A full set that evicts all the time, with leases of a day.
    #[test]
    fn what_leaves_before_its_time_takes_no_memory_until_then() {
        let mut elements = ExpiringElements::default();
        for number in 0..100_000 {
            elements.insert(element(number), lifetime(86_400_000 + u64::from(number)), HOLDER, at(0));
            if let Some(evicted) = number.checked_sub(1_000) {
                elements.remove(&element(evicted));
            }
        }
        assert_eq!(elements.len(), 1_000);
        assert!(elements.slots.capacity() < 2_500, "{}", elements.slots.capacity());
        assert!(elements.due.len() < 2_500, "{}", elements.due.len());
    }

    proptest! {
        /// Whatever leaves, what stays ends once and is gone once, in time.
        #[test]
        fn what_stays_is_due_as_it_would_be_alone(
            steps in proptest::collection::vec((0u32..40, 1u64..400, any::<bool>(), 0u64..4), 0..1_500),
        ) {
            let mut elements = ExpiringElements::default();
            let mut plain: BTreeMap<u32, (u64, bool)> = BTreeMap::new();
            let mut now = 0;
            for (number, lease, is_removed, passes) in steps {
                if is_removed {
                    let held = elements.remove(&element(number)).is_some();
                    prop_assert_eq!(held, plain.remove(&number).is_some());
                } else {
                    elements.insert(element(number), lifetime(now + lease), HOLDER, at(now));
                    plain.insert(number, (now + lease, false));
                }
                now += passes;
                let mut told = Vec::new();
                while let Some(event) = elements.pop_due(at(now)) {
                    told.push(match event {
                        ExpiryEvent::Ended(element) => (element, false),
                        ExpiryEvent::Gone(element, _) => (element, true),
                    });
                }
                let mut expected = Vec::new();
                plain.retain(|number, (end, has_ended)| {
                    let is_gone = *end + 10 <= now;
                    if is_gone {
                        expected.push((element(*number), true));
                    } else if *end <= now && !mem::replace(has_ended, true) {
                        expected.push((element(*number), false));
                    }
                    !is_gone
                });
                told.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(told, expected);
                prop_assert_eq!(elements.len(), plain.len());
            }
        }
    }
}
