//! The names of the ledger: a slab of records with an LRU list for each owner.
//!
//! A name has one record for all trusted resolvers together and one for each private teacher. These
//! share nothing but the name.

use std::collections::VecDeque;
use std::mem;

use ahash::HashMap;
use names::Name;
use smallvec::SmallVec;

use crate::leases::NameLeases;
use crate::teacher::TeacherId;

/// The slot of a record in the table. It is small, because the indexes of the ledger hold one for
/// each lease. A removed record's slot is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NameId(u32);

impl NameId {
    pub(crate) const MIN: NameId = NameId(0);
    pub(crate) const MAX: NameId = NameId(u32::MAX - 1);
    /// The most names that a ledger may be limited to. It is half of the ids, since a ledger holds
    /// more than its limit for a moment.
    pub(crate) const COUNT: usize = (u32::MAX / 2) as usize;
    /// No record: the end of a list.
    const NONE: NameId = NameId(u32::MAX);
}

/// Whose a name is: the pod that asked for it. A pod that asks for a great many names evicts its
/// own and not those of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct LeaseOwner(pub u32);

/// One name, and its leases by one teacher.
#[derive(Debug)]
pub(crate) struct NameRecord {
    pub(crate) name: Name,
    /// The private teacher; `None` for the trusted resolvers.
    pub(crate) private: Option<TeacherId>,
    pub(crate) owner: LeaseOwner,
    pub(crate) leases: NameLeases,
    newer: NameId,
    older: NameId,
}

/// The LRU list of an owner's records, how many leases they hold, and how long their names are.
#[derive(Debug, Clone, Copy)]
struct OwnerList {
    newest: NameId,
    oldest: NameId,
    leases: usize,
    octets: usize,
}

impl OwnerList {
    /// What the records take, in leases: each name may have four, or 64 octets
    /// ([`LedgerLimits`](crate::LedgerLimits)).
    fn weight(&self) -> usize {
        self.leases + self.octets / 16
    }
}

const EMPTY: OwnerList = OwnerList {
    newest: NameId::NONE,
    oldest: NameId::NONE,
    leases: 0,
    octets: 0,
};

/// Records by id and by name. Each owner's records are a doubly linked list from the most to the
/// least recently learned.
///
/// Invariant: the slot of every id in `trusted`, `private` and the lists holds a record, and so
/// does that of every id that was given out and not removed.
#[derive(Debug, Default)]
pub(crate) struct NameTable {
    records: Vec<Option<NameRecord>>,
    free: Vec<NameId>,
    /// Of all records' names.
    octets: usize,
    trusted: HashMap<Name, NameId>,
    /// The records of private teachers. Most ledgers have none.
    private: HashMap<Name, SmallVec<[NameId; 1]>>,
    /// No owner is without records.
    owners: HashMap<LeaseOwner, OwnerList>,
}

impl NameTable {
    pub(crate) fn len(&self) -> usize {
        self.records.len() - self.free.len()
    }

    /// How long all names together are.
    pub(crate) fn octets(&self) -> usize {
        self.octets
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

    /// The record to evict next: the least recently learned of the owner whose records take most.
    /// Looks at each owner.
    pub(crate) fn next_to_evict(&self) -> Option<NameId> {
        let most = self.owners.iter().max_by_key(|(owner, list)| (list.weight(), **owner));
        most.map(|(_, list)| list.oldest)
    }

    /// Updates the owner's count after a record's leases have changed.
    pub(crate) fn recount(&mut self, id: NameId, before: usize) {
        let record = self.record(id);
        let (owner, after) = (record.owner, record.leases.len());
        if let Some(list) = self.owners.get_mut(&owner) {
            list.leases = list.leases + after - before;
        }
    }

    pub(crate) fn record(&self, id: NameId) -> &NameRecord {
        self.records[id.0 as usize].as_ref().expect("the id of a held name")
    }

    pub(crate) fn record_mut(&mut self, id: NameId) -> &mut NameRecord {
        self.records[id.0 as usize].as_mut().expect("the id of a held name")
    }

    /// The slots from `first` on, empty ones included. A record never changes its slot.
    pub(crate) fn slots_from(&self, first: usize) -> impl Iterator<Item = Option<&NameRecord>> {
        self.records.iter().skip(first).map(Option::as_ref)
    }

    /// Every record, in the order of slots.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &NameRecord> {
        self.records.iter().flatten()
    }

    /// Every record, round-robin over the owners, each owner's most recently learned first.
    pub(crate) fn fairly(&self) -> impl Iterator<Item = &NameRecord> {
        let mut newest: Vec<(LeaseOwner, NameId)> =
            self.owners.iter().map(|(owner, list)| (*owner, list.newest)).collect();
        newest.sort_unstable();
        let mut turns: VecDeque<NameId> = newest.into_iter().map(|(_, newest)| newest).collect();
        std::iter::from_fn(move || {
            let record = self.record(turns.pop_front()?);
            if record.older != NameId::NONE {
                turns.push_back(record.older);
            }
            Some(record)
        })
    }

    /// Adds a record that is not here, as the most recently learned.
    pub(crate) fn add_newest(&mut self, name: &Name, private: Option<TeacherId>, owner: LeaseOwner) -> NameId {
        let id = self.add(name, private, owner);
        self.link_newest(id);
        id
    }

    /// Adds a record that is not here, as the least recently learned.
    pub(crate) fn add_oldest(&mut self, name: &Name, private: Option<TeacherId>, owner: LeaseOwner) -> NameId {
        let id = self.add(name, private, owner);
        let list = self.owners.entry(owner).or_insert(EMPTY);
        list.octets += name.as_str().len();
        let second = mem::replace(&mut list.oldest, id);
        if second == NameId::NONE {
            list.newest = id;
        } else {
            self.record_mut(second).older = id;
        }
        self.record_mut(id).newer = second;
        id
    }

    /// Makes a record the most recently learned. A record that several owners ask for belongs to
    /// the one that holds fewest leases.
    pub(crate) fn touch(&mut self, id: NameId, by: LeaseOwner) {
        let owner = self.record(id).owner;
        let leases_of = |table: &Self, owner| table.owners.get(&owner).map_or(0, |list| list.leases);
        let changes_hands = by != owner && leases_of(self, by) < leases_of(self, owner);
        if !changes_hands && self.owners.get(&owner).is_some_and(|list| list.newest == id) {
            return;
        }
        self.unlink(id);
        if changes_hands {
            self.record_mut(id).owner = by;
        }
        self.link_newest(id);
    }

    pub(crate) fn remove(&mut self, id: NameId) -> NameRecord {
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
        self.octets -= record.name.as_str().len();
        record
    }

    /// Adds a record that is in no list yet.
    fn add(&mut self, name: &Name, private: Option<TeacherId>, owner: LeaseOwner) -> NameId {
        self.octets += name.as_str().len();
        let record = Some(NameRecord {
            name: name.clone(),
            private,
            owner,
            leases: NameLeases::default(),
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
                    // Grows by an eighth and not by doubling: a record is large, and the footprint
                    // is promised (tests/footprint.rs).
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
        let record = self.record(id);
        let (owner, leases, octets) = (record.owner, record.leases.len(), record.name.as_str().len());
        let list = self.owners.entry(owner).or_insert(EMPTY);
        list.leases += leases;
        list.octets += octets;
        let second = mem::replace(&mut list.newest, id);
        if second == NameId::NONE {
            list.oldest = id;
        } else {
            self.record_mut(second).newer = id;
        }
        let record = self.record_mut(id);
        record.older = second;
        record.newer = NameId::NONE;
    }

    fn unlink(&mut self, id: NameId) {
        let &NameRecord {
            newer,
            older,
            owner,
            ref leases,
            ref name,
            ..
        } = self.record(id);
        let (leases, octets) = (leases.len(), name.as_str().len());
        if newer != NameId::NONE {
            self.record_mut(newer).older = older;
        }
        if older != NameId::NONE {
            self.record_mut(older).newer = newer;
        }
        let Some(list) = self.owners.get_mut(&owner) else {
            return;
        };
        list.leases -= leases;
        list.octets -= octets;
        if newer == NameId::NONE {
            list.newest = older;
        }
        if older == NameId::NONE {
            list.oldest = newer;
        }
        if list.newest == NameId::NONE {
            self.owners.remove(&owner);
        }
    }
}
