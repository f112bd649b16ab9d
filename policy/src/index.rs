//! Many patterns matched at once, at a cost that follows the labels of the name.

use crate::name::Name;
use crate::pattern::Pattern;

/// A map from patterns to values, asked by name.
///
/// A lookup walks the labels of the name from the right; its cost does not depend on how many
/// patterns are stored, and it does not allocate.
#[derive(Debug, Clone)]
pub struct NameIndex<V> {
    values: Vec<V>, // the tree is the implementer's choice
}

impl<V> Default for NameIndex<V> {
    fn default() -> Self {
        Self { values: Vec::new() }
    }
}

impl<V> NameIndex<V> {
    /// Adds a value under a pattern. The same pattern may be added many times.
    pub fn insert(&mut self, pattern: &Pattern, value: V) {
        let _ = pattern;
        self.values.push(value);
        todo!()
    }

    /// Calls `found` for the value of each pattern that matches `name`, in no promised order,
    /// each inserted value exactly once.
    pub fn each_match<'a>(&'a self, name: &Name, found: impl FnMut(&'a V)) {
        let _ = (name, found);
        todo!()
    }

    /// Whether any pattern matches `name`.
    pub fn any_match(&self, name: &Name) -> bool {
        let mut any = false;
        self.each_match(name, |_| any = true);
        any
    }

    /// Whether no pattern is stored.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}
