//! A worker's cache of the answers that it has seen admitted.
//!
//! Most answers repeat what was learned seconds ago. Such an answer is admitted without the ledger
//! and without the enforcer's set mirror if three things hold: the same answer was admitted
//! before, nothing was lost since (`enforcer::writer::CommitToken`), and the lease that it would
//! get now is no longer than the one in force, less the grace.
//!
//! The table has a fixed size, and a newer entry replaces an older one in its slot. A miss costs a
//! look at the ledger and the set mirror, no more.

use std::hash::BuildHasher;

use ahash::RandomState;
use dns_proxy::ValidatedAnswer;
use enforcer::writer::CommitToken;

/// The size of the table, a power of two. An entry has 32 octets, and memory that is never touched
/// costs nothing.
const ENTRIES: usize = 65_536;

/// The version under which an entry was made. An entry of another version is never found, so that
/// the ledger is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct CacheVersion {
    /// How many plans were published.
    pub(super) publications: u64,
    /// How many names the ledger has evicted. It must learn an evicted name again, so that the next
    /// ruleset holds its addresses.
    pub(super) evictions: u64,
}

/// The cache of one worker.
#[derive(Debug)]
pub(super) struct AdmissionCache {
    entries: Vec<Option<AdmissionCacheEntry>>,
    /// Keyed at random, so that nobody can construct two answers with one fingerprint.
    hasher: RandomState,
}

#[derive(Debug, Clone, Copy)]
struct AdmissionCacheEntry {
    fingerprint: u64,
    token: CommitToken,
}

impl AdmissionCache {
    pub(super) fn new() -> Self {
        Self {
            entries: Vec::new(),
            hasher: RandomState::new(),
        }
    }

    /// The fingerprint of an answer, without its TTLs. A collision (one in 2⁶⁴) opens nothing: the
    /// answer would be released and its addresses refused.
    pub(super) fn fingerprint(&self, validated: &ValidatedAnswer, version: CacheVersion) -> u64 {
        use std::hash::{Hash, Hasher};
        let mut hasher = self.hasher.build_hasher();
        version.hash(&mut hasher);
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
        (entry.fingerprint == fingerprint).then_some(entry.token)
    }

    pub(super) fn note(&mut self, fingerprint: u64, token: CommitToken) {
        if self.entries.is_empty() {
            self.entries = vec![None; ENTRIES];
        }
        self.entries[place(fingerprint)] = Some(AdmissionCacheEntry { fingerprint, token });
    }
}

fn place(fingerprint: u64) -> usize {
    fingerprint as usize % ENTRIES
}
