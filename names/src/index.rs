//! Many patterns matched against one name at once: a trie over labels.

mod globs;
mod label_hash;

use smallvec::SmallVec;

use crate::name::Name;
use crate::pattern::{Pattern, PatternLabel, is_plain_label};

use self::globs::Globs;
use self::label_hash::LabelMap;

/// A map from patterns to values, asked by name.
///
/// A lookup walks the labels of the name from the right. It does not allocate, and its cost does
/// not depend on how many patterns are stored, with two exceptions. It visits every branch that
/// matches the labels read so far (with `*.b` and `a.b` both stored, `a.b` has two). And it tries
/// patterns with several stars in one label one by one where their first and last literal parts are
/// the same.
///
/// ```
/// use names::{Name, NameIndex, Pattern};
///
/// let mut index = NameIndex::default();
/// index.insert(&Pattern::pattern("*.example.com").unwrap(), "one label");
/// index.insert(&Pattern::name("api.example.com").unwrap(), "the name");
///
/// let mut found = Vec::new();
/// index.each_match(&Name::parse("api.example.com").unwrap(), |value| found.push(*value));
/// found.sort_unstable();
/// assert_eq!(found, ["one label", "the name"]);
/// ```
#[derive(Debug, Clone)]
pub struct NameIndex<V> {
    values: Vec<V>,
    /// Values of the patterns that match every name.
    every_name: ValueIds,
    /// The trie, the root of the DNS first. The path to a node is the labels of a pattern, read
    /// from the right.
    nodes: Vec<TrieNode>,
}

/// Indices into [`NameIndex::values`].
type ValueIds = SmallVec<[u32; 2]>;

/// An index into [`NameIndex::nodes`].
type NodeId = u32;

const ROOT: usize = 0;

/// What may follow, to the left, on the labels that lead to this node.
#[derive(Debug, Clone, Default)]
struct TrieNode {
    /// Patterns that end here.
    here: ValueIds,
    /// Patterns that end with one or more labels more.
    one_or_more: ValueIds,
    exact: LabelMap<NodeId>,
    any_label: Option<NodeId>,
    globs: Globs,
}

impl<V> Default for NameIndex<V> {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            every_name: ValueIds::new(),
            nodes: vec![TrieNode::default()],
        }
    }
}

impl<V> NameIndex<V> {
    /// Adds a value under a pattern. The same pattern may be added many times.
    pub fn insert(&mut self, pattern: &Pattern, value: V) {
        let place = self.values.len() as u32;
        self.values.push(value);
        if pattern.is_every_name() {
            self.every_name.push(place);
            return;
        }
        let mut at = ROOT;
        for part in pattern.parts_from_the_right() {
            // The next id, used only if the edge is new.
            let fresh = self.nodes.len() as NodeId;
            let node = &mut self.nodes[at];
            let next = match part {
                // The leftmost part by construction.
                PatternLabel::OneOrMore => return node.one_or_more.push(place),
                PatternLabel::Exact(label) => match node.exact.get(label) {
                    Some(&known) => known,
                    None => *node.exact.entry(label.into()).or_insert(fresh),
                },
                PatternLabel::One => *node.any_label.get_or_insert(fresh),
                PatternLabel::Glob(glob) => node.globs.get_or_insert(glob, fresh),
            };
            if next == fresh {
                self.nodes.push(TrieNode::default());
            }
            at = next as usize;
        }
        self.nodes[at].here.push(place);
    }

    /// Calls `found` for the value of each pattern that matches `name`, in no promised order,
    /// each inserted value exactly once.
    pub fn each_match<'a>(&'a self, name: &Name, mut found: impl FnMut(&'a V)) {
        self.walk(name, &mut |places| {
            places.iter().for_each(|&place| found(&self.values[place as usize]));
            false
        });
    }

    /// Whether any pattern matches `name`.
    pub fn any_match(&self, name: &Name) -> bool {
        self.walk(name, &mut |places| !places.is_empty())
    }

    /// Whether no pattern is stored.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Visits the values of all matches until `enough` returns true; returns whether it did.
    fn walk(&self, name: &Name, enough: &mut impl FnMut(&[u32]) -> bool) -> bool {
        // `**` stands for plain labels only: it can match once all labels that are not plain have
        // been read. Nearly every name has none.
        let plain_after = match name.is_plain() {
            true => 0,
            false => name
                .labels_from_the_right()
                .enumerate()
                .filter(|(_, label)| !is_plain_label(label))
                .last()
                .map_or(0, |(position, _)| position + 1),
        };
        enough(&self.every_name) || self.descend(ROOT, name.labels_from_the_right(), 0, plain_after, enough)
    }

    /// Matches the `labels` that are left below one node. `depth` labels have been read.
    ///
    /// Recursion is as deep as the tree at most: 128 labels, the most that a pattern can have.
    fn descend<'n>(
        &self,
        at: usize,
        mut labels: impl Iterator<Item = &'n str> + Clone,
        depth: usize,
        plain_after: usize,
        enough: &mut impl FnMut(&[u32]) -> bool,
    ) -> bool {
        let node = &self.nodes[at];
        let Some(label) = labels.next() else {
            return enough(&node.here);
        };
        if depth >= plain_after && enough(&node.one_or_more) {
            return true;
        }
        let mut follow = |next: NodeId| self.descend(next as usize, labels.clone(), depth + 1, plain_after, enough);
        if node.exact.get(label).is_some_and(|&next| follow(next)) {
            return true;
        }
        let starred = node.any_label.is_some() || !node.globs.is_empty();
        starred
            && is_plain_label(label)
            && (node.any_label.is_some_and(&mut follow) || node.globs.any_match(label, &mut follow))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pattern::samples::{asked_name, written_pattern};

    fn index<'a>(patterns: impl IntoIterator<Item = &'a str>) -> NameIndex<&'a str> {
        let mut index = NameIndex::default();
        for text in patterns {
            index.insert(&Pattern::pattern(text).unwrap(), text);
        }
        index
    }

    fn matches<'a>(index: &NameIndex<&'a str>, name: &str) -> Vec<&'a str> {
        let mut found = Vec::new();
        index.each_match(&Name::parse(name).unwrap(), |&value| found.push(value));
        found.sort_unstable();
        found
    }

    #[test]
    fn every_kind_of_pattern_is_found() {
        let index = index([
            "a.example.com",
            "*.example.com",
            "**.example.com",
            "*example.com",
            "a*.example.com",
            "*.*.com",
            "*",
            "b.example.com",
        ]);
        assert_eq!(
            matches(&index, "A.example.com."),
            [
                "*",
                "**.example.com",
                "*.*.com",
                "*.example.com",
                "a*.example.com",
                "a.example.com"
            ]
        );
        assert_eq!(matches(&index, "example.com"), ["*", "*example.com"]);
        assert_eq!(matches(&index, "x.y.example.com"), ["*", "**.example.com"]);
        assert_eq!(matches(&index, "."), ["*"]);
    }

    #[test]
    fn a_pattern_added_twice_is_found_twice() {
        let index = index(["*.a", "*.A.", "x*y.a", "x**y.a"]);
        assert_eq!(matches(&index, "xy.a"), ["*.A.", "*.a", "x**y.a", "x*y.a"]);
    }

    #[test]
    fn an_empty_index_matches_nothing() {
        let index = NameIndex::<()>::default();
        assert!(index.is_empty());
        assert!(!index.any_match(&Name::root()));
        assert!(!index.any_match(&Name::parse("a.example").unwrap()));
    }

    #[test]
    fn the_work_of_a_lookup_does_not_follow_the_number_of_patterns() {
        let nodes_visited = |patterns: usize| {
            let mut index = NameIndex::default();
            for i in 0..patterns {
                for text in [
                    format!("host{i}.example"),
                    format!("pre{i}-*.example"),
                    format!("**.zone{i}.example"),
                ] {
                    index.insert(&Pattern::pattern(&text).unwrap(), i);
                }
            }
            ["host7.example", "pre5-a.example", "a.b.zone3.example", "none.example"].map(|text| {
                let mut visited = 0;
                index.walk(&Name::parse(text).unwrap(), &mut |_| {
                    visited += 1;
                    false
                });
                visited
            })
        };
        assert_eq!(nodes_visited(10), nodes_visited(5_000));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn the_index_agrees_with_each_pattern_asked_by_itself(
            written in prop::collection::vec(written_pattern(), 0..40),
            names in prop::collection::vec(asked_name(), 1..20),
        ) {
            let patterns: Vec<Pattern> = written.iter().map(|text| Pattern::pattern(text).unwrap()).collect();
            let mut index = NameIndex::default();
            for (position, pattern) in patterns.iter().enumerate() {
                index.insert(pattern, position);
            }
            for name in &names {
                let mut found = Vec::new();
                index.each_match(name, |&position| found.push(position));
                found.sort_unstable();
                let expected: Vec<usize> =
                    (0..patterns.len()).filter(|&position| patterns[position].matches(name)).collect();
                prop_assert_eq!(index.any_match(name), !expected.is_empty());
                prop_assert_eq!(found, expected, "{} in {:?}", name, patterns);
            }
        }
    }
}
