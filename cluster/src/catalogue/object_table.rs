//! The objects that are defined or in force, each with the files that define it.

use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::slice;
use std::sync::Arc;

use hashbrown::HashTable;
use policy::{Diagnostic, Policy};

use crate::object::{Object, ObjectKey, ObjectName};

use super::held_file::FileRef;

/// Every object that some file defines, or that is in force.
#[derive(Debug, Default)]
pub(super) struct ObjectTable {
    objects: HashTable<CataloguedObject>,
    hashes: RandomState,
    in_force: usize,
}

/// Of hundreds of thousands of objects nearly every one is plain.
#[derive(Debug)]
enum CataloguedObject {
    /// Defined by one file, and as it stands there in force. It is no policy.
    Plain {
        object: Object,
        file: FileRef,
    },
    Other(Box<KnownObject>),
}

/// Who defines an object, and which version of it is in force.
#[derive(Debug)]
struct KnownObject {
    key: ObjectKey,
    /// The files that define it, in the order of their paths.
    definers: Vec<FileRef>,
    version: Option<ObjectInForce>,
}

/// A version of an object that is in force.
#[derive(Debug, Clone)]
pub(super) struct ObjectInForce {
    /// The file that it came from.
    pub(super) file: FileRef,
    pub(super) version: VersionInForce,
}

#[derive(Debug, Clone)]
pub(super) enum VersionInForce {
    /// No policy, and good.
    Plain(Object),
    Policy(Box<PolicyInForce>),
}

#[derive(Debug, Clone)]
pub(super) struct PolicyInForce {
    pub(super) policy: Policy,
    /// Of what stands in for a policy that is refused: what is to be said of that.
    pub(super) stand_in: Option<Vec<Diagnostic>>,
}

impl VersionInForce {
    /// An object that is good.
    pub(super) fn good(object: Object) -> Self {
        match object {
            Object::Policy(policy) => Self::Policy(Box::new(PolicyInForce {
                policy: *policy,
                stand_in: None,
            })),
            other => Self::Plain(other),
        }
    }

    pub(super) fn object(&self) -> Object {
        match self {
            Self::Plain(object) => object.clone(),
            Self::Policy(policy) => Object::Policy(Box::new(policy.policy.clone())),
        }
    }

    /// What is to be said of what stands in for a policy that is refused.
    pub(super) fn stand_in(&self) -> Option<&[Diagnostic]> {
        match self {
            Self::Plain(_) => None,
            Self::Policy(policy) => policy.stand_in.as_deref(),
        }
    }
}

impl ObjectInForce {
    /// Whether it is as somebody wrote it, and does not stand in for that.
    pub(super) fn is_good(&self) -> bool {
        self.version.stand_in().is_none()
    }

    /// Whether another version means the same.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        match (&self.version, &other.version) {
            (VersionInForce::Plain(object), VersionInForce::Plain(other)) => object == other,
            (VersionInForce::Policy(policy), VersionInForce::Policy(other)) => policy.policy == other.policy,
            _ => false,
        }
    }
}

impl CataloguedObject {
    fn name(&self) -> ObjectName<'_> {
        match self {
            Self::Plain { object, .. } => object.name(),
            Self::Other(known) => known.key.name(),
        }
    }

    /// As an entry of which everything may change.
    fn known(&mut self) -> Option<&mut KnownObject> {
        if let Self::Plain { object, file } = self {
            let version = ObjectInForce {
                file: Arc::clone(file),
                version: VersionInForce::Plain(object.clone()),
            };
            *self = Self::Other(Box::new(KnownObject {
                key: object.key(),
                definers: vec![Arc::clone(file)],
                version: Some(version),
            }));
        }
        match self {
            Self::Other(known) => Some(known),
            // Not reached: it was replaced above.
            Self::Plain { .. } => None,
        }
    }
}

impl ObjectTable {
    fn find(&self, name: ObjectName<'_>) -> Option<&CataloguedObject> {
        self.objects
            .find(self.hashes.hash_one(name), |entry| entry.name() == name)
    }

    fn find_mut(&mut self, name: ObjectName<'_>) -> Option<&mut KnownObject> {
        let entry = self
            .objects
            .find_mut(self.hashes.hash_one(name), |entry| entry.name() == name);
        entry.and_then(CataloguedObject::known)
    }

    /// The files that define an object, the first of which counts.
    pub(super) fn definers(&self, name: ObjectName<'_>) -> &[FileRef] {
        match self.find(name) {
            None => &[],
            Some(CataloguedObject::Plain { file, .. }) => slice::from_ref(file),
            Some(CataloguedObject::Other(known)) => &known.definers,
        }
    }

    /// A file defines an object. What is neither defined nor in force any more is forgotten by
    /// [`tidy`](Self::tidy).
    pub(super) fn define(&mut self, key: &ObjectKey, file: &FileRef) {
        if let Some(known) = self.find_mut(key.name()) {
            if let Err(place) = known.definers.binary_search(file) {
                known.definers.insert(place, Arc::clone(file));
            }
            return;
        }
        self.add(KnownObject {
            key: key.clone(),
            definers: vec![Arc::clone(file)],
            version: None,
        });
    }

    pub(super) fn undefine(&mut self, name: ObjectName<'_>, file: &Path) {
        if let Some(known) = self.find_mut(name) {
            known.definers.retain(|other| other.as_path() != file);
        }
    }

    /// The object in force, unless it is of a kind that snapshots hold as documents.
    pub(super) fn slim_in_force(&self, name: ObjectName<'_>) -> Option<Object> {
        if name.kind.is_kept_as_document() {
            return None;
        }
        match self.find(name)? {
            CataloguedObject::Plain { object, .. } => Some(object.clone()),
            CataloguedObject::Other(known) => known.version.as_ref().map(|version| version.version.object()),
        }
    }

    /// The version that is in force.
    pub(super) fn in_force(&self, name: ObjectName<'_>) -> Option<InForce<'_>> {
        match self.find(name)? {
            CataloguedObject::Plain { file, .. } => Some(InForce { file, stand_in: None }),
            CataloguedObject::Other(known) => known.version.as_ref().map(|version| InForce {
                file: &version.file,
                stand_in: version.version.stand_in(),
            }),
        }
    }

    /// Puts a version in force, or none; returns what was in force before.
    pub(super) fn put(&mut self, key: &ObjectKey, version: Option<ObjectInForce>) -> Option<ObjectInForce> {
        self.in_force += usize::from(version.is_some());
        let before = match self.find_mut(key.name()) {
            Some(known) => std::mem::replace(&mut known.version, version),
            None if version.is_some() => {
                self.add(KnownObject {
                    key: key.clone(),
                    definers: Vec::new(),
                    version,
                });
                None
            }
            None => None,
        };
        self.in_force -= usize::from(before.is_some());
        before
    }

    fn add(&mut self, known: KnownObject) {
        let Self { objects, hashes, .. } = self;
        let hash = hashes.hash_one(known.key.name());
        objects.insert_unique(hash, CataloguedObject::Other(Box::new(known)), |entry| {
            hashes.hash_one(entry.name())
        });
    }

    /// Forgets an object that is neither defined nor in force, and keeps a plain one as such.
    pub(super) fn tidy(&mut self, key: &ObjectKey) {
        let name = key.name();
        let hash = self.hashes.hash_one(name);
        let Ok(mut entry) = self.objects.find_entry(hash, |entry| entry.name() == name) else {
            return;
        };
        let CataloguedObject::Other(known) = entry.get_mut() else {
            return;
        };
        match (known.definers.as_slice(), &known.version) {
            ([], None) => drop(entry.remove()),
            (
                [definer],
                Some(ObjectInForce {
                    file,
                    version: VersionInForce::Plain(object),
                }),
            ) if definer == file => {
                *entry.get_mut() = CataloguedObject::Plain {
                    object: object.clone(),
                    file: Arc::clone(file),
                };
            }
            _ => {}
        }
    }

    /// How many objects are in force.
    pub(super) fn len(&self) -> usize {
        self.in_force
    }

    /// Whether an object in force came from a file. It looks at every object.
    pub(super) fn is_holder(&self, path: &Path) -> bool {
        self.objects.iter().any(|entry| match entry {
            CataloguedObject::Plain { file, .. } => file.as_path() == path,
            CataloguedObject::Other(known) => {
                let version = known.version.as_ref();
                version.is_some_and(|version| version.file.as_path() == path)
            }
        })
    }

    /// How many policies are in force. It looks at every object.
    pub(super) fn policies(&self) -> usize {
        let is_policy = |entry: &&CataloguedObject| match entry {
            CataloguedObject::Plain { .. } => false,
            CataloguedObject::Other(known) => matches!(known.key, ObjectKey::Policy(_)) && known.version.is_some(),
        };
        self.objects.iter().filter(is_policy).count()
    }
}

/// What is to be said of a version in force.
#[derive(Debug, Clone, Copy)]
pub(super) struct InForce<'a> {
    /// The file that it came from.
    pub(super) file: &'a FileRef,
    /// Of what stands in for a policy that is refused: what is to be said of that.
    pub(super) stand_in: Option<&'a [Diagnostic]>,
}

impl InForce<'_> {
    /// Whether it is as somebody wrote it, and does not stand in for that.
    pub(super) fn is_good(&self) -> bool {
        self.stand_in.is_none()
    }
}
