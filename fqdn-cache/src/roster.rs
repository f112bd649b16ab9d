//! The names of the ledger, in the order in which they were last learned.

use std::mem;

use ahash::{HashMap, HashMapExt};
use policy::Name;

use crate::leases::Leases;

/// A name in the roster; small, because the indexes of the ledger hold one for each lease. Given to another name once
/// this one is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NameId(u32);

impl NameId {
    pub(crate) const MIN: NameId = NameId(0);
    pub(crate) const MAX: NameId = NameId(u32::MAX - 1);
    /// How many names may be given one: half of the ids, since a ledger holds more than its limit for a moment.
    pub(crate) const COUNT: usize = (u32::MAX / 2) as usize;
    /// The end of a list.
    const NONE: NameId = NameId(u32::MAX);
}

/// One name and what it holds.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) name: Name,
    pub(crate) leases: Leases,
    newer: NameId,
    older: NameId,
}

/// Names by id, by text, and as a doubly linked list from the most to the least recently learned.
///
/// Invariant: every id in `ids`, in the list, and given out and not yet removed, is that of a `Some`.
#[derive(Debug)]
pub(crate) struct Roster {
    records: Vec<Option<Record>>,
    free: Vec<NameId>,
    ids: HashMap<Name, NameId>,
    newest: NameId,
    oldest: NameId,
}

impl Default for Roster {
    fn default() -> Self {
        Self {
            records: Vec::new(),
            free: Vec::new(),
            ids: HashMap::new(),
            newest: NameId::NONE,
            oldest: NameId::NONE,
        }
    }
}

impl Roster {
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(crate) fn find(&self, name: &Name) -> Option<NameId> {
        self.ids.get(name).copied()
    }

    pub(crate) fn oldest(&self) -> Option<NameId> {
        (self.oldest != NameId::NONE).then_some(self.oldest)
    }

    pub(crate) fn record(&self, id: NameId) -> &Record {
        self.records[id.0 as usize].as_ref().expect("the id of a held name")
    }

    pub(crate) fn record_mut(&mut self, id: NameId) -> &mut Record {
        self.records[id.0 as usize].as_mut().expect("the id of a held name")
    }

    /// What stands at each place from `first` on; `None` where nothing does. A record stays in its place.
    pub(crate) fn places_from(&self, first: usize) -> impl Iterator<Item = Option<&Record>> {
        self.records.iter().skip(first).map(Option::as_ref)
    }

    /// From the least recently learned to the most.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Record> {
        let mut next = self.oldest();
        std::iter::from_fn(move || {
            let record = self.record(next?);
            next = (record.newer != NameId::NONE).then_some(record.newer);
            Some(record)
        })
    }

    /// Adds a name that is not here, as the most recently learned.
    pub(crate) fn add_newest(&mut self, name: &Name) -> NameId {
        let id = self.add(name);
        self.link_newest(id);
        id
    }

    /// Adds a name that is not here, as the least recently learned.
    pub(crate) fn add_oldest(&mut self, name: &Name) -> NameId {
        let id = self.add(name);
        let second = mem::replace(&mut self.oldest, id);
        self.record_mut(id).newer = second;
        match second {
            NameId::NONE => self.newest = id,
            _ => self.record_mut(second).older = id,
        }
        id
    }

    /// Makes a name the most recently learned.
    pub(crate) fn touch(&mut self, id: NameId) {
        if id != self.newest {
            self.unlink(id);
            self.link_newest(id);
        }
    }

    pub(crate) fn remove(&mut self, id: NameId) -> Record {
        self.unlink(id);
        let record = self.records[id.0 as usize].take().expect("the id of a held name");
        self.ids.remove(&record.name);
        self.free.push(id);
        record
    }

    /// Adds a record that is not in the list yet.
    fn add(&mut self, name: &Name) -> NameId {
        let record = Some(Record {
            name: name.clone(),
            leases: Leases::default(),
            newer: NameId::NONE,
            older: NameId::NONE,
        });
        let id = match self.free.pop() {
            Some(id) => {
                self.records[id.0 as usize] = record;
                id
            }
            None => {
                if self.records.len() == self.records.capacity() {
                    // By an eighth and not by doubling: a record is large, and memory is promised (tests/footprint.rs).
                    self.records.reserve_exact((self.records.len() / 8).max(64));
                }
                self.records.push(record);
                // The ledger holds hardly more than `NameId::COUNT` names.
                NameId((self.records.len() - 1) as u32)
            }
        };
        self.ids.insert(name.clone(), id);
        id
    }

    fn link_newest(&mut self, id: NameId) {
        let second = mem::replace(&mut self.newest, id);
        let record = self.record_mut(id);
        record.older = second;
        record.newer = NameId::NONE;
        match second {
            NameId::NONE => self.oldest = id,
            _ => self.record_mut(second).newer = id,
        }
    }

    fn unlink(&mut self, id: NameId) {
        let &Record { newer, older, .. } = self.record(id);
        match newer {
            NameId::NONE => self.newest = older,
            _ => self.record_mut(newer).older = older,
        }
        match older {
            NameId::NONE => self.oldest = newer,
            _ => self.record_mut(older).newer = newer,
        }
    }
}
