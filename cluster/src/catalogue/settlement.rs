//! Which version of an object is in force after a scan, and what is said of a file.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use policy::{Diagnostic, Severity};

use crate::object::{Object, ObjectChange, ObjectKey};
use crate::report::{ReadReport, ReportState};

use super::ReportScope;
use super::held_file::{FileRef, HeldFile};
use super::object_table::{ObjectInForce, ObjectTable, PolicyInForce};
use super::saved_objects::{SavedObjects, SavedVersion};

/// A definition that was read in this scan.
#[derive(Debug)]
pub(super) struct FreshDefinition {
    pub(super) file: FileRef,
    /// The place of the document in the file.
    pub(super) place: usize,
    /// The object, unless it is refused.
    pub(super) object: Option<Object>,
    /// The document, as JSON.
    pub(super) source: Arc<str>,
}

/// The objects that a scan may change, each with its definitions that were read in this scan.
pub(super) type Concerned = BTreeMap<Arc<ObjectKey>, Vec<FreshDefinition>>;

/// What a scan comes to.
#[derive(Debug, Default)]
pub(super) struct Settled {
    pub(super) gone: Vec<ObjectChange>,
    pub(super) applied: Vec<ObjectChange>,
    /// The files of which something else may be to be said now.
    pub(super) files: BTreeSet<PathBuf>,
    /// The good versions that were read in this scan.
    sources: HashMap<Arc<ObjectKey>, Arc<str>>,
}

/// Settles what is in force of each of these objects.
///
/// `told`: what was in force before is known to whoever is told the changes. `recalled` are objects
/// of an earlier process, which are in force and of which nobody was told.
pub(super) fn settle(
    table: &mut ObjectTable,
    files: &mut BTreeMap<PathBuf, HeldFile>,
    concerned: Concerned,
    told: bool,
    recalled: &mut HashMap<Arc<ObjectKey>, Object>,
) -> Settled {
    let mut settled = Settled::default();
    for (key, mut fresh) in concerned {
        let before = table.put(&key, None);
        let first = table.definers(&key).first().cloned();
        for file in table
            .definers(&key)
            .iter()
            .chain(before.as_ref().map(|held| &held.file))
        {
            if !settled.files.contains(file.as_path()) {
                settled.files.insert((**file).clone());
            }
        }
        if let Some(file) = before.as_ref().and_then(|held| files.get_mut(held.file.as_path())) {
            file.kept.retain(|kept| !Arc::ptr_eq(kept, &key));
        }
        let read = first
            .as_ref()
            .and_then(|file| fresh.iter().position(|it| it.file == *file))
            .map(|index| fresh.swap_remove(index));
        let good = before.clone().filter(ObjectInForce::is_good);
        let mut object = None;
        let now = match first {
            Some(file) => {
                let place = read.as_ref().map(|read| read.place);
                let held = files.get(file.as_path());
                let place = place.or_else(|| held?.place_of(&key));
                let document = held.and_then(|held| held.documents.get(place?));
                match document {
                    Some(document) if !document.is_refused() => {
                        object = read.and_then(|read| {
                            settled.sources.insert(Arc::clone(&key), read.source);
                            read.object
                        });
                        let policy = document.policy();
                        object = object.or_else(|| Some(Object::Policy(Box::new(policy?.clone()))));
                        let now = ObjectInForce {
                            file: Arc::clone(&file),
                            digest: document.digest,
                            policy: policy.map(|policy| {
                                Box::new(PolicyInForce {
                                    policy: policy.clone(),
                                    stand_in: None,
                                })
                            }),
                        };
                        let is_known = before.as_ref().is_some_and(|before| before.is_same_as(&now));
                        if object.is_none() && !is_known {
                            // It did not count when it was read, and counts now: the next look
                            // reads it again.
                            if let Some(held) = files.get_mut(file.as_path()) {
                                (held.stamp, held.content) = (None, None);
                            }
                            before.clone().map(|before| ObjectInForce { file, ..before })
                        } else {
                            Some(now)
                        }
                    }
                    Some(_) if good.is_some() => good.map(|before| ObjectInForce { file, ..before }),
                    Some(document) => document.details.as_ref().and_then(|details| {
                        let policy = details.stand_in.policy.clone()?;
                        object = Some(Object::Policy(Box::new(policy.clone())));
                        let stand_in = Some(details.stand_in.findings.clone());
                        Some(ObjectInForce {
                            file,
                            digest: document.digest,
                            policy: Some(Box::new(PolicyInForce { policy, stand_in })),
                        })
                    }),
                    // Not reached: who defines it holds a document.
                    None => None,
                }
            }
            // A document of the file that cannot be told may be this one.
            None => before.clone().filter(|before| {
                let file = files.get_mut(before.file.as_path());
                let file = file.filter(|file| !file.faults.is_empty());
                file.map(|file| file.kept.push(Arc::clone(&key))).is_some()
            }),
        };
        let told_before = before.as_ref().filter(|_| told);
        match (&now, told_before) {
            (Some(now), Some(before)) if now.is_same_as(before) => {}
            (Some(now), _) => {
                let policy = now
                    .policy
                    .as_ref()
                    .map(|it| Object::Policy(Box::new(it.policy.clone())));
                let object = object.or_else(|| recalled.remove(&key)).or(policy);
                settled.applied.extend(object.map(ObjectChange::Apply));
            }
            (None, Some(_)) => settled.gone.push(ObjectChange::Delete((*key).clone())),
            (None, None) => {}
        }
        table.put(&key, now);
        table.forget(&key);
    }
    settled
}

impl Settled {
    /// What of these files is to be saved for a later process.
    pub(super) fn saves(&self, table: &ObjectTable, files: &BTreeMap<PathBuf, HeldFile>) -> SavedObjects {
        let versions = |path: &PathBuf| {
            let file = files.get(path)?;
            let is_held = |key: &&Arc<ObjectKey>| {
                let held = table.in_force(key);
                held.is_some_and(|held| held.is_good() && held.file == file.path)
            };
            let mut seen = HashSet::new();
            let keys = file.keys().filter(is_held).filter(|key| seen.insert(Arc::as_ptr(key)));
            let version = |key: &Arc<ObjectKey>| match self.sources.get(key) {
                Some(source) => SavedVersion::Document(Arc::clone(source)),
                None => SavedVersion::AsBefore(key.to_string()),
            };
            Some(keys.map(version).collect())
        };
        let files = self.files.iter();
        SavedObjects {
            files: files
                .map(|path| (path.clone(), versions(path).unwrap_or_default()))
                .collect(),
        }
    }
}

/// What is to be said of a file and of what it defines or keeps.
pub(super) fn reports(file: &HeldFile, table: &ObjectTable, scope: ReportScope) -> Vec<ReadReport> {
    let mut reports = Vec::new();
    let path = file.path.as_path();
    let mut say = |object: String, state, diagnostics: Vec<Diagnostic>, is_local_pod| {
        let report = ReadReport::new(Some(path), object, state, diagnostics);
        let has_news = report.state != ReportState::Accepted || !report.diagnostics.is_empty();
        // What the plan finds of a local Pod is added to its report.
        let is_noteworthy = report.is_policy() || is_local_pod || has_news;
        if is_noteworthy || scope == ReportScope::Everything {
            reports.push(report);
        }
    };
    if !file.faults.is_empty() {
        let is_good = |key: &Arc<ObjectKey>| table.in_force(key).is_some_and(ObjectInForce::is_good);
        let state = match file.kept.iter().any(is_good) {
            true => ReportState::KeptLastGood,
            false => ReportState::Rejected,
        };
        say(String::new(), state, file.faults.clone(), false);
        for key in &file.kept {
            let held = table.in_force(key).and_then(|held| held.policy.as_ref());
            let (state, diagnostics) = match held.and_then(|policy| policy.stand_in.as_ref()) {
                None => (ReportState::KeptLastGood, Vec::new()),
                Some(findings) => (ReportState::Rejected, without_positions(findings)),
            };
            say(key.to_string(), state, diagnostics, false);
        }
    }
    let mut seen = HashSet::new();
    for document in &file.documents {
        let mut state = document.state();
        let mut diagnostics = document.diagnostics().to_vec();
        if let Some(key) = document.key() {
            let first = table.definers(key).first().filter(|first| **first != file.path);
            if let Some(first) = first {
                (state, diagnostics) = (ReportState::Rejected, vec![duplicate(first, path)]);
            } else if !seen.insert(Arc::as_ptr(key)) {
                (state, diagnostics) = (ReportState::Rejected, vec![duplicate(path, path)]);
            } else if document.is_refused() {
                match table.in_force(key).filter(|held| held.is_good()) {
                    Some(_) => state = ReportState::KeptLastGood,
                    None => {
                        let stand_in = document.details.as_ref().map(|details| &details.stand_in);
                        diagnostics.extend(stand_in.into_iter().flat_map(|it| it.findings.iter().cloned()));
                    }
                }
            }
        }
        say(document.label(), state, diagnostics, document.is_local_pod);
    }
    reports
}

/// The text that they point into is not there any more.
fn without_positions(findings: &[Diagnostic]) -> Vec<Diagnostic> {
    let mut findings = findings.to_vec();
    findings.iter_mut().for_each(|finding| finding.position = None);
    findings
}

fn duplicate(first: &Path, path: &Path) -> Diagnostic {
    let place = match first == path {
        true => "earlier in this file".into(),
        false => format!("in {}", first.display()),
    };
    Diagnostic {
        severity: Severity::Warning,
        code: "duplicate-object",
        path: "metadata.name".into(),
        position: None,
        reason: format!("the same object is already defined {place}, and the first one counts"),
        suggestion: Some("remove one of them, or give it another name".into()),
    }
}
