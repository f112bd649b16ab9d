//! The names of the ledger, in the order in which they were last learned.
//!
//! What trusted resolvers taught of a name is one record, and what each private one taught is another: these share nothing but the name.

use std::mem;

use ahash::{HashMap, HashMapExt};
use policy::Name;
use smallvec::SmallVec;

use crate::leases::Leases;
use crate::teacher::TeacherId;

/// A record in the roster; small, because the indexes of the ledger hold one for each lease. Given to another record once
/// this one is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NameId(u32);

impl NameId {
    pub(crate) const MIN: NameId = NameId(0);
    pub(crate) const MAX: NameId = NameId(u32::MAX - 1);
    /// How many records may be given one: half of the ids, since a ledger holds more than its limit for a moment.
    pub(crate) const COUNT: usize = (u32::MAX / 2) as usize;
    /// The end of a list.
    const NONE: NameId = NameId(u32::MAX);
}

/// One name and what it holds by one teacher.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) name: Name,
    /// `None`: the trusted resolvers.
    pub(crate) private: Option<TeacherId>,
    pub(crate) leases: Leases,
    newer: NameId,
    older: NameId,
}

/// Records by id, by name, and as a doubly linked list from the most to the least recently learned.
///
/// Invariant: every id in `trusted` or `private`, in the list, and given out and not yet removed, is that of a `Some`.
#[derive(Debug)]
pub(crate) struct Roster {
    records: Vec<Option<Record>>,
    free: Vec<NameId>,
    trusted: HashMap<Name, NameId>,
    /// Those of private teachers. Most ledgers have none.
    private: HashMap<Name, SmallVec<[NameId; 1]>>,
    newest: NameId,
    oldest: NameId,
}

impl Default for Roster {
    fn default() -> Self {
        Self {
            records: Vec::new(),
            free: Vec::new(),
            trusted: HashMap::new(),
            private: HashMap::new(),
            newest: NameId::NONE,
            oldest: NameId::NONE,
        }
    }
}

impl Roster {
    pub(crate) fn len(&self) -> usize {
        self.records.len() - self.free.len()
    }

    pub(crate) fn find(&self, name: &Name, private: Option<TeacherId>) -> Option<NameId> {
        match private {
            None => self.trusted.get(name).copied(),
            Some(_) => self.private_of(name).find(|id| self.record(*id).private == private),
        }
    }

    /// Every record of a name, that of the trusted resolvers first.
    pub(crate) fn all_of(&self, name: &Name) -> impl Iterator<Item = NameId> {
        self.trusted.get(name).copied().into_iter().chain(self.private_of(name))
    }

    fn private_of(&self, name: &Name) -> impl Iterator<Item = NameId> {
        let private = (!self.private.is_empty()).then(|| self.private.get(name)).flatten();
        private.into_iter().flatten().copied()
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

    /// Adds a record that is not here, as the most recently learned.
    pub(crate) fn add_newest(&mut self, name: &Name, private: Option<TeacherId>) -> NameId {
        let id = self.add(name, private);
        self.link_newest(id);
        id
    }

    /// Adds a record that is not here, as the least recently learned.
    pub(crate) fn add_oldest(&mut self, name: &Name, private: Option<TeacherId>) -> NameId {
        let id = self.add(name, private);
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
        match record.private {
            None => drop(self.trusted.remove(&record.name)),
            Some(_) => {
                if let Some(of_name) = self.private.get_mut(&record.name) {
                    of_name.retain(|held| *held != id);
                    if of_name.is_empty() {
                        self.private.remove(&record.name);
                    }
                }
            }
        }
        self.free.push(id);
        record
    }

    /// Adds a record that is not in the list yet.
    fn add(&mut self, name: &Name, private: Option<TeacherId>) -> NameId {
        let record = Some(Record {
            name: name.clone(),
            private,
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
        match private {
            None => drop(self.trusted.insert(name.clone(), id)),
            Some(_) => self.private.entry(name.clone()).or_default().push(id),
        }
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
