//! Which identities the selectors of pods match, each evaluated once.

use std::collections::{BTreeSet, HashMap};

use slotmap::{SlotMap, new_key_type};
use smallvec::SmallVec;

use crate::label_index::{LabelIndex, RegisteredUnder};
use crate::labels::{LabelSelector, Labels};
use crate::pod_index::{IdentityNumber, PodIndex};

new_key_type! {
    /// A selector in a table.
    pub(crate) struct SelectorKey;
}

/// Selectors of pods, with the identities that each matches.
#[derive(Debug, Default)]
pub(crate) struct SelectorTable {
    selectors: SlotMap<SelectorKey, TableEntry>,
    keys: HashMap<LabelSelector, SelectorKey>,
    index: LabelIndex<SelectorKey>,
    matching: HashMap<IdentityNumber, SmallVec<[SelectorKey; 4]>>,
}

#[derive(Debug)]
struct TableEntry {
    selector: LabelSelector,
    /// Where the index has it.
    under: RegisteredUnder,
    identities: BTreeSet<IdentityNumber>,
    users: usize,
}

impl SelectorTable {
    /// Adds a selector, or one more user of it. A new one is held against the identities of the
    /// namespace that it names, or against all.
    pub(crate) fn add(&mut self, selector: &LabelSelector, pods: &PodIndex) -> SelectorKey {
        if let Some(key) = self.keys.get(selector) {
            self.selectors[*key].users += 1;
            return *key;
        }
        let identities: BTreeSet<IdentityNumber> = pods.selected_identities(selector).collect();
        let index = &mut self.index;
        let key = self.selectors.insert_with_key(|key| TableEntry {
            selector: selector.clone(),
            under: index.insert(selector, key),
            identities: identities.clone(),
            users: 1,
        });
        self.keys.insert(selector.clone(), key);
        for identity in identities {
            self.matching.entry(identity).or_default().push(key);
        }
        key
    }

    /// Removes a user of a selector, and with the last one the selector.
    pub(crate) fn remove(&mut self, key: SelectorKey) {
        let Some(entry) = self.selectors.get_mut(key) else {
            return;
        };
        entry.users -= 1;
        if entry.users > 0 {
            return;
        }
        let Some(entry) = self.selectors.remove(key) else {
            return;
        };
        self.keys.remove(&entry.selector);
        for identity in &entry.identities {
            if let Some(matching) = self.matching.get_mut(identity) {
                matching.retain(|other| *other != key);
            }
        }
        self.index.remove(&entry.selector, key, entry.under);
    }

    /// Evaluates the selectors for an identity that has come.
    pub(crate) fn learn(&mut self, identity: IdentityNumber, labels: &Labels) {
        let matches = |key: &SelectorKey| {
            let entry = self.selectors.get(*key);
            entry.is_some_and(|entry| entry.selector.matches(labels))
        };
        let matching: SmallVec<[SelectorKey; 4]> = self.index.candidates(labels).filter(matches).collect();
        for key in &matching {
            if let Some(entry) = self.selectors.get_mut(*key) {
                entry.identities.insert(identity);
            }
        }
        self.matching.insert(identity, matching);
    }

    /// Forgets an identity that is gone.
    pub(crate) fn forget(&mut self, identity: IdentityNumber) {
        for key in self.matching.remove(&identity).into_iter().flatten() {
            if let Some(entry) = self.selectors.get_mut(key) {
                entry.identities.remove(&identity);
            }
        }
    }

    /// The selectors that match an identity.
    pub(crate) fn matching(&self, identity: IdentityNumber) -> &[SelectorKey] {
        self.matching.get(&identity).map_or(&[], |matching| matching)
    }

    /// The identities that a selector matches.
    pub(crate) fn identities(&self, key: SelectorKey) -> &BTreeSet<IdentityNumber> {
        static NONE: BTreeSet<IdentityNumber> = BTreeSet::new();
        self.selectors.get(key).map_or(&NONE, |entry| &entry.identities)
    }
}
