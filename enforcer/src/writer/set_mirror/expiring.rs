//! The elements with an end, by element and in the order in which they go.
//!
//! There may be hundreds of thousands, so each stands in memory once: in a slot. An index finds the
//! slot of an element, and the slots of a moment form a chain: that of its end, and then that of
//! the moment when it is gone. A slot whose element was given a later end stays in its chain until
//! that comes up, and is filed anew then: to renew a lease, which happens all the time, costs a
//! look into the index.

use std::collections::BTreeMap;
use std::mem;

use ahash::RandomState;
use clock::Time;
use hashbrown::HashTable;

use crate::layout::{Element, SetId};

use super::{Holder, Lifetime};

/// About 90 octets an element.
#[derive(Debug)]
pub(super) struct ExpiringElements {
    slots: Vec<ElementSlot>,
    /// The slots that are in use.
    index: HashTable<SlotIndex>,
    /// The first slot of the chain of each moment. Every slot is in one of these chains, at its
    /// `end` or before, or, when that is over, at its `gone`; or it is in that of the free ones.
    due: BTreeMap<Time, SlotIndex>,
    free: SlotIndex,
    /// Keyed at random: names choose their addresses, and must not choose where these are filed.
    hasher: RandomState,
}

type SlotIndex = u32;

/// The end of a chain.
const NONE: SlotIndex = SlotIndex::MAX;

#[derive(Debug, Clone, Copy)]
struct ElementSlot {
    element: Element,
    lifetime: Lifetime,
    next: SlotIndex,
    holder: Holder,
    /// When it was last written, in hundredths of a second.
    written: u32,
}

/// What has come up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExpiryEvent {
    /// The lease of this element is over, and the kernel may hold it still.
    Ended(Element),
    /// The kernel does not hold this element any more. It is taken out.
    Gone(Element, Holder),
}

impl Default for ExpiringElements {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            index: HashTable::new(),
            due: BTreeMap::new(),
            free: NONE,
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

    /// For whom it is held, and when it was last written.
    pub(super) fn origin(&self, element: &Element) -> Option<(Holder, Time)> {
        let slot = &self.slots[self.find(element)? as usize];
        Some((slot.holder, Time::from_millis(u64::from(slot.written) * 10)))
    }

    /// Files an element, or gives one another life.
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
            // Its chain would come up too late.
            Some(number) if lifetime.end < self.slots[number as usize].lifetime.gone => {
                self.vacate(number);
                self.add(slot);
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
        self.vacate(number);
        Some(self.slots[number as usize].holder)
    }

    /// When something comes up next.
    pub(super) fn next_due(&self) -> Option<Time> {
        self.due.first_key_value().map(|(due, _)| *due)
    }

    /// What holds of a set for one holder, with what decides who gives way first: when it was
    /// written, and its life.
    pub(super) fn held_by(&self, set: SetId, holder: Holder) -> impl Iterator<Item = (u32, Lifetime, Element)> {
        self.index.iter().filter_map(move |number| {
            let slot = &self.slots[*number as usize];
            (slot.holder == holder && slot.element.set == set).then_some((slot.written, slot.lifetime, slot.element))
        })
    }

    /// What has come up: each end of a lease once, and each element that is gone.
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
            if is_used {
                self.vacate(number);
            }
            self.slots[number as usize].next = mem::replace(&mut self.free, number);
            if is_used {
                return Some(ExpiryEvent::Gone(element, holder));
            }
        }
        None
    }

    /// All, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Element, Lifetime, Holder)> {
        self.index.iter().map(|number| {
            let slot = &self.slots[*number as usize];
            (&slot.element, slot.lifetime, slot.holder)
        })
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&Element) -> bool) {
        self.index.retain(|number| keep(&self.slots[*number as usize].element));
    }

    /// Files a slot that is in no chain.
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

    /// Puts a slot that is in no chain into that of a moment.
    fn file(&mut self, number: SlotIndex, at: Time) {
        let first = self.due.insert(at, number);
        self.slots[number as usize].next = first.unwrap_or(NONE);
    }

    /// The slot is of no use any more. It stays in its chain, and is free when that comes up.
    fn vacate(&mut self, number: SlotIndex) {
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
