//! What the next update is to tell.

use std::collections::BTreeSet;

use crate::object::{Object, ObjectChange, ObjectKey};
use crate::object_set::ObjectSet;

/// Changes that are not told yet. Of each object the last one counts.
#[derive(Debug, Default)]
pub(super) struct News {
    applied: ObjectSet,
    gone: BTreeSet<ObjectKey>,
}

impl News {
    pub(super) fn apply(&mut self, object: Object) {
        if !self.gone.is_empty() {
            self.gone.remove(&object.key());
        }
        self.applied.insert(object);
    }

    pub(super) fn delete(&mut self, key: ObjectKey) {
        self.applied.remove(key.name());
        self.gone.insert(key);
    }

    pub(super) fn speaks_of(&self, key: &ObjectKey) -> bool {
        self.gone.contains(key) || self.applied.get(key.name()).is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.applied.is_empty() && self.gone.is_empty()
    }

    /// Takes everything, or all but the policies.
    pub(super) fn take(&mut self, without_policies: bool) -> Self {
        let all = std::mem::take(self);
        if !without_policies || all.is_empty() {
            return all;
        }
        let (withheld, applied): (Vec<Object>, Vec<Object>) = all
            .applied
            .into_sorted()
            .into_iter()
            .partition(|object| object.name().kind.is_policy());
        let (policies_gone, gone) = all.gone.into_iter().partition(|key| key.name().kind.is_policy());
        self.applied = withheld.into_iter().collect();
        self.gone = policies_gone;
        Self {
            applied: applied.into_iter().collect(),
            gone,
        }
    }

    /// Deletions first: an address that moves from one pod to another is free before it is taken.
    pub(super) fn into_changes(self) -> Vec<ObjectChange> {
        let gone = self.gone.into_iter().map(ObjectChange::Delete);
        let applied = self.applied.into_sorted().into_iter().map(ObjectChange::Apply);
        gone.chain(applied).collect()
    }
}
