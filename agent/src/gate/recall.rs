//! What a worker remembers of answers that it has seen admitted.
//!
//! Most answers teach what was taught seconds ago. For those neither the ledger nor the kernel's
//! book has to be asked: it is enough that the same answer was admitted, that nothing was lost
//! since (`enforcer::writer::CommitToken`), and that the lease it would give now is no longer than
//! the one in force, less the grace.
//!
//! A table of fixed size, in which a newer entry takes the place of an older one: forgetting costs
//! a look at the book, no more.

use std::hash::BuildHasher;

use ahash::RandomState;
use dns_proxy::ValidatedAnswer;
use enforcer::writer::CommitToken;

/// Entries; a power of two. 32 octets each, and only those that are used take memory.
const ENTRIES: usize = 65_536;

/// Under what circumstances an entry holds. When any of these has changed, the ledger is to be
/// asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Circumstances {
    /// Plans published so far.
    pub(super) publications: u64,
    /// Names that the ledger forgot so far: it must learn what it forgot again, so that the next
    /// rules know it.
    pub(super) evictions: u64,
}

/// The table.
#[derive(Debug)]
pub(super) struct Recall {
    entries: Vec<Option<Entry>>,
    /// Keyed at random: who makes up answers cannot make two of them meet.
    hasher: RandomState,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    fingerprint: u64,
    standing: CommitToken,
}

impl Recall {
    pub(super) fn new() -> Self {
        Self {
            entries: Vec::new(),
            hasher: RandomState::new(),
        }
    }

    /// What identifies an answer, its TTLs apart. Two answers with the same one (one in 2⁶⁴) could
    /// open nothing: the answer would be released, and its addresses refused.
    pub(super) fn fingerprint(&self, validated: &ValidatedAnswer, circumstances: Circumstances) -> u64 {
        use std::hash::{Hash, Hasher};
        let mut hasher = self.hasher.build_hasher();
        circumstances.hash(&mut hasher);
        validated.name.hash(&mut hasher);
        validated.chain.hash(&mut hasher);
        validated.source.ip().hash(&mut hasher);
        for (address, _) in &validated.addresses {
            address.hash(&mut hasher);
        }
        hasher.finish()
    }

    pub(super) fn find(&self, fingerprint: u64) -> Option<CommitToken> {
        let entry = (*self.entries.get(place(fingerprint))?)?;
        (entry.fingerprint == fingerprint).then_some(entry.standing)
    }

    pub(super) fn note(&mut self, fingerprint: u64, standing: CommitToken) {
        if self.entries.is_empty() {
            self.entries = vec![None; ENTRIES];
        }
        self.entries[place(fingerprint)] = Some(Entry { fingerprint, standing });
    }
}

fn place(fingerprint: u64) -> usize {
    fingerprint as usize % ENTRIES
}
