//! The watch cache: watch events over time → [`Update`]s. Pure.
//!
//! What must hold:
//! - There is no update before every list is complete, and a list that is read again counts only
//!   when it is complete: half a list is never in force.
//! - An object stays in force until it is *known* to be gone. While the API server is away nothing
//!   changes.
//! - A policy that is refused keeps its last good version, this process's or an earlier one's;
//!   without one, what stands in for it closes whom it selects (`version`).
//! - An object whose kept fields are the same makes no update: heartbeats of nodes and conditions
//!   of pods cause no work.
//!
//! Of objects of Kubernetes itself, of which there are many, it keeps the objects that the index
//! keeps too (`slim_version`); of policies their text (`version`).

mod news;
mod slim_version;
mod version;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use policy::Diagnostic;
use tokio::time::Instant;

use crate::kept_object::KeptObject;
use crate::object::{Object, ObjectChange, ObjectKey, Update};
use crate::object_set::ObjectSet;
use crate::report::{ReadReport, ReportState};
use crate::slim::Interner;

use super::resources::{Resource, ResourceKind, WatchScope};
use super::wire::{ObjectVersion, ObservedContent, ObservedObject};

use news::News;
use slim_version::SeenSlim;

/// How long policies wait for the pods that they speak of. Longer than a list of many pods takes,
/// and short enough that a policy is in force soon even where that list does not come.
const PATIENCE: Duration = Duration::from_secs(5);
/// A kind whose objects are in force must be found missing this often before they are gone: to take
/// objects away opens doors.
const MISSING: u8 = 3;

/// An event of one watch, as `kube` tells it.
#[derive(Debug, Clone)]
pub enum WatchEvent {
    /// A complete list follows.
    Init,
    /// An object of that list.
    InitApply(ObservedObject),
    /// The list is complete.
    InitDone,
    /// An object is new, or was changed.
    Apply(ObservedObject),
    /// An object is gone: namespace and name.
    Delete(String, String),
    /// The API server does not know the kind.
    KindAbsent,
}

/// The objects of all watches, and what is not told of them yet.
#[derive(Debug)]
pub struct WatchCache {
    resources: BTreeMap<Resource, WatchedResource>,
    interner: Interner,
    /// What an earlier process had in force, until the first lists are complete.
    earlier: BTreeMap<ObjectKey, KeptObject>,
    /// The changes of the next update.
    news: News,
    /// What was found in each object.
    reports: BTreeMap<WatchKey, ReadReport>,
    /// Whether `reports` changed since the last update.
    reports_changed: bool,
    /// `reports`, as the last update told them.
    told_reports: Arc<[ReadReport]>,
    begun: bool,
    /// Whether the objects are another cluster's, of which every pod counts.
    is_other_cluster: bool,
    /// Whether the ranges of pods are known without the pods.
    ranges_configured: bool,
    /// Policies that no update has carried yet in their last version.
    unnumbered: BTreeSet<WatchKey>,
    /// Policies that speak of pods.
    speak_of_pods: BTreeSet<WatchKey>,
    /// Nodes that do not say which addresses their pods have.
    without_ranges: BTreeSet<WatchKey>,
    /// Since when other nodes' pods are wanted and not there yet.
    waiting_since: Option<Instant>,
    /// The number of updates taken.
    taken: u64,
    /// Policies whose status may have to be written.
    touched: BTreeSet<WatchKey>,
    nodes_changed: bool,
}

/// The watch that an object came from, its namespace and its name.
type WatchKey = (Resource, String, String);

/// The objects of one watch.
#[derive(Debug, Default)]
struct WatchedResource {
    /// Objects of Kubernetes itself, as they are in force.
    slim: ObjectSet,
    /// Those of them of which a version was refused, whether a good one is in force or not.
    refused: BTreeSet<(String, String)>,
    /// All others.
    objects: BTreeMap<(String, String), CachedObject>,
    /// Whether its list was complete at least once.
    is_known: bool,
    /// The list that is being read.
    listing: Option<Listing>,
    /// How often in a row the kind was missing.
    missing: u8,
}

/// A list that is being read.
#[derive(Debug, Default)]
struct Listing {
    slim: ObjectSet,
    refused: Vec<SeenSlim>,
    objects: BTreeMap<(String, String), ObservedObject>,
}

/// An object, and what of it is in force.
#[derive(Debug, Clone)]
struct CachedObject {
    /// As it was last seen.
    seen: Arc<str>,
    /// The version in force, where that is a good one. The same text as `seen`, unless that is
    /// refused.
    good: Option<Arc<str>>,
    policy: Option<Box<ObservedPolicy>>,
}

/// A policy as it was observed: what its status is written with.
#[derive(Debug, Clone, PartialEq)]
pub struct ObservedPolicy {
    /// The version that was observed.
    pub version: ObjectVersion,
    /// Whether that version is in force.
    pub state: ReportState,
    /// What was found in it, most severe first.
    pub diagnostics: Vec<Diagnostic>,
    /// The number of the update that carried this version; 0 before there is one.
    pub update: u64,
}

/// A policy whose status may have to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyEvent {
    /// The watch that the policy came from.
    pub resource: Resource,
    /// The namespace of the policy; empty for a kind without namespaces.
    pub namespace: String,
    /// The name of the policy.
    pub name: String,
    /// `None` once the policy is deleted.
    pub policy: Option<ObservedPolicy>,
}

impl WatchCache {
    /// `earlier` are documents that an earlier process had in force. `ranges_configured`: which
    /// addresses are pods' is known without the pods.
    pub fn new(scope: &WatchScope, earlier: Vec<KeptObject>, ranges_configured: bool) -> Self {
        let earlier = earlier.into_iter().filter_map(|kept| Some((kept.key()?, kept)));
        Self {
            resources: scope
                .kinds()
                .map(|kind| (kind.resource, WatchedResource::default()))
                .collect(),
            interner: Interner::default(),
            earlier: earlier.collect(),
            news: News::default(),
            reports: BTreeMap::new(),
            reports_changed: false,
            told_reports: Arc::default(),
            begun: false,
            is_other_cluster: matches!(scope, WatchScope::OtherCluster(_)),
            ranges_configured,
            unnumbered: BTreeSet::new(),
            speak_of_pods: BTreeSet::new(),
            without_ranges: BTreeSet::new(),
            waiting_since: None,
            taken: 0,
            touched: BTreeSet::new(),
            nodes_changed: false,
        }
    }

    /// Applies an event of a watch.
    pub fn handle(&mut self, resource: Resource, event: WatchEvent) {
        // Events of a watch that was ended may still be in the queue.
        let Some(watched) = self.resources.get_mut(&resource) else {
            return;
        };
        match event {
            WatchEvent::Init => watched.listing = Some(Listing::default()),
            WatchEvent::InitApply(observed) => {
                if let Some(listing) = &mut watched.listing {
                    listing.add(resource, observed, &mut self.interner);
                }
            }
            WatchEvent::InitDone => {
                // The end of a list whose beginning went to a watch before this one is the end of
                // no list.
                if let Some(listing) = watched.listing.take() {
                    self.replace(resource, listing);
                }
            }
            WatchEvent::Apply(observed) => self.see(resource, observed),
            WatchEvent::Delete(namespace, name) => self.lose(resource, namespace, name),
            WatchEvent::KindAbsent => {
                watched.listing = None;
                watched.missing = watched.missing.saturating_add(1);
                if watched.is_empty() || watched.missing >= MISSING {
                    self.replace(resource, Listing::default());
                }
            }
        }
    }

    /// Puts in force what an earlier process had in force, because the API server does not answer.
    /// `None` where nothing is known.
    pub fn recall(&mut self) -> Option<Update> {
        if self.begun || self.earlier.is_empty() {
            return None;
        }
        let objects = self.earlier.values().filter_map(KeptObject::object);
        let changes = objects.map(ObjectChange::Apply).collect();
        self.begun = true;
        self.taken += 1;
        Some(Update {
            changes,
            ..Update::default()
        })
    }

    /// The next update, if anything has changed and nothing is withheld. Whoever drives this lets
    /// the watch of other nodes' pods begin or end after each call, as
    /// [`wants_other_pods`](Self::wants_other_pods) says, and not before.
    pub fn update(&mut self, now: Instant) -> Option<Update> {
        self.settle_other_pods(now);
        if !self.is_complete(now) {
            return None;
        }
        let first = !self.begun;
        self.forget_earlier(first);
        let is_waiting = self.is_waiting(now);
        let news = self.news.take(is_waiting);
        if !first && news.is_empty() && !self.reports_changed {
            return None;
        }
        self.begun = true;
        if std::mem::take(&mut self.reports_changed) {
            self.told_reports = self.reports.values().cloned().collect();
        }
        self.taken += 1;
        if !is_waiting {
            self.number_policies();
        }
        Some(Update {
            changes: news.into_changes(),
            reports: Arc::clone(&self.told_reports),
            ..Update::default()
        })
    }

    /// When [`update`](Self::update) stops withholding what no further event may release.
    pub fn deadline(&self) -> Option<Instant> {
        let waits = self.waiting_since.is_some() && !self.news.is_empty();
        self.waiting_since.filter(|_| waits).map(|since| since + PATIENCE)
    }

    /// The number of the last update: updates are counted from 1.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Whether other nodes' pods are to be watched.
    pub fn wants_other_pods(&self) -> bool {
        let ranges_unknown = !self.ranges_configured && !self.without_ranges.is_empty();
        self.is_other_cluster || !self.speak_of_pods.is_empty() || ranges_unknown && self.has_policies()
    }

    /// The watches whose first list is not complete.
    pub fn awaited(&self) -> impl Iterator<Item = Resource> {
        self.resources
            .iter()
            .filter(|(_, it)| !it.is_known)
            .map(|(resource, _)| *resource)
    }

    /// The policies whose status may have to be written, since the last call.
    pub fn policy_news(&mut self) -> Vec<PolicyEvent> {
        let touched = std::mem::take(&mut self.touched);
        let news = touched.into_iter().map(|(resource, namespace, name)| {
            let key = (namespace, name);
            let held = self
                .resources
                .get(&resource)
                .and_then(|watched| watched.objects.get(&key));
            let policy = held.and_then(|held| held.policy.as_deref().cloned());
            let (namespace, name) = key;
            PolicyEvent {
                resource,
                namespace,
                name,
                policy,
            }
        });
        news.collect()
    }

    /// The names of the nodes that exist, where they changed since the last call.
    pub fn node_news(&mut self) -> Option<BTreeSet<String>> {
        if !std::mem::take(&mut self.nodes_changed) {
            return None;
        }
        let nodes = self.resources.get(&Resource::Nodes).into_iter();
        let names = nodes.flat_map(|watched| watched.slim.iter().map(|node| node.name().name.to_owned()));
        Some(names.collect())
    }

    /// The content of the snapshot: every good version in force.
    pub fn kept_objects(&self) -> Vec<KeptObject> {
        let slim = self.resources.values().flat_map(|watched| watched.slim.iter());
        let slim = slim.cloned().map(KeptObject::Slim);
        let held = self.resources.values().flat_map(|watched| watched.objects.values());
        let texts = held.filter_map(|held| held.good.clone().map(KeptObject::Document));
        slim.chain(texts).collect()
    }

    /// How many objects each watch holds, and the bytes of what it keeps of them.
    pub fn sizes(&self) -> impl Iterator<Item = (Resource, usize, usize)> {
        self.resources.iter().map(|(resource, watched)| {
            let slim = watched.slim.iter().map(Object::kept_bytes);
            let texts = watched.objects.values().map(|held| held.seen.len());
            let objects = watched.slim.len() + watched.objects.len();
            (*resource, objects, slim.chain(texts).sum())
        })
    }

    fn is_complete(&self, now: Instant) -> bool {
        let waits = self.is_waiting(now);
        self.resources
            .iter()
            .all(|(resource, it)| it.is_known || *resource == Resource::OtherPods && self.may_lack_pods(waits))
    }

    /// Whether there may be an update without the pods of other nodes.
    fn may_lack_pods(&self, waits: bool) -> bool {
        !self.is_other_cluster && (self.begun || !waits)
    }

    /// Whether policies are withheld until the pods that they speak of are known.
    fn is_waiting(&self, now: Instant) -> bool {
        self.waiting_since.is_some_and(|since| now < since + PATIENCE)
    }

    fn has_policies(&self) -> bool {
        let policies = self
            .resources
            .iter()
            .filter(|(resource, _)| ResourceKind::of(**resource).is_policy());
        policies.into_iter().any(|(_, watched)| !watched.objects.is_empty())
    }

    /// Follows other nodes' pods, or forgets them. Only here, and not with each event: where one
    /// policy goes and another comes at once the watch goes on, and would never list again what was
    /// forgotten between the two.
    fn settle_other_pods(&mut self, now: Instant) {
        let known = self.resources.get(&Resource::OtherPods).map(|watched| watched.is_known);
        match (self.wants_other_pods(), known) {
            (true, None) => {
                self.resources.insert(Resource::OtherPods, WatchedResource::default());
                self.waiting_since = Some(now);
            }
            (true, Some(true)) => self.waiting_since = None,
            (false, Some(_)) => {
                self.replace(Resource::OtherPods, Listing::default());
                self.resources.remove(&Resource::OtherPods);
                self.waiting_since = None;
            }
            (true, Some(false)) | (false, None) => {}
        }
    }

    /// A list is complete: it counts.
    fn replace(&mut self, resource: Resource, listing: Listing) {
        let Some(watched) = self.resources.get_mut(&resource) else {
            return;
        };
        watched.is_known = true;
        watched.missing = 0;
        let gone = watched.objects.keys().filter(|key| !listing.objects.contains_key(*key));
        let slim = watched.slim.iter().map(|object| object.name());
        let slim = slim.filter(|name| listing.slim.get(*name).is_none());
        let slim = slim.map(|name| (name.namespace.to_owned(), name.name.to_owned()));
        let refused = watched.refused.iter().cloned();
        let is_refused = |key: &(String, String)| listing.refused.iter().any(|seen| seen.place == *key);
        let slim = slim.chain(refused).filter(|key| !is_refused(key));
        let gone: BTreeSet<_> = gone.cloned().chain(slim).collect();
        for (namespace, name) in gone {
            self.lose(resource, namespace, name);
        }
        self.see_list(resource, listing.slim);
        for seen in listing.refused {
            self.see_slim(resource, seen);
        }
        for observed in listing.objects.into_values() {
            self.see(resource, observed);
        }
    }

    fn see(&mut self, resource: Resource, observed: ObservedObject) {
        let Some(watched) = self.resources.get_mut(&resource) else {
            return;
        };
        watched.missing = 0;
        let ObservedObject {
            namespace,
            name,
            content,
            version,
        } = observed;
        let document = match content {
            ObservedContent::Document(document) => document,
            ObservedContent::Fields(fields) => {
                let seen = SeenSlim::read(resource, (namespace, name), *fields, &mut self.interner);
                return seen.into_iter().for_each(|seen| self.see_slim(resource, seen));
            }
        };
        let place = (resource, namespace, name);
        if ResourceKind::of(resource).is_policy() {
            self.touched.insert(place.clone());
        }
        let entry = watched.objects.entry((place.1.clone(), place.2.clone()));
        if let Entry::Occupied(mut held) = entry
            && held.get().seen == document
        {
            // What its author wrote is the same; its status may not be, or it was made anew.
            if let (Some(policy), Some(version)) = (&mut held.get_mut().policy, version) {
                policy.version = *version;
            }
            return;
        }
        self.read(place, document, version);
    }

    /// The lists are complete: what an earlier process had in force and nobody has seen since is
    /// gone.
    fn forget_earlier(&mut self, first: bool) {
        let earlier = std::mem::take(&mut self.earlier);
        if first {
            // Nobody was told of it.
            return;
        }
        for key in earlier.into_keys() {
            if !self.news.speaks_of(&key) {
                self.news.delete(key);
            }
        }
    }
}

impl WatchedResource {
    fn is_empty(&self) -> bool {
        self.slim.is_empty() && self.refused.is_empty() && self.objects.is_empty()
    }
}

impl Listing {
    fn add(&mut self, resource: Resource, observed: ObservedObject, interner: &mut Interner) {
        let place = (observed.namespace.clone(), observed.name.clone());
        let ObservedContent::Fields(fields) = observed.content else {
            self.objects.insert(place, observed);
            return;
        };
        let Some(seen) = SeenSlim::read(resource, place, *fields, interner) else {
            return;
        };
        match seen.into_good() {
            Ok(object) => drop(self.slim.insert(object)),
            Err(refused) => self.refused.push(refused),
        }
    }
}

#[cfg(test)]
mod tests;
