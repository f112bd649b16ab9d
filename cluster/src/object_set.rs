//! Objects, each found by what names it, in as little memory as a hash table takes.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::object::{Object, ObjectName};

/// Objects of any kind, of which no two have the same name.
#[derive(Debug, Default)]
pub(crate) struct ObjectSet {
    objects: HashTable<Object>,
    hashes: RandomState,
}

impl ObjectSet {
    /// Puts an object in the place of the one that has its name, which is returned.
    pub(crate) fn insert(&mut self, object: Object) -> Option<Object> {
        let Self { objects, hashes } = self;
        let name = object.name();
        let hash = hashes.hash_one(name);
        match objects.entry(
            hash,
            |other| other.name() == name,
            |other| hashes.hash_one(other.name()),
        ) {
            Entry::Occupied(mut known) => Some(std::mem::replace(known.get_mut(), object)),
            Entry::Vacant(place) => {
                place.insert(object);
                None
            }
        }
    }

    pub(crate) fn get(&self, name: ObjectName<'_>) -> Option<&Object> {
        self.objects
            .find(self.hashes.hash_one(name), |other| other.name() == name)
    }

    pub(crate) fn remove(&mut self, name: ObjectName<'_>) -> Option<Object> {
        let known = self
            .objects
            .find_entry(self.hashes.hash_one(name), |other| other.name() == name);
        let object = known.ok()?.remove().0;
        if self.objects.is_empty() {
            self.objects = HashTable::new();
        }
        Some(object)
    }

    pub(crate) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// In no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Object> {
        self.objects.iter()
    }

    /// By kind and name, as [`ObjectKey`](crate::object::ObjectKey)s are ordered.
    pub(crate) fn into_sorted(self) -> Vec<Object> {
        let mut objects: Vec<Object> = self.objects.into_iter().collect();
        objects.sort_unstable_by(|a, b| a.name().cmp(&b.name()));
        objects
    }
}

impl FromIterator<Object> for ObjectSet {
    fn from_iter<I: IntoIterator<Item = Object>>(objects: I) -> Self {
        let mut set = Self::default();
        for object in objects {
            set.insert(object);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use crate::object::ObjectKey;

    use super::*;

    fn pod(namespace: &str, name: &str, address: &str) -> Object {
        let pod = json!({"metadata": {"name": name, "namespace": namespace}, "status": {"podIP": address}});
        Object::Pod(Arc::new(serde_json::from_value(pod).unwrap()))
    }

    #[test]
    fn an_object_takes_the_place_of_the_one_with_its_name() {
        let mut set = ObjectSet::default();
        for number in 0..1_000 {
            assert_eq!(set.insert(pod("n", &number.to_string(), "10.0.0.1")), None);
        }
        let before = set.insert(pod("n", "7", "10.0.0.2"));
        assert_eq!((before, set.len()), (Some(pod("n", "7", "10.0.0.1")), 1_000));
        assert_eq!(
            set.get(pod("n", "7", "10.0.0.9").name()),
            Some(&pod("n", "7", "10.0.0.2"))
        );
        assert_eq!(set.get(pod("m", "7", "10.0.0.2").name()), None);
        for number in 0..1_000 {
            let key = ObjectKey::Pod("n".into(), number.to_string());
            assert!(set.remove(key.name()).is_some());
        }
        assert!(set.is_empty());
    }

    #[test]
    fn sorted_they_stand_as_their_keys_do() {
        let namespace = json!({"metadata": {"name": "a"}});
        let namespace = Object::Namespace(Arc::new(serde_json::from_value(namespace).unwrap()));
        let objects = [
            namespace,
            pod("b", "a", "10.0.0.1"),
            pod("a", "b", "10.0.0.1"),
            pod("a", "a", "10.0.0.1"),
        ];
        let sorted = objects.into_iter().collect::<ObjectSet>().into_sorted();
        let keys: Vec<ObjectKey> = sorted.iter().map(Object::key).collect();
        assert!(keys.is_sorted(), "{keys:?}");
    }
}
