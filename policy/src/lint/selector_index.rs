//! Which selectors select everything that another one selects.

use std::collections::BTreeSet;

use crate::label_index::LabelIndex;
use crate::labels::{LabelSelector, Operator};

use super::containment::selector_in;

/// Selectors, among which those are found that select everything that another one selects.
pub(super) struct SelectorIndex<'a> {
    selectors: Vec<&'a LabelSelector>,
    index: LabelIndex<usize>,
}

impl<'a> SelectorIndex<'a> {
    pub(super) fn new(selectors: impl Iterator<Item = &'a LabelSelector>) -> Self {
        let selectors: Vec<&LabelSelector> = selectors.collect();
        let mut index = LabelIndex::default();
        for (number, selector) in selectors.iter().enumerate() {
            index.insert(selector, number);
        }
        Self { selectors, index }
    }

    /// Those of which [`selector_in`] says that they select all that `part` selects, ascending.
    pub(super) fn containing(&self, part: &LabelSelector) -> Vec<usize> {
        // Of a requirement that implies another `In`, every value is among the other's.
        let asked = part.requirements.iter().filter_map(|asked| match &asked.operator {
            Operator::In(values) => Some((&asked.key, values.first()?)),
            Operator::NotIn(_) | Operator::Exists | Operator::DoesNotExist => None,
        });
        let contains = |number: &usize| selector_in(part, self.selectors[*number]);
        // `part` may ask for a label twice.
        let containing: BTreeSet<usize> = self.index.candidates(asked).filter(contains).collect();
        containing.into_iter().collect()
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
