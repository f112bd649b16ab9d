//! The names of the ledger, in the order in which they were last learned, by owner.
//!
//! What trusted resolvers taught of a name is one record, and what each private one taught is
//! another: these share nothing but the name.

use std::collections::VecDeque;
use std::mem;

use ahash::HashMap;
use names::Name;
use smallvec::SmallVec;

use crate::leases::Leases;
use crate::teacher::TeacherId;

/// A record in the roster; small, because the indexes of the ledger hold one for each lease. Given
/// to another record once this one is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NameId(u32);

impl NameId {
    pub(crate) const MIN: NameId = NameId(0);
    pub(crate) const MAX: NameId = NameId(u32::MAX - 1);
    /// How many records may be given one: half of the ids, since a ledger holds more than its limit
    /// for a moment.
    pub(crate) const COUNT: usize = (u32::MAX / 2) as usize;
    /// The end of a list.
    const NONE: NameId = NameId(u32::MAX);
}

/// Who asked for a name: each pod is one, so that one that asks for a great many drives out its own
/// and not those of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Owner(pub u32);

/// One name and what it holds by one teacher.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) name: Name,
    /// `None`: the trusted resolvers.
    pub(crate) private: Option<TeacherId>,
    pub(crate) owner: Owner,
    pub(crate) leases: Leases,
    newer: NameId,
    older: NameId,
}

/// The records of an owner.
#[derive(Debug, Clone, Copy)]
struct Line {
    newest: NameId,
    oldest: NameId,
    leases: usize,
}

const EMPTY: Line = Line {
    newest: NameId::NONE,
    oldest: NameId::NONE,
    leases: 0,
};

/// Records by id, by name, and for each owner as a doubly linked list from the most to the least
/// recently learned.
///
/// Invariant: every id in `trusted` or `private`, in the lists, and given out and not yet removed,
/// is that of a `Some`.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    records: Vec<Option<Record>>,
    free: Vec<NameId>,
    trusted: HashMap<Name, NameId>,
    /// Those of private teachers. Most ledgers have none.
    private: HashMap<Name, SmallVec<[NameId; 1]>>,
    /// No owner is without records.
    lines: HashMap<Owner, Line>,
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

    /// The least recently learned of whoever holds most leases. Takes a look at each owner.
    pub(crate) fn next_to_give_way(&self) -> Option<NameId> {
        let most = self.lines.iter().max_by_key(|(owner, line)| (line.leases, **owner));
        most.map(|(_, line)| line.oldest)
    }

    /// Notes that a record has other leases than before.
    pub(crate) fn recount(&mut self, id: NameId, before: usize) {
        let record = self.record(id);
        let (owner, after) = (record.owner, record.leases.len());
        if let Some(line) = self.lines.get_mut(&owner) {
            line.leases = line.leases + after - before;
        }
    }

    pub(crate) fn record(&self, id: NameId) -> &Record {
        self.records[id.0 as usize].as_ref().expect("the id of a held name")
    }

    pub(crate) fn record_mut(&mut self, id: NameId) -> &mut Record {
        self.records[id.0 as usize].as_mut().expect("the id of a held name")
    }

    /// What stands at each place from `first` on; `None` where nothing does. A record stays in its
    /// place.
    pub(crate) fn places_from(&self, first: usize) -> impl Iterator<Item = Option<&Record>> {
        self.records.iter().skip(first).map(Option::as_ref)
    }

    /// All, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().flatten()
    }

    /// Of each owner in turn the most recently learned of those that have not come yet.
    pub(crate) fn fairly(&self) -> impl Iterator<Item = &Record> {
        let mut owners: Vec<(Owner, NameId)> = self.lines.iter().map(|(owner, line)| (*owner, line.newest)).collect();
        owners.sort_unstable();
        let mut turns: VecDeque<NameId> = owners.into_iter().map(|(_, newest)| newest).collect();
        std::iter::from_fn(move || {
            let record = self.record(turns.pop_front()?);
            if record.older != NameId::NONE {
                turns.push_back(record.older);
            }
            Some(record)
        })
    }

    /// Adds a record that is not here, as the most recently learned.
    pub(crate) fn add_newest(&mut self, name: &Name, private: Option<TeacherId>, owner: Owner) -> NameId {
        let id = self.add(name, private, owner);
        self.link_newest(id);
        id
    }

    /// Adds a record that is not here, as the least recently learned.
    pub(crate) fn add_oldest(&mut self, name: &Name, private: Option<TeacherId>, owner: Owner) -> NameId {
        let id = self.add(name, private, owner);
        let line = self.lines.entry(owner).or_insert(EMPTY);
        let second = mem::replace(&mut line.oldest, id);
        if second == NameId::NONE {
            line.newest = id;
        } else {
            self.record_mut(second).older = id;
        }
        self.record_mut(id).newer = second;
        id
    }

    /// Makes a name the most recently learned. What several owners ask for is that one's who holds
    /// least.
    pub(crate) fn touch(&mut self, id: NameId, by: Owner) {
        let owner = self.record(id).owner;
        let leases_of = |roster: &Self, owner| roster.lines.get(&owner).map_or(0, |line| line.leases);
        let changes_hands = by != owner && leases_of(self, by) < leases_of(self, owner);
        if !changes_hands && self.lines.get(&owner).is_some_and(|line| line.newest == id) {
            return;
        }
        self.unlink(id);
        if changes_hands {
            self.record_mut(id).owner = by;
        }
        self.link_newest(id);
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
    fn add(&mut self, name: &Name, private: Option<TeacherId>, owner: Owner) -> NameId {
        let record = Some(Record {
            name: name.clone(),
            private,
            owner,
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
                    // By an eighth and not by doubling: a record is large, and memory is promised
                    // (tests/footprint.rs).
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
        let (owner, leases) = (record.owner, record.leases.len());
        let line = self.lines.entry(owner).or_insert(EMPTY);
        line.leases += leases;
        let second = mem::replace(&mut line.newest, id);
        if second == NameId::NONE {
            line.oldest = id;
        } else {
            self.record_mut(second).newer = id;
        }
        let record = self.record_mut(id);
        record.older = second;
        record.newer = NameId::NONE;
    }

    fn unlink(&mut self, id: NameId) {
        let &Record {
            newer,
            older,
            owner,
            ref leases,
            ..
        } = self.record(id);
        let leases = leases.len();
        if newer != NameId::NONE {
            self.record_mut(newer).older = older;
        }
        if older != NameId::NONE {
            self.record_mut(older).newer = newer;
        }
        let Some(line) = self.lines.get_mut(&owner) else { return };
        line.leases -= leases;
        if newer == NameId::NONE {
            line.newest = older;
        }
        if older == NameId::NONE {
            line.oldest = newer;
        }
        if line.newest == NameId::NONE {
            self.lines.remove(&owner);
        }
    }
}
