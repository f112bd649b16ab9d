//! Files' contents over time → updates. Pure: it is given contents and returns what changed.
//!
//! What must hold:
//! - An object stays in force until it is *known* to be gone. A file that cannot be read, or in which some document cannot be told,
//!   keeps every object that it held; an object that is refused keeps its last good version.
//! - One object, one definition: the first path that defines it wins, whether its version is good or not, so that what is
//!   in force does not depend on mistakes elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use policy::{Diagnostic, Severity};

use super::reading::{FileReading, Reading, read_file};
use super::{Change, Object, ObjectKey, Report, ReportState, Update};

/// The content of one file, or why there is none.
pub type Content = Result<String, String>;

/// What the files hold now, and what is in force.
#[derive(Debug, Default)]
pub struct Catalogue {
    /// What each file says, kept so that an unchanged file is not read again.
    files: BTreeMap<PathBuf, (Content, FileReading)>,
    in_force: BTreeMap<ObjectKey, Held>,
    reports: Vec<Report>,
    /// Whether the first update, which is complete even when it is empty, was given.
    begun: bool,
    /// Whether the files as a whole could not be read the last time.
    unreadable: bool,
}

/// An object in force, and the file that it came from.
#[derive(Debug, Clone, PartialEq)]
struct Held {
    file: PathBuf,
    object: Object,
}

impl Catalogue {
    /// Takes the contents of all files and says what changed; `None` when nothing did.
    pub fn scan(&mut self, contents: BTreeMap<PathBuf, Content>) -> Option<Update> {
        let before = self.files.iter().map(|(path, (content, _))| (path, content));
        if self.begun && !self.unreadable && before.eq(&contents) {
            return None;
        }
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
        let Settlement { next, reports, .. } = settled;
        self.replace(next, reports)
    }

    /// The files as a whole cannot be read: everything stays as it was, and `reason` is reported.
    ///
    /// Says nothing before the first scan: an update without the objects would stand for a cluster without any.
    pub fn unreadable(&mut self, directory: &Path, reason: String) -> Option<Update> {
        if !self.begun {
            return None;
        }
        self.unreadable = true;
        let trouble = Report::new(
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

    fn read(&self, path: &Path, content: &Content) -> FileReading {
        let fault_only = |code, reason| FileReading {
            faults: vec![fault(code, reason)],
            ..FileReading::default()
        };
        match content {
            Err(reason) => fault_only("unreadable-file", format!("the file cannot be read: {reason}")),
            // A file of no bytes is what a crash or a full disk leaves behind, or an editor about to write; a file that
            // is meant to say nothing is deleted, or says so in a comment.
            Ok(text) if text.is_empty() && self.in_force.values().any(|held| held.file == path) => {
                let reason = "the file is empty, and its objects stay in force; delete it to remove them";
                fault_only("empty-file", reason.into())
            }
            Ok(text) => read_file(text),
        }
    }

    fn replace(&mut self, next: BTreeMap<ObjectKey, Held>, reports: Vec<Report>) -> Option<Update> {
        let gone = self.in_force.keys().filter(|key| !next.contains_key(*key));
        let applied = next.iter().filter(|(key, held)| {
            self.in_force
                .get(*key)
                .is_none_or(|before| before.object != held.object)
        });
        // Deletions first: an address that moves from one pod to another is free before it is taken.
        let changes: Vec<Change> = gone
            .map(|key| Change::Delete(key.clone()))
            .chain(applied.map(|(_, held)| Change::Apply(held.object.clone())))
            .collect();
        let news = !self.begun || !changes.is_empty() || reports != self.reports;
        self.begun = true;
        self.in_force = next;
        self.reports.clone_from(&reports);
        news.then_some(Update { changes, reports })
    }
}

/// What is in force after a scan, under way.
struct Settlement<'a> {
    /// The definition that counts: the file and the place in it.
    definitions: BTreeMap<&'a ObjectKey, (&'a Path, usize)>,
    before: &'a BTreeMap<ObjectKey, Held>,
    next: BTreeMap<ObjectKey, Held>,
    reports: Vec<Report>,
}

impl<'a> Settlement<'a> {
    fn new(files: &'a BTreeMap<PathBuf, (Content, FileReading)>, before: &'a BTreeMap<ObjectKey, Held>) -> Self {
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
        let state = match kept.is_empty() {
            true => ReportState::Rejected,
            false => ReportState::KeptLastGood,
        };
        self.report(path, String::new(), state, faults.to_vec());
        for (key, held) in kept {
            self.next.insert(key.clone(), held.clone());
            self.report(path, key.to_string(), ReportState::KeptLastGood, Vec::new());
        }
    }

    fn settle(&mut self, path: &Path, index: usize, reading: &Reading) {
        let mut state = reading.state();
        let mut diagnostics = reading.diagnostics.clone();
        if let Some(key) = &reading.key {
            let (first, first_index) = self.definitions.get(key).copied().unwrap_or((path, index));
            if (first, first_index) != (path, index) {
                state = ReportState::Rejected;
                diagnostics = vec![duplicate(first, path)];
            } else if let Some(object) = &reading.object {
                let held = Held {
                    file: path.to_owned(),
                    object: object.clone(),
                };
                self.next.insert(key.clone(), held);
            } else if let Some(held) = self.before.get(key) {
                state = ReportState::KeptLastGood;
                let held = Held {
                    file: path.to_owned(),
                    object: held.object.clone(),
                };
                self.next.insert(key.clone(), held);
            }
        }
        self.report(path, reading.label.clone(), state, diagnostics);
    }

    fn report(&mut self, path: &Path, object: String, state: ReportState, diagnostics: Vec<Diagnostic>) {
        self.reports.push(Report::new(Some(path), object, state, diagnostics));
    }
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
mod tests {
    use super::*;

    /// A pod that is told apart by one label.
    fn pod(name: &str, version: &str) -> String {
        format!("---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{v: '{version}'}}}}\n")
    }

    const BAD_POD: &str = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: a}\nstatus: {podIP: nowhere}\n";
    const NOT_YAML: &str = "kind: [\n";

    /// Scans files given as (path, text) and shows the update as words, for example `+a=1 -b` and `a:accepted`.
    fn scan(catalogue: &mut Catalogue, files: &[(&str, &str)]) -> Option<(String, String)> {
        let contents = files
            .iter()
            .map(|(path, text)| (PathBuf::from(path), Ok((*text).to_owned())))
            .collect();
        catalogue.scan(contents).map(words)
    }

    fn words(update: Update) -> (String, String) {
        let name = |text: &str| text.rsplit('/').next().unwrap().to_owned();
        let changes = update.changes.iter().map(|change| match change {
            Change::Apply(Object::Pod(pod)) => format!(
                "+{}={}",
                pod.metadata.name.as_deref().unwrap(),
                pod.metadata.labels.as_ref().map_or("", |labels| &labels["v"])
            ),
            Change::Apply(other) => panic!("{other:?}"),
            Change::Delete(key) => format!("-{}", name(&key.to_string())),
        });
        let reports = update
            .reports
            .iter()
            .map(|it| format!("{}:{}", name(&it.object), it.state.as_str()));
        (
            changes.collect::<Vec<_>>().join(" "),
            reports.collect::<Vec<_>>().join(" "),
        )
    }

    fn said(changes: &str, reports: &str) -> Option<(String, String)> {
        Some((changes.into(), reports.into()))
    }

    #[test]
    fn the_first_update_comes_even_when_there_is_nothing() {
        let mut catalogue = Catalogue::default();
        assert_eq!(scan(&mut catalogue, &[]), said("", ""));
        assert_eq!(scan(&mut catalogue, &[]), None);
    }

    #[test]
    fn objects_come_change_and_go_with_their_files() {
        let mut catalogue = Catalogue::default();
        let (a1, a2, b) = (pod("a", "1"), pod("a", "2"), pod("b", "1"));
        let both = a1.clone() + &b;
        assert_eq!(
            scan(&mut catalogue, &[("x", &both)]),
            said("+a=1 +b=1", "a:accepted b:accepted")
        );
        assert_eq!(scan(&mut catalogue, &[("x", &both)]), None);
        assert_eq!(
            scan(&mut catalogue, &[("x", &a2), ("y", &b)]),
            said("+a=2", "a:accepted b:accepted")
        );
        assert_eq!(scan(&mut catalogue, &[("y", &b)]), said("-a", "b:accepted"));
        // A comment only: meant, not broken.
        assert_eq!(scan(&mut catalogue, &[("y", "# none\n")]), said("-b", ""));
    }

    #[test]
    fn a_file_that_is_not_yaml_keeps_all_that_it_held() {
        let mut catalogue = Catalogue::default();
        let (a, b, c) = (pod("a", "1"), pod("b", "1"), pod("c", "1"));
        scan(&mut catalogue, &[("x", &(a.clone() + &b)), ("y", &c)]);
        assert_eq!(
            scan(&mut catalogue, &[("x", NOT_YAML)]),
            said("-c", ":kept-last-good a:kept-last-good b:kept-last-good")
        );
        // Repaired, with one object fewer: now that is known.
        assert_eq!(scan(&mut catalogue, &[("x", &b)]), said("-a", "b:accepted"));
        let mut fresh = Catalogue::default();
        assert_eq!(scan(&mut fresh, &[("x", NOT_YAML)]), said("", ":rejected"));
    }

    #[test]
    fn a_document_that_cannot_be_told_keeps_what_is_missing_and_takes_what_is_there() {
        let mut catalogue = Catalogue::default();
        scan(&mut catalogue, &[("x", &(pod("a", "1") + &pod("b", "1")))]);
        // `b` lost its name.
        let text = pod("a", "2") + "---\napiVersion: v1\nkind: Pod\nmetadata: {}\n";
        assert_eq!(
            scan(&mut catalogue, &[("x", &text)]),
            said("+a=2", ":kept-last-good b:kept-last-good a:accepted")
        );
    }

    #[test]
    fn an_object_moved_out_of_a_broken_file_is_taken_where_it_is_defined() {
        let mut catalogue = Catalogue::default();
        scan(&mut catalogue, &[("x", &pod("a", "1"))]);
        assert_eq!(
            scan(&mut catalogue, &[("x", NOT_YAML), ("y", &pod("a", "2"))]),
            said("+a=2", ":rejected a:accepted")
        );
    }

    #[test]
    fn an_object_that_is_refused_keeps_its_own_last_good_version() {
        let mut catalogue = Catalogue::default();
        scan(&mut catalogue, &[("x", &(pod("a", "1") + &pod("b", "1")))]);
        let text = BAD_POD.to_owned() + &pod("b", "2");
        assert_eq!(
            scan(&mut catalogue, &[("x", &text)]),
            said("+b=2", "a:kept-last-good b:accepted")
        );
        // Still kept when the file moves, and forgotten when it is gone.
        assert_eq!(scan(&mut catalogue, &[("z", BAD_POD)]), said("-b", "a:kept-last-good"));
        assert_eq!(scan(&mut catalogue, &[]), said("-a", ""));
        assert_eq!(scan(&mut catalogue, &[("x", BAD_POD)]), said("", "a:rejected"));
    }

    #[test]
    fn of_two_definitions_the_first_path_counts_and_the_other_is_reported() {
        let mut catalogue = Catalogue::default();
        let files = [("x", pod("a", "1")), ("y", pod("a", "2"))];
        let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
        assert_eq!(scan(&mut catalogue, &files), said("+a=1", "a:accepted a:rejected"));
        assert!(catalogue.reports[1].diagnostics[0].reason.contains("in x"));
        // A mistake in the first does not put the second in force.
        assert_eq!(
            scan(&mut catalogue, &[("x", BAD_POD), ("y", &pod("a", "2"))]),
            said("", "a:kept-last-good a:rejected")
        );
        // When the first is gone, the second is the first.
        assert_eq!(scan(&mut catalogue, &files[1..]), said("+a=2", "a:accepted"));
        let twice = pod("b", "1") + &pod("b", "2");
        assert_eq!(
            scan(&mut Catalogue::default(), &[("x", &twice)]),
            said("+b=1", "b:accepted b:rejected")
        );
    }

    #[test]
    fn a_file_that_cannot_be_read_or_was_emptied_keeps_what_it_held() {
        let mut catalogue = Catalogue::default();
        scan(&mut catalogue, &[("x", &pod("a", "1"))]);
        let kept = said("", ":kept-last-good a:kept-last-good");
        assert_eq!(scan(&mut catalogue, &[("x", "")]), kept);
        let unreadable = BTreeMap::from([(PathBuf::from("x"), Err("permission denied".into()))]);
        assert_eq!(catalogue.scan(unreadable).map(words), kept);
        assert!(catalogue.reports[0].diagnostics[0].reason.contains("permission denied"));
        assert_eq!(scan(&mut catalogue, &[("x", &pod("a", "1"))]), said("", "a:accepted"));
        // A new file of no bytes held nothing.
        assert_eq!(scan(&mut Catalogue::default(), &[("x", "")]), said("", ""));
    }

    #[test]
    fn a_missing_directory_keeps_everything_and_is_reported_once() {
        let mut catalogue = Catalogue::default();
        let a = pod("a", "1");
        scan(&mut catalogue, &[("d/x", &a)]);
        let gone = |catalogue: &mut Catalogue| catalogue.unreadable(Path::new("d"), "it is gone".into()).map(words);
        assert_eq!(gone(&mut catalogue), said("", ":kept-last-good a:accepted"));
        assert_eq!(gone(&mut catalogue), None);
        assert_eq!(scan(&mut catalogue, &[("d/x", &a)]), said("", "a:accepted"));
    }

    #[test]
    fn deletions_stand_before_what_is_applied() {
        let mut catalogue = Catalogue::default();
        scan(&mut catalogue, &[("x", &pod("b", "1"))]);
        assert_eq!(
            scan(&mut catalogue, &[("x", &pod("a", "1"))]),
            said("-b +a=1", "a:accepted")
        );
    }
}
