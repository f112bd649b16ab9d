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
mod held_file;
mod object_table;
mod saved_objects;
mod settlement;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use policy::document::Document;
use policy::{Diagnostic, Severity};

use crate::file_stamp::FileStamp;
use crate::object::{Object, ObjectChange, ObjectKey, Update};
use crate::report::{ReadReport, ReportState};
use crate::slim::Interner;

use super::reading::{ParsedDocument, ParsedFile, read_documents, reread};

pub use confirmation::{CONFIRMATION, ScanContext};
use confirmation::{HeldBack, PendingLoss, hold_back_losses};
use held_file::{ContentId, HeldFile};
use object_table::{ObjectInForce, ObjectTable, VersionInForce};
pub(crate) use saved_objects::{SavedObjects, SavedVersion};
use settlement::{Concerned, FreshDefinition, Settled, reports, settle};

/// Is given a document, the file that holds it, and what it says.
pub(crate) type DocumentVisitor<'v> = dyn FnMut(&Path, Document, &ParsedDocument) + 'v;

/// The content of one file, or why there is none.
pub type FileContent = Result<String, String>;

/// What a look at one file found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum FileLook {
    /// It is as its [stamp](Catalogue::stamps) says, and was not read.
    Unchanged,
    /// It was read.
    Read {
        content: FileContent,
        /// `None` where it must be read again at the next look.
        stamp: Option<FileStamp>,
    },
}

/// What the files hold now, and what is in force.
///
/// Kept of an object that is no policy is the object, which the index keeps too, and no text. What
/// a scan costs follows from the files that changed.
#[derive(Debug, Default)]
pub struct Catalogue {
    scope: ReportScope,
    /// The agent's.
    node: String,
    files: BTreeMap<PathBuf, HeldFile>,
    table: ObjectTable,
    interner: Interner,
    /// What an earlier process had in force, until the first scan.
    earlier: Vec<LastGood>,
    /// What is in force although no file was ever seen that holds it.
    without_file: Vec<ObjectKey>,
    /// What is to be saved for a later process, since it was [taken](Self::take_saves).
    saves: SavedObjects,
    saves_objects: bool,
    reports: Arc<[ReadReport]>,
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

/// Of which objects there is a report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum ReportScope {
    /// Of every one.
    #[default]
    Everything,
    /// Of policies and local Pods, and where something is to be said.
    Noteworthy,
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
        Self {
            earlier: earlier.into_iter().collect(),
            ..Self::default()
        }
    }

    /// The catalogue of an agent: it reports on policies, on Pods of its node, and where there is
    /// something to say, and with `saves` it tells what is to be saved.
    pub fn of_agent(node: &str, earlier: impl IntoIterator<Item = LastGood>, saves: bool) -> Self {
        Self {
            node: node.to_owned(),
            scope: ReportScope::Noteworthy,
            saves_objects: saves,
            ..Self::remembering(earlier)
        }
    }

    /// What changed of the good versions since the last call. All that was ever returned, one
    /// [update](SavedObjects::update) after another, is what [`remembering`](Self::remembering) is
    /// to be told in a later process.
    pub(crate) fn take_saves(&mut self) -> SavedObjects {
        std::mem::take(&mut self.saves)
    }

    /// The stamps of the files that need not be read while they are the same.
    pub(crate) fn stamps(&self) -> BTreeMap<PathBuf, FileStamp> {
        let known = self.files.iter();
        known
            .filter_map(|(path, file)| Some((path.clone(), file.stamp?)))
            .collect()
    }

    /// Has every file read again.
    pub(crate) fn read_all_again(&mut self) {
        for file in self.files.values_mut() {
            (file.stamp, file.content) = (None, None);
        }
    }

    /// As [`scan`](Self::scan), where contents may be those of files that are being written: what
    /// looks as if policies were lost by accident is kept as it was, said, and believed when it is
    /// still so at [`confirm_at`](Self::confirm_at).
    pub(crate) fn scan_with_confirmation(
        &mut self,
        mut looks: BTreeMap<PathBuf, FileLook>,
        context: ScanContext,
    ) -> Option<Update> {
        if !self.begun && looks.is_empty() && !self.earlier.is_empty() {
            let recalled = self.recall();
            if recalled.keys().any(|key| matches!(key, ObjectKey::Policy(_))) {
                return Some(self.begin_without_files(recalled));
            }
            // It is gone with its files.
            self.without_file = recalled.into_keys().collect();
        }
        let HeldBack {
            pending_losses,
            reports,
            again,
        } = hold_back_losses(self, &mut looks, context);
        (self.pending_losses, self.again) = (pending_losses, again);
        let update = self.scan_looks(looks, reports, &mut |_, _, _| ());
        let is_awaited =
            |(path, file): (&PathBuf, &HeldFile)| file.content.is_none() && !self.pending_losses.contains_key(path);
        if self.files.iter().any(is_awaited) {
            self.again = Some(context.at);
        }
        update
    }

    /// When the losses that are held back are looked at again, or a file that must be read again.
    pub fn confirm_at(&self) -> Option<Instant> {
        self.again
    }

    /// Takes the contents of all files and says what changed; `None` when nothing did.
    pub fn scan(&mut self, contents: BTreeMap<PathBuf, FileContent>) -> Option<Update> {
        self.scan_visiting(contents, &mut |_, _, _| ())
    }

    /// As [`scan`](Self::scan). `visit` is given each document that is read, in the order of files
    /// and documents, of an object that Namegate acts on or refuses.
    pub(crate) fn scan_visiting(
        &mut self,
        contents: BTreeMap<PathBuf, FileContent>,
        visit: &mut DocumentVisitor<'_>,
    ) -> Option<Update> {
        let look = |content| FileLook::Read { content, stamp: None };
        let looks = contents.into_iter().map(|(path, content)| (path, look(content)));
        self.scan_looks(looks.collect(), Vec::new(), visit)
    }

    /// What an earlier process had in force stays, although there is no file: there is no telling
    /// whether it was deleted meanwhile, or the directory is not what it should be.
    fn begin_without_files(&mut self, recalled: BTreeMap<ObjectKey, Object>) -> Update {
        let reason = "there are no files, and what was in force before this start stays in force";
        let mut finding = fault("vanished", reason.into());
        finding.suggestion = Some(
            "mount or fill the directory; to remove every object, put a file there that holds nothing but a comment"
                .into(),
        );
        let report = ReadReport::new(None, String::new(), ReportState::KeptLastGood, vec![finding]);
        self.without_file = recalled.keys().cloned().collect();
        self.begun = true;
        self.reports = Arc::new([report]);
        Update {
            changes: recalled.into_values().map(ObjectChange::Apply).collect(),
            reports: Arc::clone(&self.reports),
            ..Update::default()
        }
    }

    /// Puts into the table what an earlier process had in force, and returns the objects.
    fn recall(&mut self) -> BTreeMap<ObjectKey, Object> {
        let mut recalled = BTreeMap::new();
        for LastGood { file, document } in std::mem::take(&mut self.earlier) {
            let Some((key, mut object)) = reread(&document) else {
                continue;
            };
            self.interner.share(&mut object);
            let version = ObjectInForce {
                file: Arc::new(file),
                version: VersionInForce::good(object.clone()),
            };
            self.table.put(&key, Some(version));
            recalled.insert(key, object);
        }
        recalled
    }

    fn scan_looks(
        &mut self,
        looks: BTreeMap<PathBuf, FileLook>,
        held_reports: Vec<ReadReport>,
        visit: &mut DocumentVisitor<'_>,
    ) -> Option<Update> {
        let gone: Vec<PathBuf> = self
            .files
            .keys()
            .filter(|path| !looks.contains_key(*path))
            .cloned()
            .collect();
        let fresh = self.changed(looks, &gone);
        if self.begun && !self.unreadable && held_reports == self.held_reports && gone.is_empty() && fresh.is_empty() {
            return None;
        }
        self.held_reports = held_reports;
        self.unreadable = false;

        let mut concerned = Concerned::new();
        let mut recalled = BTreeMap::new();
        let mut files: BTreeSet<PathBuf> = BTreeSet::new();
        for path in gone.iter().chain(fresh.keys()) {
            files.insert(path.clone());
            self.withdraw(path, &mut concerned);
        }
        for (path, (content, stamp)) in fresh {
            // Needs what is in force of the file: what an earlier process had, too.
            if matches!(&content, Ok(text) if text.is_empty()) && !self.earlier.is_empty() {
                recalled.extend(self.recall());
            }
            let mut parsed = self.read(&path, &content, visit);
            let is_doubtful = |parsed: &ParsedFile| {
                !parsed.faults.is_empty() || parsed.objects.iter().any(|object| object.object.is_none())
            };
            if !self.earlier.is_empty() && is_doubtful(&parsed) {
                recalled.extend(self.recall());
            }
            self.take_in(path, content, stamp, &mut parsed, &mut concerned);
        }
        for key in recalled.into_keys().chain(std::mem::take(&mut self.without_file)) {
            concerned.entry(key).or_default();
        }
        self.earlier = Vec::new();

        let mut settled = settle(&mut self.table, &mut self.files, concerned, self.begun);
        settled.files.extend(files);
        self.say(&settled);
        if self.saves_objects {
            let saves = settled.saves(&self.table, &self.files);
            self.saves.update(saves);
        }
        // Deletions first: an address that moves from one pod to another is free before it is
        // taken.
        let changes: Vec<ObjectChange> = settled.gone.into_iter().chain(settled.applied).collect();
        let of_files = self.files.values().flat_map(|file| &file.reports);
        let reports = self.held_reports.iter().chain(of_files).cloned().collect();
        self.tell(changes, reports)
    }

    /// The files to be read again: those with another content, and those whose objects are needed
    /// because what counted before them is read again or gone.
    fn changed(
        &mut self,
        looks: BTreeMap<PathBuf, FileLook>,
        gone: &[PathBuf],
    ) -> BTreeMap<PathBuf, (FileContent, Option<FileStamp>)> {
        let mut fresh = BTreeMap::new();
        let mut same = BTreeMap::new();
        for (path, look) in looks {
            let FileLook::Read { content, stamp } = look else {
                continue;
            };
            let known = self.files.get_mut(&path);
            match known.filter(|file| file.content.as_ref() == Some(&ContentId::of(&content))) {
                Some(file) => {
                    file.stamp = stamp;
                    same.insert(path, (content, stamp));
                }
                None => drop(fresh.insert(path, (content, stamp))),
            }
        }
        let withdrawn = gone.iter().chain(fresh.keys());
        let names = withdrawn
            .filter_map(|path| self.files.get(path))
            .flat_map(HeldFile::names);
        let definers = names
            .map(|name| self.table.definers(name))
            .filter(|files| files.len() > 1);
        let others: BTreeSet<&PathBuf> = definers.flatten().map(Arc::as_ref).collect();
        let needed: Vec<_> = others.into_iter().filter_map(|path| same.remove_entry(path)).collect();
        fresh.extend(needed);
        fresh
    }

    /// A file is gone, or about to be read again.
    fn withdraw(&mut self, path: &Path, concerned: &mut Concerned) {
        let Some(file) = self.files.remove(path) else { return };
        for name in file.names() {
            self.table.undefine(name, path);
            concerned.entry(name.to_key()).or_default();
        }
    }

    /// A file was read.
    fn take_in(
        &mut self,
        path: PathBuf,
        content: FileContent,
        stamp: Option<FileStamp>,
        parsed: &mut ParsedFile,
        concerned: &mut Concerned,
    ) {
        let file = Arc::new(path.clone());
        for object in parsed.objects.iter_mut().filter_map(|said| said.object.as_mut()) {
            self.interner.share(object);
        }
        let held = HeldFile::new(Arc::clone(&file), content, stamp, parsed);
        for (place, said) in parsed.objects.drain(..).enumerate() {
            let Some(key) = said.key else { continue };
            // Of two definitions in one file, the first counts.
            let known = concerned.get(&key).and_then(|fresh| fresh.last());
            if known.is_none_or(|last| last.file != file) {
                self.table.define(&key, &file);
                concerned.entry(key).or_default().push(FreshDefinition {
                    file: Arc::clone(&file),
                    place,
                    source: said.source,
                });
            }
        }
        self.files.insert(path, held);
    }

    /// Remakes what is said of the files that were concerned.
    fn say(&mut self, settled: &Settled) {
        for path in &settled.files {
            if let Some(file) = self.files.get_mut(path) {
                file.kept.sort();
                file.reports = reports(file, &self.table, self.scope, &self.node);
            }
        }
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
        self.tell(Vec::new(), reports)
    }

    /// `kind namespace/name` of the objects that Namegate has no use for.
    pub fn foreign(&self) -> BTreeSet<&str> {
        self.files
            .values()
            .flat_map(|file| file.foreign.iter().map(String::as_str))
            .collect()
    }

    /// How many objects are in force.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether nothing is in force.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn read(&self, path: &Path, content: &FileContent, visit: &mut DocumentVisitor<'_>) -> ParsedFile {
        let fault_only = |code, reason| ParsedFile {
            faults: vec![fault(code, reason)],
            ..ParsedFile::default()
        };
        match content {
            Err(reason) => fault_only("unreadable-file", format!("the file cannot be read: {reason}")),
            // A file of no bytes is what a crash or a full disk leaves behind, or an editor about
            // to write; a file that is meant to say nothing is deleted, or says so in a comment.
            Ok(text) if text.is_empty() && self.table.is_holder(path) => {
                let reason = "the file is empty, and its objects stay in force; delete it to remove them";
                fault_only("empty-file", reason.into())
            }
            Ok(text) => read_documents(text, &mut |document, said| visit(path, document, said)),
        }
    }

    fn tell(&mut self, changes: Vec<ObjectChange>, reports: Vec<ReadReport>) -> Option<Update> {
        let are_same = *reports == *self.reports;
        if !are_same {
            self.reports = reports.into();
        }
        let is_news = !self.begun || !changes.is_empty() || !are_same;
        self.begun = true;
        is_news.then(|| Update {
            changes,
            reports: Arc::clone(&self.reports),
            ..Update::default()
        })
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
mod model_tests;
#[cfg(test)]
mod tests;
