//! Selectors, found by the labels that they ask for.
//!
//! What many selectors select is found without holding each of them against each object: a selector
//! is registered under one value of a label that it asks for. So labels are held against the
//! selectors that ask for one of them, and against those that ask for no value.

use std::collections::{BTreeSet, HashMap};

use crate::labels::{LabelSelector, Operator};

/// Selectors by the labels that they ask for. Each has a key, which the caller gives it.
#[derive(Debug)]
pub struct LabelIndex<K> {
    /// By label key and value.
    by_label: HashMap<String, HashMap<String, Vec<K>>>,
    /// Those that ask for no value.
    unlabelled: Vec<K>,
}

/// Where a selector is registered: the index of a requirement, if one asks for a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegisteredUnder(Option<usize>);

impl<K> Default for LabelIndex<K> {
    fn default() -> Self {
        Self {
            by_label: HashMap::new(),
            unlabelled: Vec::new(),
        }
    }
}

impl<K: Copy + PartialEq> LabelIndex<K> {
    /// Adds a selector, under the requirement by which the fewest others are registered.
    pub fn insert(&mut self, selector: &LabelSelector, key: K) -> RegisteredUnder {
        let under = self.rarest(selector);
        match under.map(|index| &selector.requirements[index]) {
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
        RegisteredUnder(under)
    }

    /// Removes a selector, which is registered there.
    pub fn remove(&mut self, selector: &LabelSelector, key: K, under: RegisteredUnder) {
        let Some(requirement) = under.0.and_then(|index| selector.requirements.get(index)) else {
            return self.unlabelled.retain(|other| *other != key);
        };
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

    /// The keys of all selectors that may match these labels, and of some that do not. Each comes
    /// once, if each label key does.
    pub fn candidates<'a>(
        &'a self,
        labels: impl IntoIterator<Item = (&'a String, &'a String)> + 'a,
    ) -> impl Iterator<Item = K> + 'a {
        let by_label = labels
            .into_iter()
            .filter_map(|(key, value)| self.by_label.get(key)?.get(value));
        by_label.flatten().chain(&self.unlabelled).copied()
    }

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::labels::Labels;

    use super::*;

    fn selector() -> impl Strategy<Value = LabelSelector> {
        let values = proptest::collection::vec("[ab]", 1..3);
        let requirement = prop_oneof![
            ("[xyz]", Just("In".to_owned()), values.clone()),
            ("[xyz]", Just("NotIn".to_owned()), values),
            ("[xyz]", Just("Exists".to_owned()), Just(Vec::new())),
        ];
        let requirements = proptest::collection::vec(requirement, 0..3);
        requirements.prop_map(|requirements| LabelSelector::new([], requirements).unwrap())
    }

    fn labels() -> impl Strategy<Value = Labels> {
        proptest::collection::btree_map("[xyz]", "[abc]", 0..3)
    }

    proptest! {
        #[test]
        fn it_finds_what_a_look_at_each_selector_finds(
            steps in proptest::collection::vec((selector(), any::<bool>()), 0..8),
            labels in labels(),
        ) {
            let mut index = LabelIndex::default();
            let mut left = Vec::new();
            for (key, (selector, stays)) in steps.into_iter().enumerate() {
                let under = index.insert(&selector, key);
                left.push((key, selector, under, stays));
            }
            for (key, selector, under, _) in left.extract_if(.., |(.., stays)| !*stays) {
                index.remove(&selector, key, under);
            }
            let candidates: Vec<usize> = index.candidates(&labels).collect();
            for (key, selector, ..) in &left {
                let found = candidates.iter().filter(|candidate| *candidate == key).count();
                prop_assert!(found == 1 || found == 0 && !selector.matches(&labels), "{found} times");
            }
            prop_assert!(candidates.iter().all(|candidate| left.iter().any(|(key, ..)| key == candidate)));
        }
    }
}
