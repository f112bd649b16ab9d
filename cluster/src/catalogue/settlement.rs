//! Which version of an object is in force after a scan, and what is said of a file.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use policy::{Diagnostic, Severity};

use crate::kept_object::KeptObject;
use crate::object::{ObjectChange, ObjectKey, ObjectName};
use crate::report::{ReadReport, ReportState};

use super::ReportScope;
use super::held_file::{FileRef, HeldFile};
use super::object_table::{ObjectInForce, ObjectTable, PolicyInForce, VersionInForce};
use super::saved_objects::{SavedObjects, SavedVersion};

/// A definition that was read in this scan.
#[derive(Debug)]
pub(super) struct FreshDefinition {
    pub(super) file: FileRef,
    /// The place of the document in the file.
    pub(super) place: usize,
    /// The document, as JSON, of what is kept as such.
    pub(super) source: Option<Arc<str>>,
}

/// The objects that a scan may change, each with its definitions that were read in this scan.
pub(super) type Concerned = BTreeMap<ObjectKey, Vec<FreshDefinition>>;

/// What a scan comes to.
#[derive(Debug, Default)]
pub(super) struct Settled {
    pub(super) gone: Vec<ObjectChange>,
    pub(super) applied: Vec<ObjectChange>,
    /// The files of which something else may be to be said now.
    pub(super) files: BTreeSet<PathBuf>,
    /// The documents of the good versions that were read in this scan.
    sources: HashMap<ObjectKey, Arc<str>>,
}

/// Settles what is in force of each of these objects.
///
/// `told`: what was in force before is known to whoever is told the changes.
pub(super) fn settle(
    table: &mut ObjectTable,
    files: &mut BTreeMap<PathBuf, HeldFile>,
    concerned: Concerned,
    told: bool,
) -> Settled {
    let mut settled = Settled::default();
    for (key, fresh) in concerned {
        let before = table.put(&key, None);
        let definers = table.definers(key.name());
        let first = definers.first().cloned();
        for file in definers.iter().chain(before.as_ref().map(|held| &held.file)) {
            if !settled.files.contains(file.as_path()) {
                settled.files.insert((**file).clone());
            }
        }
        if let Some(file) = before.as_ref().and_then(|held| files.get_mut(held.file.as_path())) {
            file.kept.retain(|kept| *kept != key);
        }
        let now = match first {
            Some(file) => {
                let read = fresh.into_iter().find(|it| it.file == file);
                settled.first_definition(&key, file, read, before.as_ref(), files)
            }
            // A document of the file that cannot be told may be this one.
            None => before.clone().filter(|before| {
                let file = files.get_mut(before.file.as_path());
                let file = file.filter(|file| !file.faults.is_empty());
                file.map(|file| file.kept.push(key.clone())).is_some()
            }),
        };
        let told_before = before.as_ref().filter(|_| told);
        match (&now, told_before) {
            (Some(now), Some(before)) if now.is_same_as(before) => {}
            (Some(now), _) => settled.applied.push(ObjectChange::Apply(now.version.object())),
            (None, Some(_)) => settled.gone.push(ObjectChange::Delete(key.clone())),
            (None, None) => {}
        }
        table.put(&key, now);
        table.tidy(&key);
    }
    settled
}

impl Settled {
    /// The version in force of an object that `file` defines first. `read` is that definition,
    /// where it was read in this scan.
    fn first_definition(
        &mut self,
        key: &ObjectKey,
        file: FileRef,
        read: Option<FreshDefinition>,
        before: Option<&ObjectInForce>,
        files: &mut BTreeMap<PathBuf, HeldFile>,
    ) -> Option<ObjectInForce> {
        let held = files.get_mut(file.as_path())?;
        let place = match &read {
            Some(read) => read.place,
            None => held.place_of(key.name())?,
        };
        let document = held.documents.get(place)?;
        if let Some(object) = document.object().filter(|_| !document.is_refused()) {
            let now = ObjectInForce {
                file,
                version: VersionInForce::good(object.clone()),
            };
            let is_known = before.is_some_and(|before| before.is_same_as(&now));
            match read {
                Some(read) => self.sources.extend(read.source.map(|source| (key.clone(), source))),
                // It did not count when it was read, and counts now. What is saved is its document,
                // for which the next look reads the file again.
                None if !is_known && key.name().kind.is_kept_as_document() => (held.stamp, held.content) = (None, None),
                None => {}
            }
            return Some(now);
        }
        if let Some(good) = before.filter(|before| before.is_good()) {
            return Some(ObjectInForce { file, ..good.clone() });
        }
        let stand_in = document.stand_in()?;
        Some(ObjectInForce {
            file,
            version: VersionInForce::Policy(Box::new(PolicyInForce {
                policy: stand_in.policy.clone()?,
                stand_in: Some(stand_in.findings.clone()),
            })),
        })
    }

    /// What of these files is to be saved for a later process.
    pub(super) fn saves(&self, table: &ObjectTable, files: &BTreeMap<PathBuf, HeldFile>) -> SavedObjects {
        let versions = |path: &PathBuf| {
            let file = files.get(path)?;
            let mut seen = HashSet::new();
            let names = file.names().filter(|name| {
                let held = table.in_force(*name);
                held.is_some_and(|held| held.is_good() && *held.file == file.path) && seen.insert(*name)
            });
            let version = |name: ObjectName<'_>| match table.slim_in_force(name) {
                Some(object) => SavedVersion::Kept(KeptObject::Slim(object)),
                None => match self.sources.get(&name.to_key()) {
                    Some(source) => SavedVersion::Kept(KeptObject::Document(Arc::clone(source))),
                    None => SavedVersion::AsBefore(name.to_key().to_string()),
                },
            };
            Some(names.map(version).collect())
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
pub(super) fn reports(file: &HeldFile, table: &ObjectTable, scope: ReportScope, node: &str) -> Vec<ReadReport> {
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
        let is_good = |key: &ObjectKey| table.in_force(key.name()).is_some_and(|held| held.is_good());
        let state = match file.kept.iter().any(is_good) {
            true => ReportState::KeptLastGood,
            false => ReportState::Rejected,
        };
        say(String::new(), state, file.faults.clone(), false);
        for key in &file.kept {
            let held = table.in_force(key.name());
            let (state, diagnostics) = match held.and_then(|held| held.stand_in) {
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
        if let Some(name) = document.name() {
            let first = table.definers(name).first().filter(|first| **first != file.path);
            if let Some(first) = first {
                (state, diagnostics) = (ReportState::Rejected, vec![duplicate(first, path)]);
            } else if !seen.insert(name) {
                (state, diagnostics) = (ReportState::Rejected, vec![duplicate(path, path)]);
            } else if document.is_refused() {
                match table.in_force(name).filter(|held| held.is_good()) {
                    Some(_) => state = ReportState::KeptLastGood,
                    None => {
                        let stand_in = document.stand_in();
                        diagnostics.extend(stand_in.into_iter().flat_map(|it| it.findings.iter().cloned()));
                    }
                }
            }
        }
        let is_local_pod = document.is_pod_of(node);
        let is_silent = state == ReportState::Accepted && diagnostics.is_empty();
        if is_silent && !is_local_pod && scope == ReportScope::Noteworthy && document.policy_name().is_none() {
            // Of hundreds of thousands of objects not even a label is made.
            continue;
        }
        say(document.label(), state, diagnostics, is_local_pod);
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
