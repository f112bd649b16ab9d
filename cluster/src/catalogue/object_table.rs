//! The objects that are defined or in force, each with the files that define it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use policy::{Diagnostic, Policy};

use crate::object::ObjectKey;

use super::held_file::FileRef;

/// Every object that some file defines, or that is in force.
#[derive(Debug, Default)]
pub(super) struct ObjectTable {
    objects: BTreeMap<Arc<ObjectKey>, KnownObject>,
    in_force: usize,
}

/// Who defines an object, and which version of it is in force.
#[derive(Debug, Default)]
pub(super) struct KnownObject {
    definers: Definers,
    version: Option<ObjectInForce>,
}

/// The files that define an object, in the order of their paths.
#[derive(Debug, Default)]
enum Definers {
    #[default]
    None,
    One(FileRef),
    /// Boxed, since there are many objects, and hardly one of them stands in several files.
    #[allow(clippy::box_collection)]
    Many(Box<Vec<FileRef>>),
}

/// A version of an object that is in force.
#[derive(Debug, Clone)]
pub(super) struct ObjectInForce {
    /// The file that it came from.
    pub(super) file: FileRef,
    pub(super) digest: u64,
    /// `None` for what is no policy, and good.
    pub(super) policy: Option<Box<PolicyInForce>>,
}

#[derive(Debug, Clone)]
pub(super) struct PolicyInForce {
    pub(super) policy: Policy,
    /// Of what stands in for a policy that is refused: what is to be said of that.
    pub(super) stand_in: Option<Vec<Diagnostic>>,
}

impl ObjectInForce {
    /// Whether it is as somebody wrote it, and does not stand in for that.
    pub(super) fn is_good(&self) -> bool {
        self.policy.as_ref().is_none_or(|policy| policy.stand_in.is_none())
    }

    /// Whether another version means the same.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        match (&self.policy, &other.policy) {
            (Some(policy), Some(other)) => policy.policy == other.policy,
            (None, None) => self.digest == other.digest,
            _ => false,
        }
    }
}

impl ObjectTable {
    /// The one copy of a key. What is neither defined nor in force is forgotten by
    /// [`forget`](Self::forget).
    pub(super) fn key(&mut self, key: &ObjectKey) -> Arc<ObjectKey> {
        if let Some((known, _)) = self.objects.get_key_value(key) {
            return Arc::clone(known);
        }
        let key = Arc::new(key.clone());
        self.objects.insert(Arc::clone(&key), KnownObject::default());
        key
    }

    /// The files that define an object, the first of which counts.
    pub(super) fn definers(&self, key: &ObjectKey) -> &[FileRef] {
        match self.objects.get(key).map(|known| &known.definers) {
            None | Some(Definers::None) => &[],
            Some(Definers::One(file)) => std::slice::from_ref(file),
            Some(Definers::Many(files)) => files,
        }
    }

    pub(super) fn define(&mut self, key: &ObjectKey, file: &FileRef) {
        let Some(known) = self.objects.get_mut(key) else { return };
        match &mut known.definers {
            Definers::None => known.definers = Definers::One(Arc::clone(file)),
            Definers::One(other) if other == file => {}
            Definers::One(other) => {
                let mut both = vec![Arc::clone(other), Arc::clone(file)];
                both.sort();
                known.definers = Definers::Many(Box::new(both));
            }
            Definers::Many(files) => {
                if let Err(place) = files.binary_search(file) {
                    files.insert(place, Arc::clone(file));
                }
            }
        }
    }

    pub(super) fn undefine(&mut self, key: &ObjectKey, file: &Path) {
        let Some(known) = self.objects.get_mut(key) else { return };
        match &mut known.definers {
            Definers::None => {}
            Definers::One(other) => {
                if other.as_path() == file {
                    known.definers = Definers::None;
                }
            }
            Definers::Many(files) => {
                files.retain(|other| other.as_path() != file);
                if let [only] = files.as_slice() {
                    known.definers = Definers::One(Arc::clone(only));
                }
            }
        }
    }

    pub(super) fn in_force(&self, key: &ObjectKey) -> Option<&ObjectInForce> {
        self.objects.get(key)?.version.as_ref()
    }

    /// Puts a version in force, or none; returns what was in force before.
    pub(super) fn put(&mut self, key: &ObjectKey, version: Option<ObjectInForce>) -> Option<ObjectInForce> {
        let known = self.objects.get_mut(key)?;
        self.in_force += usize::from(version.is_some());
        let before = std::mem::replace(&mut known.version, version);
        self.in_force -= usize::from(before.is_some());
        before
    }

    /// Forgets an object that is neither defined nor in force.
    pub(super) fn forget(&mut self, key: &ObjectKey) {
        let is_over = |known: &KnownObject| known.version.is_none() && matches!(known.definers, Definers::None);
        if self.objects.get(key).is_some_and(is_over) {
            self.objects.remove(key);
        }
    }

    /// How many objects are in force.
    pub(super) fn len(&self) -> usize {
        self.in_force
    }

    /// Whether an object in force came from a file. It looks at every object.
    pub(super) fn is_holder(&self, file: &Path) -> bool {
        let mut versions = self.objects.values().filter_map(|known| known.version.as_ref());
        versions.any(|version| version.file.as_path() == file)
    }

    /// How many policies are in force. It looks at every object.
    pub(super) fn policies(&self) -> usize {
        let is_policy = |(key, known): &(&Arc<ObjectKey>, &KnownObject)| {
            matches!(***key, ObjectKey::Policy(_)) && known.version.is_some()
        };
        self.objects.iter().filter(is_policy).count()
    }
}
