//! One policy, or group of prefixes: what of its newest version is in force.
//!
//! A version that is refused leaves the last good one in force; where there is none, what stands in
//! for it.

use std::collections::BTreeSet;
use std::sync::Arc;

use policy::document::Document;
use policy::{Diagnostic, Policy, PolicyId};

use crate::object::{Object, ObjectKey};
use crate::report::{ReadReport, ReportState};
use crate::slim::DEFAULT_NAMESPACE;

use super::super::super::reading::{self, ParsedDocument};
use super::super::peers;
use super::super::resources::{Resource, ResourceKind};
use super::super::wire::ObjectVersion;
use super::{CachedObject, ObservedPolicy, WatchCache, WatchKey};

impl WatchCache {
    /// Reads a version that differs from the cached one.
    pub(super) fn read(&mut self, place: WatchKey, seen: Arc<str>, version: Option<Box<ObjectVersion>>) {
        let (resource, namespace, name) = &place;
        let reading = match read(&seen) {
            Ok(Some(reading)) => reading,
            // Not reached: the table of kinds has none that the reader passes over.
            Ok(None) => return,
            Err(diagnostic) => {
                let object = format!("{} {namespace}/{name}", ResourceKind::of(*resource).kind);
                self.report(place.clone(), object, ReportState::Rejected, vec![diagnostic]);
                return;
            }
        };
        let held_key = (namespace.clone(), name.clone());
        let before = self
            .resources
            .get(resource)
            .and_then(|watched| watched.objects.get(&held_key));
        let mut state = reading.state();
        let mut diagnostics = reading.diagnostics;
        let mut good = None;
        let mut in_force = None;
        if let Some(object) = reading.object {
            good = Some(Arc::clone(&seen));
            in_force = Some(object);
        } else if let Some((document, object)) = self.last_good(before, reading.key.as_ref()) {
            state = ReportState::KeptLastGood;
            good = Some(document);
            in_force = Some(object);
        } else {
            diagnostics.extend(reading.stand_in.findings);
            if let Some(policy) = reading.stand_in.policy {
                in_force = Some(Object::Policy(Box::new(policy)));
            }
        }

        set(
            &mut self.speak_of_pods,
            &place,
            in_force.as_ref().is_some_and(speaks_of_pods),
        );
        let policy = version.map(|version| {
            Box::new(ObservedPolicy {
                version: *version,
                state,
                diagnostics: diagnostics.clone(),
                update: 0,
            })
        });
        if policy.is_some() {
            self.unnumbered.insert(place.clone());
        }
        if let Some(watched) = self.resources.get_mut(resource) {
            watched.objects.insert(held_key, CachedObject { seen, good, policy });
        }
        match (in_force, reading.key) {
            (Some(object), _) => self.news.apply(object),
            (None, Some(key)) => self.news.delete(key),
            (None, None) => {}
        }
        if ResourceKind::of(*resource).is_policy() || !diagnostics.is_empty() {
            self.report(place, reading.label, state, diagnostics);
        } else if self.reports.remove(&place).is_some() {
            self.reports_changed = true;
        }
    }

    fn last_good(&self, before: Option<&CachedObject>, key: Option<&ObjectKey>) -> Option<(Arc<str>, Object)> {
        let document = match before {
            Some(held) => held.good.as_ref()?,
            None => self.earlier.get(key?)?.document()?,
        };
        let (_, object) = reading::reread(document)?;
        Some((Arc::clone(document), object))
    }

    pub(super) fn lose(&mut self, resource: Resource, namespace: String, name: String) {
        let Some(object) = key_of(resource, &namespace, &name) else {
            return;
        };
        let key = (namespace, name);
        let is_slim = self.lose_slim(resource, object.name());
        let watched = self.resources.get_mut(&resource);
        let is_held = watched.is_some_and(|watched| {
            let is_refused = watched.refused.remove(&key);
            watched.objects.remove(&key).is_some() || is_refused
        });
        if !is_slim && !is_held {
            return;
        }
        let place = (resource, key.0, key.1);
        self.speak_of_pods.remove(&place);
        self.without_ranges.remove(&place);
        if self.reports.remove(&place).is_some() {
            self.reports_changed = true;
        }
        if is_held && !is_slim {
            self.news.delete(object);
        }
        if ResourceKind::of(resource).is_policy() {
            self.touched.insert(place);
        }
    }

    /// Numbers the policies that the current update carries first.
    pub(super) fn number_policies(&mut self) {
        for place in std::mem::take(&mut self.unnumbered) {
            let (resource, namespace, name) = &place;
            let watched = self.resources.get_mut(resource);
            let held = watched.and_then(|watched| watched.objects.get_mut(&(namespace.clone(), name.clone())));
            // It may be gone again.
            if let Some(policy) = held.and_then(|held| held.policy.as_mut()) {
                policy.update = self.taken;
                self.touched.insert(place);
            }
        }
    }

    pub(super) fn report(&mut self, place: WatchKey, object: String, state: ReportState, diagnostics: Vec<Diagnostic>) {
        let report = ReadReport::new(None, object, state, diagnostics);
        self.reports_changed |= self.reports.get(&place) != Some(&report);
        self.reports.insert(place, report);
    }
}

fn set(places: &mut BTreeSet<WatchKey>, place: &WatchKey, present: bool) {
    if present {
        places.insert(place.clone());
    } else {
        places.remove(place);
    }
}

fn read(document: &Arc<str>) -> Result<Option<ParsedDocument>, Diagnostic> {
    // It was made from JSON.
    let value = serde_json::from_str(document).unwrap_or_default();
    Ok(reading::read(&Document::from_value(value)?))
}

/// Which object a watch tells of.
fn key_of(resource: Resource, namespace: &str, name: &str) -> Option<ObjectKey> {
    let policy = ResourceKind::of(resource).policy();
    // As the reader of documents settles it.
    let namespace = match policy {
        Some(kind) if !kind.is_namespaced() => String::new(),
        _ if namespace.is_empty() => DEFAULT_NAMESPACE.to_owned(),
        _ => namespace.to_owned(),
    };
    let name = name.to_owned();
    Some(match resource {
        Resource::LocalPods | Resource::OtherPods => ObjectKey::Pod(namespace, name),
        Resource::Namespaces => ObjectKey::Namespace(name),
        Resource::Nodes => ObjectKey::Node(name),
        Resource::Services => ObjectKey::Service(namespace, name),
        Resource::EndpointSlices => ObjectKey::EndpointSlice(namespace, name),
        Resource::ServiceImports => ObjectKey::ServiceImport(namespace, name),
        Resource::CidrGroups => ObjectKey::CidrGroup(name),
        Resource::CiliumNetworkPolicies
        | Resource::CiliumClusterwideNetworkPolicies
        | Resource::NetworkPolicies
        | Resource::ClusterNetworkPolicies => ObjectKey::Policy(PolicyId {
            kind: policy?,
            namespace,
            name,
        }),
    })
}

fn speaks_of_pods(object: &Object) -> bool {
    let policy: Option<&Policy> = match object {
        Object::Policy(policy) => Some(policy),
        _ => None,
    };
    policy.is_some_and(peers::speaks_of_pods)
}
