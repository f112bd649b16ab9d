//! Which identities the selectors of pods match, each evaluated once.

use std::collections::{BTreeSet, HashMap};

use slotmap::{SlotMap, new_key_type};
use smallvec::SmallVec;

use crate::labels::{LabelSelector, Labels, Operator};
use crate::pod_index::{IdentityNumber, PodIndex};

new_key_type! {
    /// A selector in a table.
    pub(crate) struct SelectorKey;
}

/// Selectors by the labels that they ask for. A selector is registered under one label, so a new
/// identity is held against those that ask for a label that it has, and against those that ask for
/// none.
#[derive(Debug, Default)]
pub(crate) struct SelectorTable {
    selectors: SlotMap<SelectorKey, TableEntry>,
    keys: HashMap<LabelSelector, SelectorKey>,
    /// By label key and value.
    by_label: HashMap<String, HashMap<String, Vec<SelectorKey>>>,
    /// Those that ask for no value.
    unlabelled: Vec<SelectorKey>,
    matching: HashMap<IdentityNumber, SmallVec<[SelectorKey; 4]>>,
}

#[derive(Debug)]
struct TableEntry {
    selector: LabelSelector,
    /// The index of the requirement that it is registered under.
    registered: Option<usize>,
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
        let registered = self.rarest(selector);
        let key = self.selectors.insert(TableEntry {
            selector: selector.clone(),
            registered,
            identities: identities.clone(),
            users: 1,
        });
        self.keys.insert(selector.clone(), key);
        for identity in identities {
            self.matching.entry(identity).or_default().push(key);
        }
        match registered.map(|index| &selector.requirements[index]) {
            Some(requirement) => {
                let values = self.by_label.entry(requirement.key.clone()).or_default();
                // A value may be listed twice.
                let asked: BTreeSet<&String> = asked(&requirement.operator).iter().collect();
                for value in asked {
                    values.entry(value.clone()).or_default().push(key);
                }
            }
            None => self.unlabelled.push(key),
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
        match entry.registered.map(|index| &entry.selector.requirements[index]) {
            Some(requirement) => {
                let Some(values) = self.by_label.get_mut(&requirement.key) else {
                    return;
                };
                for value in asked(&requirement.operator) {
                    if let Some(keys) = values.get_mut(value) {
                        keys.retain(|other| *other != key);
                        if keys.is_empty() {
                            values.remove(value);
                        }
                    }
                }
                if values.is_empty() {
                    self.by_label.remove(&requirement.key);
                }
            }
            None => self.unlabelled.retain(|other| *other != key),
        }
    }

    /// Evaluates the selectors for an identity that has come.
    pub(crate) fn learn(&mut self, identity: IdentityNumber, labels: &Labels) {
        let by_label = labels
            .iter()
            .filter_map(|(key, value)| self.by_label.get(key)?.get(value))
            .flatten();
        let candidates = by_label.chain(&self.unlabelled).copied();
        let matches = |key: &SelectorKey| {
            let entry = self.selectors.get(*key);
            entry.is_some_and(|entry| entry.selector.matches(labels))
        };
        let matching: SmallVec<[SelectorKey; 4]> = candidates.filter(matches).collect();
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

    /// The requirement by which the fewest other selectors are registered.
    fn rarest(&self, selector: &LabelSelector) -> Option<usize> {
        let shared = |key: &str, value: &String| {
            let keys = self.by_label.get(key).and_then(|values| values.get(value));
            keys.map_or(0, Vec::len)
        };
        let requirements = selector.requirements.iter().enumerate();
        requirements
            .filter_map(|(index, requirement)| {
                let values = asked(&requirement.operator);
                let most = values.iter().map(|value| shared(&requirement.key, value)).max()?;
                Some((most, index))
            })
            .min()
            .map(|(_, index)| index)
    }
}

/// The values of which a label must have one; none where it need not have one of a list.
fn asked(operator: &Operator) -> &[String] {
    match operator {
        Operator::In(values) => values,
        Operator::NotIn(_) | Operator::Exists | Operator::DoesNotExist => &[],
    }
}
