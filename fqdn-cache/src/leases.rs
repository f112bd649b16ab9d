//! The leases of one name, by one teacher.

use std::net::IpAddr;

use clock::Time;
use smallvec::SmallVec;

use crate::teacher::TeacherId;

/// One address of one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AddressLease {
    pub(crate) address: IpAddr,
    pub(crate) teacher: TeacherId,
    /// When it was last learned.
    pub(crate) learned: Time,
    /// The first moment at which it is no longer live.
    pub(crate) expires: Time,
}

impl AddressLease {
    pub(crate) fn is_live(&self, now: Time) -> bool {
        now < self.expires
    }

    /// Renews the lease because the address was learned again. A lease is never shortened.
    pub(crate) fn renew(&mut self, again: &AddressLease) {
        if again.learned >= self.learned {
            self.learned = again.learned;
            self.teacher = again.teacher;
        }
        self.expires = self.expires.max(again.expires);
    }
}

/// The leases of one [record](crate::name_table::NameRecord), ordered by address, one for each.
///
/// Most names have one or two addresses, which take no allocation.
#[derive(Debug, Default)]
pub(crate) struct NameLeases(SmallVec<[AddressLease; 2]>);

impl NameLeases {
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, AddressLease> {
        self.0.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn get(&self, address: IpAddr) -> Option<&AddressLease> {
        let at = self.0.binary_search_by_key(&address, |lease| lease.address).ok()?;
        self.0.get(at)
    }

    /// Renews the leases that are held, adds the others; returns the addresses that were added.
    ///
    /// Sorts once for all: an answer may carry thousands of addresses.
    pub(crate) fn learn(&mut self, answered: impl IntoIterator<Item = AddressLease>) -> SmallVec<[IpAddr; 4]> {
        let mut fresh: SmallVec<[AddressLease; 4]> = SmallVec::new();
        for lease in answered {
            match self.0.binary_search_by_key(&lease.address, |held| held.address) {
                Ok(at) => self.0[at].renew(&lease),
                Err(_) => fresh.push(lease),
            }
        }
        fresh.sort_by_key(|lease| lease.address);
        fresh.dedup_by(|next, kept| {
            let same = next.address == kept.address;
            if same {
                kept.renew(next);
            }
            same
        });
        let added = fresh.iter().map(|lease| lease.address).collect();
        // There are many names: grow to what is needed, not to the next power of two.
        self.0.reserve_exact(fresh.len());
        self.0.append(&mut fresh);
        self.0.sort_unstable_by_key(|lease| lease.address);
        added
    }

    /// The earliest end of a lease.
    pub(crate) fn soonest(&self) -> Option<Time> {
        self.iter().map(|lease| lease.expires).min()
    }

    /// Takes out the leases that have ended, in the order of their addresses.
    pub(crate) fn take_ended(&mut self, now: Time) -> SmallVec<[IpAddr; 4]> {
        let ended = self
            .iter()
            .filter(|lease| !lease.is_live(now))
            .map(|lease| lease.address)
            .collect();
        self.0.retain(|lease| lease.is_live(now));
        if self.0.spilled() && self.0.len() <= self.0.capacity() / 4 {
            // A name that once had hundreds of addresses does not keep their memory.
            self.0.shrink_to_fit();
        }
        ended
    }

    /// Takes out the lease of an address, if there is one.
    pub(crate) fn take(&mut self, address: IpAddr) -> bool {
        let found = self.0.binary_search_by_key(&address, |lease| lease.address);
        found.map(|at| self.0.remove(at)).is_ok()
    }

    /// Takes out the leases that end first until at most `limit` are left. Of those that end
    /// together, the one learned longest ago goes first.
    pub(crate) fn take_beyond(&mut self, limit: usize) -> SmallVec<[IpAddr; 4]> {
        let excess = self.len().saturating_sub(limit);
        if excess == 0 {
            return SmallVec::new();
        }
        self.0
            .sort_unstable_by_key(|lease| (lease.expires, lease.learned, lease.address));
        let taken = self.0.drain(..excess).map(|lease| lease.address).collect();
        self.0.sort_unstable_by_key(|lease| lease.address);
        taken
    }
}
