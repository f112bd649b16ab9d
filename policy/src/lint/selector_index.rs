//! Selectors by what they ask for.

use std::collections::{BTreeSet, HashMap};

use crate::labels::{LabelSelector, Operator};

use super::containment::selector_in;

/// Selectors, among which those are found that select everything that another one selects.
pub(super) struct SelectorIndex<'a> {
    selectors: Vec<&'a LabelSelector>,
    /// Those that ask for nothing.
    of_everyone: Vec<usize>,
    /// The others, by the first thing that they ask for. Whoever selects no more than such a one
    /// asks something of the same key.
    by_value: HashMap<(&'a str, &'a str), Vec<usize>>,
    by_key: HashMap<&'a str, Vec<usize>>,
}

impl<'a> SelectorIndex<'a> {
    pub(super) fn new(selectors: impl Iterator<Item = &'a LabelSelector>) -> Self {
        let mut index = Self {
            selectors: selectors.collect(),
            of_everyone: Vec::new(),
            by_value: HashMap::new(),
            by_key: HashMap::new(),
        };
        for (number, selector) in index.selectors.iter().enumerate() {
            let Some(first) = selector.requirements.first() else {
                index.of_everyone.push(number);
                continue;
            };
            match &first.operator {
                Operator::In(values) => {
                    for value in values.iter().collect::<BTreeSet<_>>() {
                        let value = (first.key.as_str(), value.as_str());
                        index.by_value.entry(value).or_default().push(number);
                    }
                }
                _ => index.by_key.entry(first.key.as_str()).or_default().push(number),
            }
        }
        index
    }

    /// Those of which [`selector_in`] says that they select all that `part` selects, ascending.
    pub(super) fn containing(&self, part: &LabelSelector) -> Vec<usize> {
        let mut candidates: BTreeSet<usize> = self.of_everyone.iter().copied().collect();
        for asked in &part.requirements {
            let key = asked.key.as_str();
            candidates.extend(self.by_key.get(key).into_iter().flatten());
            // Of a requirement that implies another `In`, every value is among the other's.
            if let Operator::In(values) = &asked.operator
                && let Some(value) = values.first()
            {
                candidates.extend(self.by_value.get(&(key, value.as_str())).into_iter().flatten());
            }
        }
        let contains = |number: &usize| selector_in(part, self.selectors[*number]);
        candidates.into_iter().filter(contains).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn requirement() -> impl Strategy<Value = (String, String, Vec<String>)> {
        let values = proptest::collection::vec("[ab]", 1..3);
        let key = "[xyz]";
        prop_oneof![
            (key, Just("In".to_owned()), values.clone()),
            (key, Just("NotIn".to_owned()), values),
            (key, Just("Exists".to_owned()), Just(Vec::new())),
            (key, Just("DoesNotExist".to_owned()), Just(Vec::new())),
        ]
    }

    fn selector() -> impl Strategy<Value = LabelSelector> {
        let requirements = proptest::collection::vec(requirement(), 0..3);
        requirements.prop_map(|requirements| LabelSelector::new([], requirements).unwrap())
    }

    proptest! {
        #[test]
        fn it_finds_what_a_look_at_each_selector_finds(
            selectors in proptest::collection::vec(selector(), 0..8),
            part in selector(),
        ) {
            let each = selectors.iter().enumerate().filter(|(_, whole)| selector_in(&part, whole));
            let each: Vec<usize> = each.map(|(number, _)| number).collect();
            prop_assert_eq!(SelectorIndex::new(selectors.iter()).containing(&part), each);
        }
    }
}
