//! The elements with an end, by element and in the order in which they go.
//!
//! There may be hundreds of thousands, so each stands in memory once: in a slot. An index finds the slot of an element, and the slots of a
//! moment form a chain. A slot whose element was given a later end stays in its chain until that comes up, and is filed anew then: to renew a lease,
//! which happens all the time, costs a look into the index.

use std::collections::BTreeMap;
use std::mem;

use ahash::RandomState;
use fqdn_cache::Time;
use hashbrown::HashTable;

use super::Life;
use crate::layout::Element;

/// About 80 octets an element.
#[derive(Debug)]
pub(super) struct Leased {
    slots: Vec<Slot>,
    /// The slots that are in use.
    index: HashTable<Number>,
    /// The first slot of the chain of each moment. Every slot is in one of these chains, at its `gone` or before, or in that of the free ones.
    due: BTreeMap<Time, Number>,
    free: Number,
    /// Keyed at random: names choose their addresses, and must not choose where these are filed.
    hasher: RandomState,
}

type Number = u32;

/// The end of a chain.
const NONE: Number = Number::MAX;

#[derive(Debug, Clone, Copy)]
struct Slot {
    element: Element,
    life: Life,
    next: Number,
}

impl Default for Leased {
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

impl Leased {
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn get(&self, element: &Element) -> Option<Life> {
        Some(self.slots[self.find(element)? as usize].life)
    }

    /// Files an element, or gives one another life; returns the one that it had.
    pub(super) fn insert(&mut self, element: Element, life: Life) -> Option<Life> {
        let Some(number) = self.find(&element) else {
            self.add(element, life);
            return None;
        };
        let before = self.slots[number as usize].life;
        if life.gone < before.gone {
            // Its chain would come up too late.
            self.vacate(number);
            self.add(element, life);
        } else {
            self.slots[number as usize].life = life;
        }
        Some(before)
    }

    pub(super) fn remove(&mut self, element: &Element) -> Option<Life> {
        let number = self.find(element)?;
        self.vacate(number);
        Some(self.slots[number as usize].life)
    }

    /// Takes out an element that is gone.
    pub(super) fn pop_gone(&mut self, now: Time) -> Option<Element> {
        while let Some(mut chain) = self.due.first_entry().filter(|chain| *chain.key() <= now) {
            let number = *chain.get();
            let Slot { element, life, next } = self.slots[number as usize];
            match next {
                NONE => drop(chain.remove()),
                _ => *chain.get_mut() = next,
            }
            let is_used = self.find(&element) == Some(number);
            if is_used && life.gone > now {
                self.file(number, life.gone);
                continue;
            }
            if is_used {
                self.vacate(number);
            }
            self.slots[number as usize].next = mem::replace(&mut self.free, number);
            if is_used {
                return Some(element);
            }
        }
        None
    }

    /// All, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Element, Life)> {
        self.index.iter().map(|number| {
            let slot = &self.slots[*number as usize];
            (&slot.element, slot.life)
        })
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&Element) -> bool) {
        self.index.retain(|number| keep(&self.slots[*number as usize].element));
    }

    fn add(&mut self, element: Element, life: Life) {
        let number = self.take_slot(Slot {
            element,
            life,
            next: NONE,
        });
        self.file(number, life.gone);
        let (slots, hasher) = (&self.slots, &self.hasher);
        let hash_of = |number: &Number| hash(hasher, &slots[*number as usize].element);
        self.index.insert_unique(hash(hasher, &element), number, hash_of);
    }

    fn take_slot(&mut self, slot: Slot) -> Number {
        match self.free {
            NONE => {
                self.slots.push(slot);
                // Sets hold fewer elements than there are numbers: their capacities are of this type.
                (self.slots.len() - 1) as Number
            }
            number => {
                self.free = mem::replace(&mut self.slots[number as usize], slot).next;
                number
            }
        }
    }

    /// Puts a slot that is in no chain into that of a moment.
    fn file(&mut self, number: Number, at: Time) {
        let first = self.due.insert(at, number);
        self.slots[number as usize].next = first.unwrap_or(NONE);
    }

    /// The slot is of no use any more. It stays in its chain, and is free when that comes up.
    fn vacate(&mut self, number: Number) {
        let hash = hash(&self.hasher, &self.slots[number as usize].element);
        if let Ok(found) = self.index.find_entry(hash, |other| *other == number) {
            found.remove();
        }
    }

    fn find(&self, element: &Element) -> Option<Number> {
        let is_it = |number: &Number| self.slots[*number as usize].element == *element;
        self.index.find(hash(&self.hasher, element), is_it).copied()
    }
}

fn hash(hasher: &RandomState, element: &Element) -> u64 {
    hasher.hash_one(element)
}
