//! Objects of Kubernetes itself: what of their newest versions is in force.
//!
//! The object in force is all that is kept of one. A version that says the same is no news.

use crate::object::{Object, ObjectName};
use crate::object_set::ObjectSet;
use crate::reading::{self, ParsedDocument};
use crate::report::ReportState;
use crate::slim::{Interner, WireObject};

use super::super::resources::{Resource, ResourceKind};
use super::{WatchCache, WatchKey};

/// A version of an object, as a watch has told it.
#[derive(Debug)]
pub(super) struct SeenSlim {
    /// Its namespace and name, as the watch tells them.
    pub(super) place: (String, String),
    said: Box<ParsedDocument>,
}

impl SeenSlim {
    pub(super) fn read(
        resource: Resource,
        place: (String, String),
        fields: WireObject,
        interner: &mut Interner,
    ) -> Option<Self> {
        // Every kind whose fields are selected is one that the reader knows.
        let mut said = Box::new(reading::read_wire(ResourceKind::of(resource).kind, fields)?);
        if let Some(object) = &mut said.object {
            interner.share(object);
        }
        Some(Self { place, said })
    }

    /// The object of a version that is accepted, with nothing to say of it.
    pub(super) fn into_good(mut self) -> Result<Object, Self> {
        match self.said.object.take() {
            Some(object) if self.said.diagnostics.is_empty() => Ok(object),
            object => {
                self.said.object = object;
                Err(self)
            }
        }
    }
}

impl WatchCache {
    /// Takes in a list of good versions. What is not in it was taken care of before.
    pub(super) fn see_list(&mut self, resource: Resource, listed: ObjectSet) {
        for object in listed.into_sorted() {
            self.see_good(resource, object);
        }
    }

    pub(super) fn see_slim(&mut self, resource: Resource, seen: SeenSlim) {
        let refused = match seen.into_good() {
            Ok(object) => return self.see_good(resource, object),
            Err(refused) => refused,
        };
        let SeenSlim { place, said } = refused;
        let held = self.resources.get(&resource).zip(said.key.as_ref());
        let held = held.is_some_and(|(watched, key)| watched.slim.get(key.name()).is_some());
        let earlier = said.key.as_ref().filter(|_| !held);
        let earlier = earlier.and_then(|key| self.earlier.get(key)?.object());
        let state = match held || earlier.is_some() {
            true => ReportState::KeptLastGood,
            false => ReportState::Rejected,
        };
        if let Some(object) = earlier {
            self.put(resource, object);
        }
        if let Some(watched) = self.resources.get_mut(&resource) {
            watched.refused.insert(place.clone());
        }
        let place: WatchKey = (resource, place.0, place.1);
        self.report(place, said.label, state, said.diagnostics);
    }

    fn see_good(&mut self, resource: Resource, object: Object) {
        let Some(watched) = self.resources.get_mut(&resource) else {
            return;
        };
        let name = object.name();
        if !watched.refused.is_empty() {
            let place = (name.namespace.to_owned(), name.name.to_owned());
            watched.refused.remove(&place);
            if self.reports.remove(&(resource, place.0, place.1)).is_some() {
                self.reports_changed = true;
            }
        }
        if watched.slim.get(name) != Some(&object) {
            self.put(resource, object);
        }
    }

    /// Puts a version in force.
    fn put(&mut self, resource: Resource, object: Object) {
        let Some(watched) = self.resources.get_mut(&resource) else {
            return;
        };
        watched.slim.insert(object.clone());
        if let Object::Node(node) = &object {
            self.nodes_changed = true;
            let place = (resource, String::new(), node.name.to_string());
            match node.pod_ranges.is_empty() {
                true => drop(self.without_ranges.insert(place)),
                false => drop(self.without_ranges.remove(&place)),
            }
        }
        // A pod that moves from the watch of other nodes' pods to that of this node's is in both
        // for a moment, and this node's counts.
        let of_this_node = match resource {
            Resource::OtherPods => self.sibling(resource, object.name()),
            _ => None,
        };
        self.news.apply(of_this_node.unwrap_or(object));
    }

    /// Takes an object away; `false` where there is none of that name.
    pub(super) fn lose_slim(&mut self, resource: Resource, name: ObjectName<'_>) -> bool {
        let watched = self.resources.get_mut(&resource);
        let Some(gone) = watched.and_then(|watched| watched.slim.remove(name)) else {
            return false;
        };
        self.nodes_changed |= resource == Resource::Nodes;
        match self.sibling(resource, gone.name()) {
            Some(other) => self.news.apply(other),
            None => self.news.delete(gone.key()),
        }
        true
    }

    /// The pod of this name in the other watch of pods.
    fn sibling(&self, resource: Resource, name: ObjectName<'_>) -> Option<Object> {
        let sibling = match resource {
            Resource::LocalPods => Resource::OtherPods,
            Resource::OtherPods => Resource::LocalPods,
            _ => return None,
        };
        self.resources.get(&sibling)?.slim.get(name).cloned()
    }
}
