//! The ledger.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use ahash::HashSet;
use clock::Time;
use names::{MAX_NAME_CHARS, Name};
use smallvec::SmallVec;

use crate::lease::LeaseTiming;
use crate::leases::AddressLease;
use crate::name_table::{LeaseOwner, NameId, NameRecord, NameTable};
use crate::reverse_index::ReverseIndex;
use crate::teacher::{Teacher, TeacherId, Teachers};

/// How much a ledger holds. What was learned since the last [`Ledger::evict`] comes on top.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerLimits {
    /// Names, counted once for each [`Teacher`] that has leases of its own. Default 100,000. It
    /// bounds leases and the lengths of names too: four leases ([`LedgerLimits::leases`]) and 64
    /// octets ([`LedgerLimits::octets`]) for each name on average.
    pub names: NonZeroUsize,
    /// Addresses of one name. Default 1,000: a name that rotates faster than its leases end is
    /// capped.
    pub addresses_per_name: NonZeroUsize,
}

/// What an upstream's answer taught, already validated: every address hangs on an unbroken chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LearnedAnswer {
    /// The name that gets the leases, usually the question's.
    pub name: Name,
    /// The addresses, each with the smallest TTL along its chain. Most answers have a few.
    pub addresses: SmallVec<[(IpAddr, Duration); 4]>,
    /// Who taught it.
    pub teacher: Teacher,
    /// The owner of the leases: the Pod that asked.
    pub owner: LeaseOwner,
    /// The terms of this name's leases, where they are not the ledger's.
    pub terms: Option<LeaseTiming>,
}

/// What learning an answer did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LearnOutcome {
    /// The lease of each address of the answer that is kept, in its order: the moment it ends.
    /// Never earlier than a lease that the same name held for the address before, by the same
    /// teacher. Only these are to be opened: the next rules know no others.
    pub leases: SmallVec<[(IpAddr, Time); 4]>,
    /// Addresses of the answer that are not kept, because it has more than a name may hold.
    pub left_out: usize,
    /// Live addresses that this very name held before and that were forgotten because it has too
    /// many.
    pub evicted_addresses: usize,
}

/// One address of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEntry<'a> {
    /// The name that holds the address.
    pub name: &'a Name,
    /// One of its addresses.
    pub address: IpAddr,
    /// When it was last learned.
    pub learned: Time,
    /// When its lease ends.
    pub expires: Time,
    /// Who taught it.
    pub teacher: Teacher,
}

/// Which name resolved to which addresses until when, and who said so.
///
/// A lease belongs to a name, an address and a [`Teacher`]: all trusted resolvers count as one,
/// each private one by itself.
///
/// About 300 bytes for a name with two addresses (`tests/footprint.rs` measures).
#[derive(Debug)]
pub struct Ledger {
    limits: LedgerLimits,
    pub(crate) terms: LeaseTiming,
    pub(crate) names: NameTable,
    pub(crate) teachers: Teachers,
    /// Every lease of `names` once, and nothing else.
    by_address: ReverseIndex,
    /// The earliest end of a lease of each record: each record once.
    deadlines: BTreeSet<(Time, NameId)>,
    /// The leases that ended lately, the latest at the back. They explain why something is not open
    /// any more.
    ended: VecDeque<EndedLease>,
}

/// How many [`EndedLease`] leases are remembered.
const REMEMBERED: usize = 4096;

/// A lease that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedLease {
    /// The name that held the address.
    pub name: Name,
    /// An address that the name holds.
    pub address: IpAddr,
    /// When it was noticed that the lease was over.
    pub at: Time,
}

impl Default for LedgerLimits {
    fn default() -> Self {
        // Both are non-zero literals.
        const NAMES: NonZeroUsize = NonZeroUsize::new(100_000).unwrap();
        const ADDRESSES: NonZeroUsize = NonZeroUsize::new(1_000).unwrap();
        Self {
            names: NAMES,
            addresses_per_name: ADDRESSES,
        }
    }
}

impl LedgerLimits {
    /// Leases (name–address pairs) in all. Most names have one or two addresses; without this
    /// bound, whoever may ask for any name could fill memory with names of a thousand addresses
    /// each.
    pub fn leases(&self) -> usize {
        self.names.get().saturating_mul(4).max(self.addresses_per_name.get())
    }

    /// Octets of names in all. Most names have twenty or thirty; without this bound, whoever may
    /// ask for any name could fill memory with names of 255 octets each.
    pub fn octets(&self) -> usize {
        self.names.get().saturating_mul(64).max(MAX_NAME_CHARS)
    }
}

impl Ledger {
    /// An empty ledger.
    pub fn new(limits: LedgerLimits, terms: LeaseTiming) -> Self {
        Self {
            limits,
            terms,
            names: NameTable::default(),
            teachers: Teachers::default(),
            by_address: ReverseIndex::default(),
            deadlines: BTreeSet::new(),
            ended: VecDeque::new(),
        }
    }

    /// Records an answer. An answer without addresses changes nothing.
    ///
    /// The limits are not enforced, and work that can wait is left undone: the caller calls
    /// [`evict`](Self::evict) when the answer is sent.
    pub fn learn(&mut self, now: Time, answer: &LearnedAnswer) -> LearnOutcome {
        if answer.addresses.is_empty() {
            return LearnOutcome {
                leases: SmallVec::new(),
                left_out: 0,
                evicted_addresses: 0,
            };
        }
        let (terms, teacher) = (answer.terms.unwrap_or(self.terms), self.teachers.id(answer.teacher));
        let id = self.admit(&answer.name, self.private(teacher), answer.owner);
        self.add_leases(
            id,
            answer.addresses.iter().map(|&(address, ttl)| AddressLease {
                address,
                teacher,
                learned: now,
                expires: now + terms.lease(ttl),
            }),
        );
        let record = self.names.record(id);
        if record.leases.len() <= self.limits.addresses_per_name.get() {
            return LearnOutcome {
                leases: kept(record, answer),
                left_out: 0,
                evicted_addresses: 0,
            };
        }
        let answered: HashSet<IpAddr> = answer.addresses.iter().map(|(address, _)| *address).collect();
        let lost = self.trim(now, id);
        // Where all its leases were of no length, nothing of the name is left.
        let record = self.find(&answer.name, answer.teacher);
        let is_kept = |address: &&IpAddr| record.is_some_and(|record| record.leases.get(**address).is_some());
        LearnOutcome {
            leases: record.map(|record| kept(record, answer)).unwrap_or_default(),
            left_out: answered.len() - answered.iter().filter(is_kept).count(),
            evicted_addresses: lost.iter().filter(|address| !answered.contains(*address)).count(),
        }
    }

    /// Finishes what [`learn`](Self::learn) has left undone, and enforces the limits. Returns the
    /// evicted names that had live leases.
    ///
    /// The owner whose names and leases take most loses what it learned longest ago. Evicted
    /// addresses live out their leases in the kernel, but a recompiled program will not know them:
    /// the caller counts them. Expired entries are dropped before live ones are evicted, and
    /// [`expire`](Self::expire) does not report those again.
    pub fn evict(&mut self, now: Time) -> Vec<Name> {
        self.by_address.flush();
        let mut evicted = Vec::new();
        if !self.is_within_limits() {
            self.expire(now);
        }
        while let Some(oldest) = self.names.next_to_evict().filter(|_| !self.is_within_limits()) {
            evicted.push(self.forget(oldest));
        }
        evicted
    }

    /// Live entries, ordered by name. Of one name, those by trusted resolvers come first; of one
    /// teacher, they are ordered by address.
    pub fn entries(&self, now: Time) -> impl Iterator<Item = LedgerEntry<'_>> {
        let mut records: Vec<&NameRecord> = self.names.iter().collect();
        records.sort_unstable_by_key(|record| (&record.name, record.private.map(|id| self.teachers.get(id))));
        records.into_iter().flat_map(move |record| self.live(now, record))
    }

    /// Live entries, round-robin over the owners, each owner's most recently learned names first. A
    /// caller with room for some takes the first ones.
    pub fn fairly(&self, now: Time) -> impl Iterator<Item = (LeaseOwner, LedgerEntry<'_>)> {
        let records = self.names.fairly();
        records.flat_map(move |record| self.live(now, record).map(|entry| (record.owner, entry)))
    }

    /// Forgets an address that the kernel did not open.
    pub fn retract(&mut self, name: &Name, teacher: Teacher, address: IpAddr) {
        let teacher = self.teachers.id(teacher);
        let Some(id) = self.names.find(name, self.private(teacher)) else {
            return;
        };
        let record = self.names.record_mut(id);
        let before = (record.leases.soonest(), record.leases.len());
        if record.leases.take(address) {
            self.by_address.remove(address, id);
            self.settle(id, before);
        }
    }

    /// Live addresses of one name, those that trusted resolvers taught first.
    pub fn addresses(&self, now: Time, name: &Name) -> impl Iterator<Item = LedgerEntry<'_>> {
        self.names
            .all_of(name)
            .flat_map(move |id| self.live(now, self.names.record(id)))
    }

    /// Whether any name holds a live lease on `address` by a teacher that counts. It costs the
    /// logarithm of what is held, plus a look at each name whose lease on the address has ended or
    /// does not count.
    pub fn is_learned(&self, now: Time, address: IpAddr, counts: impl Fn(Teacher) -> bool) -> bool {
        self.live_holders(now, address).any(|entry| counts(entry.teacher))
    }

    /// The live leases on `address`, ordered by name, then teacher.
    pub fn holders(&self, now: Time, address: IpAddr) -> Vec<LedgerEntry<'_>> {
        let mut entries: Vec<LedgerEntry<'_>> = self.live_holders(now, address).collect();
        entries.sort_unstable_by_key(|entry| (entry.name, entry.teacher));
        entries
    }

    /// The live leases on `address`, with the owners of their names.
    pub fn at(&self, now: Time, address: IpAddr) -> impl Iterator<Item = (LeaseOwner, LedgerEntry<'_>)> {
        self.by_address.names_of(address).filter_map(move |id| {
            let record = self.names.record(id);
            let lease = record.leases.get(address).filter(|lease| lease.is_live(now))?;
            Some((record.owner, self.entry(record, lease)))
        })
    }

    /// Drops ended leases and returns them, the names whose leases ended first in front.
    pub fn expire(&mut self, now: Time) -> Vec<(Name, IpAddr)> {
        let mut dropped = Vec::new();
        while let Some(&(soonest, id)) = self.deadlines.first()
            && soonest <= now
        {
            let record = self.names.record_mut(id);
            let (name, held) = (record.name.clone(), record.leases.len());
            for address in record.leases.take_ended(now) {
                self.by_address.remove(address, id);
                dropped.push((name.clone(), address));
            }
            self.settle(id, (Some(soonest), held));
        }
        for (name, address) in &dropped {
            if self.ended.len() == REMEMBERED {
                self.ended.pop_front();
            }
            self.ended.push_back(EndedLease {
                name: name.clone(),
                address: *address,
                at: now,
            });
        }
        dropped
    }

    /// Leases that ended lately and were not renewed since, the latest first. Some thousand are
    /// remembered.
    pub fn ended(&self, now: Time) -> impl Iterator<Item = &EndedLease> {
        let again = move |ended: &&EndedLease| {
            self.addresses(now, &ended.name)
                .any(|live| live.address == ended.address)
        };
        self.ended.iter().rev().filter(move |ended| !again(ended))
    }

    /// When the next lease ends: call [`expire`](Self::expire) then.
    pub fn next_deadline(&self) -> Option<Time> {
        self.deadlines.first().map(|&(soonest, _)| soonest)
    }

    /// Names and addresses (name–address pairs) held, expired ones not yet dropped included.
    pub fn size(&self) -> (usize, usize) {
        (self.names.len(), self.by_address.len())
    }

    /// The teacher, if it has leases of its own.
    pub(crate) fn private(&self, teacher: TeacherId) -> Option<TeacherId> {
        matches!(self.teachers.get(teacher), Teacher::Private(_)).then_some(teacher)
    }

    fn find(&mut self, name: &Name, teacher: Teacher) -> Option<&NameRecord> {
        let teacher = self.teachers.id(teacher);
        let id = self.names.find(name, self.private(teacher))?;
        Some(self.names.record(id))
    }

    /// The record's id. It becomes the most recently learned.
    fn admit(&mut self, name: &Name, private: Option<TeacherId>, owner: LeaseOwner) -> NameId {
        match self.names.find(name, private) {
            Some(id) => {
                self.names.touch(id, owner);
                id
            }
            None => self.names.add_newest(name, private, owner),
        }
    }

    fn is_within_limits(&self) -> bool {
        self.names.len() <= self.most_names()
            && self.by_address.len() <= self.limits.leases()
            && self.names.octets() <= self.limits.octets()
    }

    fn most_names(&self) -> usize {
        self.limits.names.get().min(NameId::COUNT)
    }

    /// Gives a name leases (one at least), new or again. It may have too many then:
    /// [`trim`](Self::trim) is to follow.
    pub(crate) fn add_leases(&mut self, id: NameId, leases: impl IntoIterator<Item = AddressLease>) {
        let record = self.names.record_mut(id);
        let before = (record.leases.soonest(), record.leases.len());
        let added = record.leases.learn(leases);
        for address in added {
            self.by_address.insert(address, id);
        }
        self.settle(id, before);
    }

    /// Takes addresses from a name that has too many, ended leases first; returns the live ones
    /// that it has cost.
    pub(crate) fn trim(&mut self, now: Time, id: NameId) -> SmallVec<[IpAddr; 4]> {
        let limit = self.limits.addresses_per_name.get();
        let record = self.names.record_mut(id);
        if record.leases.len() <= limit {
            return SmallVec::new();
        }
        let before = (record.leases.soonest(), record.leases.len());
        let ended = record.leases.take_ended(now);
        let live = record.leases.take_beyond(limit);
        for &address in ended.iter().chain(&live) {
            self.by_address.remove(address, id);
        }
        self.settle(id, before);
        live
    }

    /// Forgets a name with all that it holds.
    pub(crate) fn forget(&mut self, id: NameId) -> Name {
        let NameRecord { name, leases, .. } = self.names.remove(id);
        if let Some(soonest) = leases.soonest() {
            self.deadlines.remove(&(soonest, id));
        }
        for lease in leases.iter() {
            self.by_address.remove(lease.address, id);
        }
        name
    }

    /// Restores the invariants of `deadlines` and `names` after a name's leases have changed.
    /// `before` and `held` are the earliest end and the number of its leases before that.
    fn settle(&mut self, id: NameId, (before, held): (Option<Time>, usize)) {
        self.names.recount(id, held);
        let after = self.names.record(id).leases.soonest();
        if before == after {
            return;
        }
        if let Some(before) = before {
            self.deadlines.remove(&(before, id));
        }
        match after {
            Some(after) => {
                self.deadlines.insert((after, id));
            }
            None => {
                self.names.remove(id);
            }
        }
    }

    fn live<'a>(&'a self, now: Time, record: &'a NameRecord) -> impl Iterator<Item = LedgerEntry<'a>> {
        record
            .leases
            .iter()
            .filter(move |lease| lease.is_live(now))
            .map(|lease| self.entry(record, lease))
    }

    fn live_holders(&self, now: Time, address: IpAddr) -> impl Iterator<Item = LedgerEntry<'_>> {
        self.at(now, address).map(|(_, entry)| entry)
    }

    fn entry<'a>(&self, record: &'a NameRecord, lease: &AddressLease) -> LedgerEntry<'a> {
        LedgerEntry {
            name: &record.name,
            address: lease.address,
            learned: lease.learned,
            expires: lease.expires,
            teacher: self.teachers.get(lease.teacher),
        }
    }
}

/// The leases of an answer's addresses, as far as the name holds them.
fn kept(record: &NameRecord, answer: &LearnedAnswer) -> SmallVec<[(IpAddr, Time); 4]> {
    let addresses = answer.addresses.iter();
    addresses
        .filter_map(|&(address, _)| Some((address, record.leases.get(address)?.expires)))
        .collect()
}

#[cfg(test)]
mod tests;
