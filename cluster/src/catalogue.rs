//! Files' contents over time → updates. Pure: it is given contents and returns what changed.
//!
//! What must hold:
//! - An object stays in force until it is *known* to be gone. A file that cannot be read, or in
//!   which some document cannot be told, keeps every object that it held; an object that is refused
//!   keeps its last good version.
//! - A policy that is refused and has no good version leaves nothing open: what stands in for it
//!   closes whom it selects.
//! - What looks as if policies were lost by accident must be seen twice
//!   ([`Catalogue::scan_with_confirmation`]).
//! - One object, one definition: the first path that defines it wins, whether its version is good
//!   or not, so that what is in force does not depend on mistakes elsewhere.

mod confirmation;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use policy::{Diagnostic, Severity};

use crate::object::{Object, ObjectChange, ObjectKey, Update};
use crate::report::{ReadReport, ReportState};

use super::reading::{ParsedDocument, ParsedFile, read_file, reread};

pub use confirmation::{CONFIRMATION, ScanContext};
use confirmation::{HeldBack, PendingLoss, hold_back_losses};

/// The content of one file, or why there is none.
pub type FileContent = Result<String, String>;

/// What the files hold now, and what is in force.
#[derive(Debug, Default)]
pub struct Catalogue {
    /// What each file says, kept so that an unchanged file is not read again.
    files: BTreeMap<PathBuf, (FileContent, ParsedFile)>,
    in_force: BTreeMap<ObjectKey, ObjectInForce>,
    reports: Vec<ReadReport>,
    /// Whether the first update, which is complete even when it is empty, was given.
    begun: bool,
    /// Whether the files as a whole could not be read the last time.
    unreadable: bool,
    /// The files that are kept as they were until they are looked at again, and what is said of
    /// them.
    pending_losses: BTreeMap<PathBuf, PendingLoss>,
    held_reports: Vec<ReadReport>,
    again: Option<Instant>,
}

/// An object in force, and the file that it came from.
#[derive(Debug, Clone, PartialEq)]
struct ObjectInForce {
    file: PathBuf,
    object: Object,
    version: InForceVersion,
}

/// What an object in force was made of.
#[derive(Debug, Clone, PartialEq)]
enum InForceVersion {
    /// A document that is good, as JSON.
    Good(Arc<str>),
    /// A document that is refused. What is to be said of that.
    StandIn(Vec<Diagnostic>),
}

/// A good version that outlives this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastGood {
    /// The file that it was read from.
    pub file: PathBuf,
    /// The document, as JSON.
    pub document: Arc<str>,
}

impl Catalogue {
    /// A catalogue that knows what an earlier process had in force. None of it is in force before
    /// the first scan finds it defined in a document that is refused, or its file unreadable.
    pub fn remembering(earlier: impl IntoIterator<Item = LastGood>) -> Self {
        let known = |LastGood { file, document }| {
            let (key, object) = reread(&document)?;
            let version = InForceVersion::Good(document);
            Some((key, ObjectInForce { file, object, version }))
        };
        Self {
            in_force: earlier.into_iter().filter_map(known).collect(),
            ..Self::default()
        }
    }

    /// What [`remembering`](Self::remembering) is to be told in a later process.
    pub fn last_good(&self) -> Vec<LastGood> {
        let good = |held: &ObjectInForce| match &held.version {
            InForceVersion::Good(document) => Some(LastGood {
                file: held.file.clone(),
                document: Arc::clone(document),
            }),
            InForceVersion::StandIn(_) => None,
        };
        self.in_force.values().filter_map(good).collect()
    }

    /// As [`scan`](Self::scan), where contents may be those of files that are being written: what
    /// looks as if policies were lost by accident is kept as it was, said, and believed when it is
    /// still so at [`confirm_at`](Self::confirm_at).
    pub fn scan_with_confirmation(
        &mut self,
        mut contents: BTreeMap<PathBuf, FileContent>,
        context: ScanContext,
    ) -> Option<Update> {
        if !self.begun && contents.is_empty() && self.in_force.keys().any(|key| matches!(key, ObjectKey::Policy(_))) {
            return Some(self.begin_without_files());
        }
        let HeldBack {
            pending_losses,
            reports,
            again,
        } = hold_back_losses(self, &mut contents, context);
        (self.pending_losses, self.again) = (pending_losses, again);
        self.scan_with(contents, reports)
    }

    /// When the losses that are held back are looked at again.
    pub fn confirm_at(&self) -> Option<Instant> {
        self.again
    }

    /// Takes the contents of all files and says what changed; `None` when nothing did.
    pub fn scan(&mut self, contents: BTreeMap<PathBuf, FileContent>) -> Option<Update> {
        self.scan_with(contents, Vec::new())
    }

    /// What an earlier process had in force stays, although there is no file: there is no telling
    /// whether it was deleted meanwhile, or the directory is not what it should be.
    fn begin_without_files(&mut self) -> Update {
        let reason = "there are no files, and what was in force before this start stays in force";
        let mut finding = fault("vanished", reason.into());
        finding.suggestion = Some(
            "mount or fill the directory; to remove every object, put a file there that holds nothing but a comment"
                .into(),
        );
        let report = ReadReport::new(None, String::new(), ReportState::KeptLastGood, vec![finding]);
        let changes = self
            .in_force
            .values()
            .map(|held| ObjectChange::Apply(held.object.clone()));
        self.begun = true;
        self.reports = vec![report];
        Update {
            changes: changes.collect(),
            reports: self.reports.clone(),
        }
    }

    fn scan_with(&mut self, contents: BTreeMap<PathBuf, FileContent>, held_reports: Vec<ReadReport>) -> Option<Update> {
        let before = self.files.iter().map(|(path, (content, _))| (path, content));
        if self.begun && !self.unreadable && held_reports == self.held_reports && before.eq(&contents) {
            return None;
        }
        self.held_reports = held_reports;
        self.unreadable = false;
        self.files = contents
            .into_iter()
            .map(|(path, content)| {
                let read = match self.files.remove(&path) {
                    Some((before, reading)) if before == content => reading,
                    _ => self.read(&path, &content),
                };
                (path, (content, read))
            })
            .collect();

        let mut settled = Settlement::new(&self.files, &self.in_force);
        for (path, (_, file)) in &self.files {
            if !file.faults.is_empty() {
                settled.keep_all_of(path, &file.faults);
            }
            for (index, reading) in file.objects.iter().enumerate() {
                settled.settle(path, index, reading);
            }
        }
        let Settlement { next, mut reports, .. } = settled;
        reports.splice(0..0, self.held_reports.iter().cloned());
        self.replace(next, reports)
    }

    /// The files as a whole cannot be read: everything stays as it was, and `reason` is reported.
    ///
    /// Says nothing before the first scan: an update without the objects would stand for a cluster
    /// without any.
    pub fn unreadable(&mut self, directory: &Path, reason: String) -> Option<Update> {
        if !self.begun {
            return None;
        }
        self.unreadable = true;
        let trouble = ReadReport::new(
            Some(directory),
            String::new(),
            ReportState::KeptLastGood,
            vec![fault("unreadable-directory", reason)],
        );
        let others = self.reports.iter().filter(|it| it.file.as_deref() != Some(directory));
        let reports = std::iter::once(trouble).chain(others.cloned()).collect();
        self.replace(self.in_force.clone(), reports)
    }

    /// `kind namespace/name` of the objects that Namegate has no use for.
    pub fn foreign(&self) -> BTreeSet<&str> {
        self.files
            .values()
            .flat_map(|(_, file)| file.foreign.iter().map(String::as_str))
            .collect()
    }

    /// How many objects are in force.
    pub fn len(&self) -> usize {
        self.in_force.len()
    }

    /// Whether nothing is in force.
    pub fn is_empty(&self) -> bool {
        self.in_force.is_empty()
    }

    fn read(&self, path: &Path, content: &FileContent) -> ParsedFile {
        let fault_only = |code, reason| ParsedFile {
            faults: vec![fault(code, reason)],
            ..ParsedFile::default()
        };
        match content {
            Err(reason) => fault_only("unreadable-file", format!("the file cannot be read: {reason}")),
            // A file of no bytes is what a crash or a full disk leaves behind, or an editor about
            // to write; a file that is meant to say nothing is deleted, or says so in a comment.
            Ok(text) if text.is_empty() && self.in_force.values().any(|held| held.file == path) => {
                let reason = "the file is empty, and its objects stay in force; delete it to remove them";
                fault_only("empty-file", reason.into())
            }
            Ok(text) => read_file(text),
        }
    }

    fn replace(&mut self, next: BTreeMap<ObjectKey, ObjectInForce>, reports: Vec<ReadReport>) -> Option<Update> {
        // Nobody was told of what an earlier process had in force: the first update is complete.
        let told = match self.begun {
            true => std::mem::take(&mut self.in_force),
            false => BTreeMap::new(),
        };
        let gone = told.keys().filter(|key| !next.contains_key(*key));
        let applied = next
            .iter()
            .filter(|(key, held)| told.get(*key).is_none_or(|before| before.object != held.object));
        // Deletions first: an address that moves from one pod to another is free before it is
        // taken.
        let changes: Vec<ObjectChange> = gone
            .map(|key| ObjectChange::Delete(key.clone()))
            .chain(applied.map(|(_, held)| ObjectChange::Apply(held.object.clone())))
            .collect();
        let news = !self.begun || !changes.is_empty() || reports != self.reports;
        self.begun = true;
        self.in_force = next;
        self.reports.clone_from(&reports);
        news.then_some(Update { changes, reports })
    }
}

impl ObjectInForce {
    fn is_good(&self) -> bool {
        matches!(self.version, InForceVersion::Good(_))
    }
}

/// What is in force after a scan, under way.
struct Settlement<'a> {
    /// The definition that counts: the file and the place in it.
    definitions: BTreeMap<&'a ObjectKey, (&'a Path, usize)>,
    before: &'a BTreeMap<ObjectKey, ObjectInForce>,
    next: BTreeMap<ObjectKey, ObjectInForce>,
    reports: Vec<ReadReport>,
}

impl<'a> Settlement<'a> {
    fn new(
        files: &'a BTreeMap<PathBuf, (FileContent, ParsedFile)>,
        before: &'a BTreeMap<ObjectKey, ObjectInForce>,
    ) -> Self {
        let mut definitions = BTreeMap::new();
        for (path, (_, file)) in files {
            for (index, reading) in file.objects.iter().enumerate() {
                if let Some(key) = &reading.key {
                    definitions.entry(key).or_insert((path.as_path(), index));
                }
            }
        }
        Self {
            definitions,
            before,
            next: BTreeMap::new(),
            reports: Vec::new(),
        }
    }

    /// Some document of the file cannot be told, and may be any of the objects that the file held.
    fn keep_all_of(&mut self, path: &Path, faults: &[Diagnostic]) {
        // What is defined somewhere now is told there.
        let kept: Vec<_> = self
            .before
            .iter()
            .filter(|(key, held)| held.file == path && !self.definitions.contains_key(key))
            .collect();
        let state = match kept.iter().any(|(_, held)| held.is_good()) {
            true => ReportState::KeptLastGood,
            false => ReportState::Rejected,
        };
        self.report(path, String::new(), state, faults.to_vec());
        for (key, held) in kept {
            self.next.insert(key.clone(), held.clone());
            let (state, diagnostics) = match &held.version {
                InForceVersion::Good(_) => (ReportState::KeptLastGood, Vec::new()),
                InForceVersion::StandIn(findings) => (ReportState::Rejected, without_positions(findings)),
            };
            self.report(path, key.to_string(), state, diagnostics);
        }
    }

    fn settle(&mut self, path: &Path, index: usize, reading: &ParsedDocument) {
        let mut state = reading.state();
        let mut diagnostics = reading.diagnostics.clone();
        if let Some(key) = &reading.key {
            let (first, first_index) = self.definitions.get(key).copied().unwrap_or((path, index));
            if (first, first_index) != (path, index) {
                state = ReportState::Rejected;
                diagnostics = vec![duplicate(first, path)];
            } else if let Some(object) = &reading.object {
                let held = ObjectInForce {
                    file: path.to_owned(),
                    object: object.clone(),
                    version: InForceVersion::Good(Arc::clone(&reading.source)),
                };
                self.next.insert(key.clone(), held);
            } else if let Some(held) = self.before.get(key).filter(|held| held.is_good()) {
                state = ReportState::KeptLastGood;
                let held = ObjectInForce {
                    file: path.to_owned(),
                    ..held.clone()
                };
                self.next.insert(key.clone(), held);
            } else {
                diagnostics.extend_from_slice(&reading.stand_in.findings);
                if let Some(policy) = &reading.stand_in.policy {
                    let held = ObjectInForce {
                        file: path.to_owned(),
                        object: Object::Policy(Box::new(policy.clone())),
                        version: InForceVersion::StandIn(reading.stand_in.findings.clone()),
                    };
                    self.next.insert(key.clone(), held);
                }
            }
        }
        self.report(path, reading.label.clone(), state, diagnostics);
    }

    fn report(&mut self, path: &Path, object: String, state: ReportState, diagnostics: Vec<Diagnostic>) {
        self.reports
            .push(ReadReport::new(Some(path), object, state, diagnostics));
    }
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

fn fault(code: &'static str, reason: String) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        code,
        path: String::new(),
        position: None,
        reason,
        suggestion: None,
    }
}

#[cfg(test)]
mod tests;
