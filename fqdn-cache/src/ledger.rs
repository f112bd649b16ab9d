//! The ledger.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use policy::Name;

use crate::lease::LeaseTerms;
use crate::time::Time;

/// How much a ledger holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Names. Default 100,000.
    pub names: NonZeroUsize,
    /// Addresses of one name. Default 1,000: a name that rotates faster than its leases end is capped.
    pub addresses_per_name: NonZeroUsize,
}

/// What an upstream's answer taught, already validated: every address hangs on an unbroken chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The name to credit, usually the question's.
    pub name: Name,
    /// The addresses, each with the smallest TTL along its chain.
    pub addresses: Vec<(IpAddr, Duration)>,
    /// Who taught it: the upstream's address, for people.
    pub source: IpAddr,
}

/// What learning an answer did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The lease of each address of the answer, in its order: the moment it ends. Never earlier than a
    /// lease that the same name held for the address before.
    pub leases: Vec<(IpAddr, Time)>,
    /// A name with live leases that was forgotten to make room (least recently learned first). Its addresses live out their
    /// leases in the kernel, but a recompiled program will not know them. Counted and logged by the caller.
    pub evicted: Option<Name>,
    /// Live addresses of this very name that were forgotten because it has too many.
    pub evicted_addresses: usize,
}

/// One address of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The name.
    pub name: &'a Name,
    /// One of its addresses.
    pub address: IpAddr,
    /// When it was last learned.
    pub learned: Time,
    /// When its lease ends.
    pub expires: Time,
    /// Who taught it.
    pub source: IpAddr,
}

/// Which name resolved to which addresses until when.
#[derive(Debug)]
pub struct Ledger {
    limits: Limits,
    terms: LeaseTerms,
}

impl Default for Limits {
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

impl Ledger {
    /// An empty ledger.
    pub fn new(limits: Limits, terms: LeaseTerms) -> Self {
        Self { limits, terms }
    }

    /// Records an answer. Expired entries are dropped before live ones are evicted.
    pub fn learn(&mut self, now: Time, answer: &Answer) -> Outcome {
        let _ = (now, answer, self.limits, self.terms);
        todo!()
    }

    /// Live entries, ordered by name, then address.
    pub fn entries(&self, now: Time) -> impl Iterator<Item = Entry<'_>> {
        let _ = now;
        std::iter::empty()
    }

    /// Live addresses of one name.
    pub fn addresses(&self, now: Time, name: &Name) -> impl Iterator<Item = Entry<'_>> {
        let _ = (now, name);
        std::iter::empty()
    }

    /// Whether any name holds a live lease on `address`. Constant time.
    pub fn is_learned(&self, now: Time, address: IpAddr) -> bool {
        let _ = (now, address);
        todo!()
    }

    /// The names that hold a live lease on `address`, ordered.
    pub fn names_of(&self, now: Time, address: IpAddr) -> Vec<&Name> {
        let _ = (now, address);
        todo!()
    }

    /// Drops what has ended; returns what was dropped.
    pub fn expire(&mut self, now: Time) -> Vec<(Name, IpAddr)> {
        let _ = now;
        todo!()
    }

    /// When the next lease ends: call [`expire`](Self::expire) then.
    pub fn next_deadline(&self) -> Option<Time> {
        todo!()
    }

    /// Names and addresses (name–address pairs) held, expired ones not yet dropped included.
    pub fn size(&self) -> (usize, usize) {
        todo!()
    }
}
