//! A bounded memory that its owners share fairly.

use std::hash::Hash;
use std::num::NonZeroUsize;

use lru::LruCache;

/// How much is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FairLruLimits {
    /// Entries in all.
    pub(super) total: NonZeroUsize,
    /// Entries of one owner.
    pub(super) per_owner: NonZeroUsize,
}

/// Entries by owner and key. Within an owner the least recently used gives way; when all is full,
/// that of the owner who has been silent longest. So an owner who brings about a great many entries
/// drives out its own, and not those of others who are active.
#[derive(Debug)]
pub(super) struct FairLru<O: Hash + Eq, K: Hash + Eq, V> {
    /// No owner is without entries.
    owners: LruCache<O, LruCache<K, V>>,
    limits: FairLruLimits,
    /// The entries of all owners.
    len: usize,
}

impl<O: Hash + Eq + Clone, K: Hash + Eq, V> FairLru<O, K, V> {
    pub(super) fn new(limits: FairLruLimits) -> Self {
        Self {
            // Bounded by the entries.
            owners: LruCache::unbounded(),
            limits,
            len: 0,
        }
    }

    /// An entry, which counts as used. Does not allocate.
    pub(super) fn get_mut(&mut self, owner: &O, key: &K) -> Option<&mut V> {
        self.owners.get_mut(owner)?.get_mut(key)
    }

    /// An entry, which does not count as used.
    pub(super) fn peek(&self, owner: &O, key: &K) -> Option<&V> {
        self.owners.peek(owner)?.peek(key)
    }

    /// Writes an entry, and forgets another if there are too many.
    pub(super) fn put(&mut self, owner: &O, key: K, value: V) {
        self.change(owner, |entries| drop(entries.put(key, value)));
    }

    /// Writes the same value into many entries of an owner, as [`put`](Self::put) does. Where all
    /// have it already nothing is done, and nothing counts as used: moving to the front costs more
    /// than to look.
    pub(super) fn put_all(&mut self, owner: &O, keys: impl IntoIterator<Item = K, IntoIter: Clone>, value: &V)
    where
        V: Clone + PartialEq,
    {
        let keys = keys.into_iter();
        let known = self.owners.peek(owner);
        let has = |key: K| known.is_some_and(|entries| entries.peek(&key) == Some(value));
        // Also where there are no keys: no owner is without entries.
        if keys.clone().all(has) {
            return;
        }
        self.change(owner, |entries| {
            for key in keys {
                match entries.get_mut(&key) {
                    Some(known) if known == value => {}
                    Some(other) => *other = value.clone(),
                    None => drop(entries.put(key, value.clone())),
                }
            }
        });
    }

    /// Every entry, in no order that means anything.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&O, &K, &V)> {
        self.owners
            .iter()
            .flat_map(|(owner, entries)| entries.iter().map(move |(key, value)| (owner, key, value)))
    }

    /// Writes entries of one owner, one at least.
    fn change(&mut self, owner: &O, write: impl FnOnce(&mut LruCache<K, V>)) {
        // Sparse: most owners have few entries.
        let entries = self
            .owners
            .get_or_insert_mut_ref(owner, || LruCache::sparse(self.limits.per_owner));
        let before = entries.len();
        write(entries);
        self.len += entries.len() - before;
        while self.len > self.limits.total.get() {
            self.forget_one();
        }
    }

    fn forget_one(&mut self) {
        let Some((_, silent)) = self.owners.iter_mut().next_back() else {
            return;
        };
        if silent.pop_lru().is_some() {
            self.len -= 1;
        }
        if silent.is_empty() {
            self.owners.pop_lru();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lru(total: usize, per_owner: usize) -> FairLru<u8, u8, u8> {
        FairLru::new(FairLruLimits {
            total: NonZeroUsize::new(total).unwrap(),
            per_owner: NonZeroUsize::new(per_owner).unwrap(),
        })
    }

    #[test]
    fn an_owner_with_too_many_entries_forgets_its_own() {
        let mut lru = lru(100, 2);
        lru.put(&9, 0, 0);
        for key in 0..5 {
            lru.put(&1, key, key);
        }
        let known = |key: u8| lru.peek(&1, &key).is_some();
        assert_eq!((0..5).map(known).collect::<Vec<_>>(), [false, false, false, true, true]);
        assert!(lru.peek(&9, &0).is_some());
    }

    #[test]
    fn when_all_is_full_the_silent_owner_forgets_first() {
        let mut lru = lru(4, 3);
        for (owner, key) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
            lru.put(&owner, key, 0);
        }
        // The first owner is heard of again, and so is the older of its entries.
        assert!(lru.get_mut(&1, &1).is_some());
        lru.put(&3, 1, 0);
        assert!(
            lru.peek(&2, &1).is_none(),
            "the least recently used of the silent owner"
        );
        lru.put(&3, 2, 0);
        let mut left: Vec<_> = lru.iter().map(|(owner, key, _)| (*owner, *key)).collect();
        left.sort_unstable();
        assert_eq!(left, [(1, 1), (1, 2), (3, 1), (3, 2)]);
    }

    proptest! {
        #[test]
        fn bounds_hold_and_what_was_just_written_is_there(
            writes in proptest::collection::vec((0u8..6, 0u8..12), 0..200),
            total in 1usize..20,
            per_owner in 1usize..8,
        ) {
            let mut lru = lru(total, per_owner);
            for (owner, key) in writes {
                match key % 2 {
                    0 => lru.put(&owner, key, 0),
                    _ => lru.put_all(&owner, [key / 2, key], &0),
                }
                prop_assert!(lru.peek(&owner, &key).is_some());
                prop_assert_eq!(lru.iter().count(), lru.len);
                prop_assert!(lru.len <= total);
                prop_assert!(lru.owners.iter().all(|(_, entries)| (1..=per_owner).contains(&entries.len())));
            }
        }
    }
}
