//! The source that reads a directory and watches it: a directory of YAML files is a cluster too.
//!
//! Watching only says *when* to look; what changed is found by reading the files again
//! ([`Catalogue`] makes that cheap). So a missed or a spurious event does no harm, and a slow
//! rescan bounds what a missed one costs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use state_dir::StateDir;
use thiserror::Error;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{Level, error, info, warn};

use crate::object::Update;
use crate::source::ObjectSource;

use super::catalogue::{Catalogue, FileLook, SavedObjects, ScanContext};
use super::file_stamp::FileId;
use super::inotify::WatchedDirectory;
use super::last_good_snapshot::{LastGoodSnapshot, SaveOutcome};
use super::log_dedup::{LogDedup, report_lines};

/// How long the files must be quiet before they are read: editors and configuration tools write in
/// several steps.
const QUIET: Duration = Duration::from_millis(50);
/// How long a steady stream of events can put reading off.
const PATIENCE: Duration = Duration::from_millis(150);
/// The safety net under the watch: files that are links to elsewhere change without an event.
const RESCAN: Duration = Duration::from_secs(10);
/// The same where the watch is not whole.
const RESCAN_UNWATCHED: Duration = Duration::from_secs(1);

/// Writing the snapshot takes a share of the time that no number of objects can exceed.
const SAVE_SHARE: u32 = 50;

/// A directory of YAML and JSON files, read as [`tree`](super::tree) says.
#[derive(Debug, Clone)]
pub struct DirectorySource {
    /// Which.
    pub directory: PathBuf,
    /// The agent's node.
    pub node: String,
    /// `--state-dir`, where last good versions are kept for the next process; without one they end
    /// with this one.
    pub state_dir: Option<StateDir>,
    /// Has it read again at once.
    pub reread: Arc<Notify>,
}

/// Why a directory is no source.
#[derive(Debug, Error)]
pub enum DirectoryError {
    /// It cannot be read at the start. Later that is reported, and what was read stays in force.
    #[error("cannot read the directory {}: {error}; check the path given to --objects", directory.display())]
    Unreadable {
        /// Which.
        directory: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl ObjectSource for DirectorySource {
    type Error = DirectoryError;

    async fn run(self, updates: mpsc::Sender<Update>) -> Result<(), DirectoryError> {
        let directory = self.directory;
        let unreadable = |error| DirectoryError::Unreadable {
            directory: directory.clone(),
            error,
        };
        let mut watched = WatchedDirectory::new(&directory);
        let snapshot = self
            .state_dir
            .map(|state_dir| LastGoodSnapshot::new(&state_dir, &directory));
        let earlier = snapshot.as_ref().map(LastGoodSnapshot::restore).unwrap_or_default();
        let mut catalogue = Catalogue::of_agent(&self.node, earlier, snapshot.is_some());
        let mut saving = LastGoodWriter::new(snapshot);
        let mut log = DirectoryLog::default();
        let mut last_directory = LastDirectory::default();
        let looks = watched.look(catalogue.stamps()).await.map_err(unreadable)?;
        let context = last_directory.scan_context(&directory, &looks);
        let mut update = catalogue.scan_with_confirmation(looks, context);
        loop {
            log.write_failure(watched.trouble());
            if let Some(update) = update.take() {
                log.write(&update, &catalogue);
                if updates.send(update).await.is_err() {
                    return Ok(());
                }
            }
            // After the update is on its way: what is to be enforced does not wait for the disk.
            saving.takes(catalogue.take_saves());
            let pause = if watched.is_whole() { RESCAN } else { RESCAN_UNWATCHED };
            let again = Instant::now() + pause;
            let again = catalogue
                .confirm_at()
                .map_or(again, |confirm_at| again.min(confirm_at.into()));
            loop {
                tokio::select! {
                    () = watched.changed() => settle(&watched).await,
                    () = self.reread.notified() => {}
                    () = sleep_until(again) => {}
                    outcome = saving.proceed() => {
                        if outcome == SaveOutcome::Done {
                            continue;
                        }
                        catalogue.read_all_again();
                    }
                    () = updates.closed() => {
                        saving.finish().await;
                        return Ok(());
                    }
                }
                break;
            }
            update = match watched.look(catalogue.stamps()).await {
                Ok(looks) => {
                    let context = last_directory.scan_context(&directory, &looks);
                    catalogue.scan_with_confirmation(looks, context)
                }
                Err(error) => {
                    let reason = format!("the directory cannot be read ({error}); what it held stays in force");
                    catalogue.unreadable(&directory, reason)
                }
            };
        }
    }
}

/// The directory in which files were seen last. Its path may lead to another one at any time.
#[derive(Debug, Default)]
struct LastDirectory(Option<FileId>);

impl LastDirectory {
    fn scan_context(&mut self, directory: &Path, looks: &BTreeMap<PathBuf, FileLook>) -> ScanContext {
        let now = fs::metadata(directory).ok().as_ref().map(FileId::of);
        let is_same = now.is_some() && now == self.0;
        if !looks.is_empty() {
            self.0 = now;
        }
        ScanContext {
            at: Instant::now().into_std(),
            is_same,
        }
    }
}

/// How many objects say nothing about egress, by kind, with the name of one.
fn ignored(foreign: &BTreeSet<&str>) -> Option<String> {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for object in foreign {
        *kinds.entry(object.split(' ').next().unwrap_or_default()).or_default() += 1;
    }
    match foreign.len() {
        0 => None,
        1 => foreign
            .first()
            .map(|object| format!("{object} is ignored: it says nothing about egress")),
        all => {
            let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
            Some(format!(
                "{all} objects are ignored that say nothing about egress: {}",
                kinds.join(", ")
            ))
        }
    }
}

/// Writes the snapshot in the background, away from the threads that serve lookups.
struct LastGoodWriter {
    /// `None` without a state directory, and while it is being written.
    snapshot: Option<LastGoodSnapshot>,
    pending: SavedObjects,
    /// Not before.
    earliest: Instant,
    writing: Option<JoinHandle<(LastGoodSnapshot, SaveOutcome, Duration)>>,
}

impl LastGoodWriter {
    fn new(snapshot: Option<LastGoodSnapshot>) -> Self {
        Self {
            snapshot,
            pending: SavedObjects::default(),
            earliest: Instant::now(),
            writing: None,
        }
    }

    fn takes(&mut self, changed: SavedObjects) {
        self.pending.update(changed);
        // What failed is tried again with every look.
        if self.pending.is_empty() && self.snapshot.as_ref().is_some_and(LastGoodSnapshot::has_failed) {
            self.write();
        }
    }

    /// The next step, when it is time for one. Can be dropped at any time and called again.
    async fn proceed(&mut self) -> SaveOutcome {
        if self.writing.is_none() {
            if self.pending.is_empty() || self.snapshot.is_none() {
                return std::future::pending().await;
            }
            sleep_until(self.earliest).await;
            self.write();
        }
        let Some(writing) = &mut self.writing else {
            return std::future::pending().await;
        };
        let written = writing.await;
        self.writing = None;
        // The task could only have panicked, and it does not.
        let Ok((snapshot, outcome, took)) = written else {
            return SaveOutcome::Done;
        };
        self.snapshot = Some(snapshot);
        self.earliest = Instant::now() + took * SAVE_SHARE;
        outcome
    }

    /// Writes what is pending, whatever it costs.
    async fn finish(&mut self) {
        self.earliest = Instant::now();
        while self.writing.is_some() || self.snapshot.is_some() && !self.pending.is_empty() {
            self.proceed().await;
            self.earliest = Instant::now();
        }
    }

    fn write(&mut self) {
        let Some(mut snapshot) = self.snapshot.take() else {
            return;
        };
        let changed = std::mem::take(&mut self.pending);
        self.writing = Some(tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            let outcome = snapshot.save(changed);
            (snapshot, outcome, began.elapsed())
        }));
    }
}

/// Waits until changes stop coming, or patience ends.
async fn settle(watched: &WatchedDirectory) {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if timeout_at(end.min(Instant::now() + QUIET), watched.changed())
            .await
            .is_err()
        {
            return;
        }
    }
}

/// What of the source is logged.
#[derive(Debug, Default)]
struct DirectoryLog {
    findings: LogDedup,
    failures: LogDedup,
}

impl DirectoryLog {
    fn write_failure(&mut self, failure: Option<&str>) {
        let line = |failure| format!("the objects are not watched but read every {RESCAN_UNWATCHED:?}: {failure}");
        let lines = failure.into_iter().map(|failure| (Level::WARN, line(failure)));
        for (_, line) in self.failures.replace(lines.collect()) {
            warn!("{line}");
        }
    }

    fn write(&mut self, update: &Update, catalogue: &Catalogue) {
        let mut lines = report_lines(&update.reports);
        lines.extend(ignored(&catalogue.foreign()).map(|line| (Level::INFO, line)));
        for (level, line) in self.findings.replace(lines) {
            match level {
                Level::ERROR => error!("{line}"),
                Level::WARN => warn!("{line}"),
                _ => info!("{line}"),
            }
        }
        info!(
            changes = update.changes.len(),
            objects = catalogue.len(),
            "objects were read"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use tempfile::TempDir;

    use crate::object::{ObjectChange, ObjectKey};
    use crate::report::ReadReport;

    use super::*;

    fn pod(name: &str) -> String {
        format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n")
    }

    /// A source under test, over a real directory and the real inotify.
    struct Running {
        updates: mpsc::Receiver<Update>,
        _task: JoinHandle<Result<(), DirectoryError>>,
        present: BTreeSet<String>,
    }

    impl Running {
        fn start(directory: &Path) -> Self {
            let (sender, updates) = mpsc::channel(16);
            let source = DirectorySource {
                directory: directory.to_owned(),
                node: "here".into(),
                state_dir: None,
                reread: Arc::default(),
            };
            Self {
                updates,
                _task: tokio::spawn(source.run(sender)),
                present: BTreeSet::new(),
            }
        }

        /// Applies updates until exactly these pods are present. The limit is far above what it
        /// takes, and far below the slow rescan: only an event can have brought it about.
        async fn until(&mut self, pods: &[&str]) {
            let wanted: BTreeSet<String> = pods.iter().map(|it| (*it).to_owned()).collect();
            let end = Instant::now() + RESCAN / 2;
            loop {
                let update = timeout_at(end, self.updates.recv())
                    .await
                    .unwrap_or_else(|_| panic!("{:?} instead of {wanted:?}", self.present))
                    .unwrap();
                for change in update.changes {
                    match change {
                        ObjectChange::Apply(crate::object::Object::Pod(pod)) => {
                            self.present.insert(pod.name.to_string());
                        }
                        ObjectChange::Delete(ObjectKey::Pod(_, name)) => {
                            self.present.remove(&name);
                        }
                        other => panic!("{other:?}"),
                    }
                }
                if self.present == wanted {
                    return;
                }
            }
        }

        async fn until_reported(&mut self, text: &str) {
            let end = Instant::now() + RESCAN / 2;
            loop {
                let update = timeout_at(end, self.updates.recv()).await.unwrap().unwrap();
                let said = |it: &ReadReport| it.diagnostics.iter().any(|it| it.reason.contains(text));
                if update.reports.iter().any(said) {
                    return;
                }
            }
        }
    }

    #[tokio::test]
    async fn edits_renames_and_new_subdirectories_are_seen() {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("a.yaml"), pod("a")).unwrap();
        let mut source = Running::start(dir.path());
        source.until(&["a"]).await;
        fs::write(dir.path().join("b.yaml"), pod("b")).unwrap();
        source.until(&["a", "b"]).await;
        // As editors and configuration tools write: beside it, then renamed over it.
        fs::write(dir.path().join(".b.yaml.tmp"), pod("c")).unwrap();
        fs::rename(dir.path().join(".b.yaml.tmp"), dir.path().join("b.yaml")).unwrap();
        source.until(&["a", "c"]).await;
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/d.yaml"), pod("d")).unwrap();
        source.until(&["a", "c", "d"]).await;
        fs::write(dir.path().join("sub/d.yaml"), pod("e")).unwrap();
        source.until(&["a", "c", "e"]).await;
        fs::remove_file(dir.path().join("a.yaml")).unwrap();
        source.until(&["c", "e"]).await;
    }

    #[tokio::test]
    async fn a_rewrite_within_the_same_second_that_keeps_size_and_time_is_seen() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("a.yaml");
        fs::write(&path, pod("a")).unwrap();
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let mut source = Running::start(dir.path());
        source.until(&["a"]).await;
        for name in ["b", "c", "d"] {
            fs::write(&path, pod(name)).unwrap();
            fs::File::open(&path).unwrap().set_modified(modified).unwrap();
            source.until(&[name]).await;
        }
    }

    /// How often files of a directory were opened, by their names, since the last call.
    fn opened(inotify: &rustix::fd::OwnedFd) -> BTreeMap<String, usize> {
        use rustix::fs::inotify::Reader;
        let mut buffer = [std::mem::MaybeUninit::uninit(); 8 * 1024];
        let mut events = Reader::new(inotify, &mut buffer);
        let mut opened = BTreeMap::new();
        while let Ok(event) = events.next() {
            if let Some(name) = event.file_name() {
                *opened.entry(name.to_string_lossy().into_owned()).or_default() += 1;
            }
        }
        opened
    }

    #[tokio::test]
    async fn an_edit_reads_the_file_that_was_edited_and_no_other() {
        use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("same.yaml"), pod("same")).unwrap();
        fs::write(dir.path().join("edited.yaml"), pod("x0")).unwrap();
        let mut source = Running::start(dir.path());
        source.until(&["same", "x0"]).await;
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
        inotify::add_watch(&inotify, dir.path(), WatchFlags::OPEN).unwrap();
        // Until the files are old enough that their times are believed, all of them are read.
        let end = Instant::now() + Duration::from_secs(60);
        for edit in 1.. {
            let name = format!("x{edit}");
            fs::rename(dir.path().join("edited.yaml"), dir.path().join("edited.old")).unwrap();
            fs::write(dir.path().join("edited.new"), pod(&name)).unwrap();
            fs::rename(dir.path().join("edited.new"), dir.path().join("edited.yaml")).unwrap();
            opened(&inotify);
            source.until(&["same", &name]).await;
            let opened = opened(&inotify);
            if opened.contains_key("edited.yaml") && !opened.contains_key("same.yaml") {
                return;
            }
            assert!(Instant::now() < end, "{opened:?}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    #[tokio::test]
    async fn a_config_map_mount_is_read_once_and_its_swap_is_seen() {
        let dir = TempDir::new().unwrap();
        let at = |name: &str| dir.path().join(name);
        let publish = |revision: &str, name: &str| {
            fs::create_dir(at(revision)).unwrap();
            fs::write(at(revision).join("pods.yaml"), pod(name)).unwrap();
            symlink(revision, at("..data_tmp")).unwrap();
            fs::rename(at("..data_tmp"), at("..data")).unwrap();
        };
        publish("..1", "a");
        symlink("..data/pods.yaml", at("pods.yaml")).unwrap();
        let mut source = Running::start(dir.path());
        source.until(&["a"]).await;
        publish("..2", "b");
        fs::remove_dir_all(at("..1")).unwrap();
        source.until(&["b"]).await;
    }

    #[tokio::test]
    async fn a_directory_that_is_removed_keeps_its_objects_until_it_is_back() {
        let parent = TempDir::new().unwrap();
        let dir = parent.path().join("objects");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("a.yaml"), pod("a")).unwrap();
        let mut source = Running::start(&dir);
        source.until(&["a"]).await;
        fs::rename(&dir, parent.path().join("aside")).unwrap();
        source.until_reported("the directory cannot be read").await;
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("b.yaml"), pod("b")).unwrap();
        source.until(&["b"]).await;
        // The new directory is watched as the old one was.
        fs::write(dir.join("c.yaml"), pod("c")).unwrap();
        source.until(&["b", "c"]).await;
    }

    fn policy(name: &str) -> String {
        format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}}}\n\
             spec: {{podSelector: {{}}, policyTypes: [Egress]}}\n"
        )
    }

    #[tokio::test]
    async fn an_empty_directory_in_the_place_of_the_objects_takes_nothing_away() {
        let parent = TempDir::new().unwrap();
        let dir = parent.path().join("objects");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("a.yaml"), pod("a")).unwrap();
        fs::write(dir.join("p.yaml"), policy("p")).unwrap();
        let (sender, mut updates) = mpsc::channel(16);
        let source = DirectorySource {
            directory: dir.clone(),
            node: "here".into(),
            state_dir: None,
            reread: Arc::default(),
        };
        let _task = tokio::spawn(source.run(sender));
        assert_eq!(updates.recv().await.unwrap().changes.len(), 2);
        fs::rename(&dir, parent.path().join("aside")).unwrap();
        fs::create_dir(&dir).unwrap();
        let end = Instant::now() + super::super::catalogue::CONFIRMATION * 2;
        let mut said = false;
        while let Ok(Some(update)) = timeout_at(end, updates.recv()).await {
            assert_eq!(update.changes, [], "it is kept, however often it is looked at");
            let codes = update.reports.iter().flat_map(|it| &it.diagnostics).map(|it| it.code);
            said |= codes.into_iter().any(|code| code == "vanished");
        }
        assert!(said);
        // A file says that this is the directory.
        fs::write(dir.join("none.yaml"), "# no objects\n").unwrap();
        let end = Instant::now() + Duration::from_secs(30);
        while timeout_at(end, updates.recv()).await.unwrap().unwrap().changes.len() != 2 {}
    }

    #[tokio::test]
    async fn a_link_to_the_directory_can_be_swapped() {
        let parent = TempDir::new().unwrap();
        for name in ["one", "two"] {
            fs::create_dir(parent.path().join(name)).unwrap();
            fs::write(parent.path().join(name).join("x.yaml"), pod(name)).unwrap();
        }
        let link = parent.path().join("objects");
        symlink("one", &link).unwrap();
        let mut source = Running::start(&link);
        source.until(&["one"]).await;
        symlink("two", parent.path().join("next")).unwrap();
        fs::rename(parent.path().join("next"), &link).unwrap();
        source.until(&["two"]).await;
    }

    #[tokio::test]
    async fn a_directory_that_is_missing_at_the_start_is_an_error_that_says_so() {
        let parent = TempDir::new().unwrap();
        let (sender, _updates) = mpsc::channel(1);
        let source = DirectorySource {
            directory: parent.path().join("absent"),
            node: "here".into(),
            state_dir: None,
            reread: Arc::default(),
        };
        let error = source.run(sender).await.unwrap_err().to_string();
        assert!(error.contains("absent") && error.contains("--objects"), "{error}");
    }

    #[tokio::test]
    async fn it_ends_when_nobody_listens() {
        let dir = TempDir::new().unwrap();
        let (sender, updates) = mpsc::channel(1);
        let task = tokio::spawn(
            DirectorySource {
                directory: dir.path().to_owned(),
                node: "here".into(),
                state_dir: None,
                reread: Arc::default(),
            }
            .run(sender),
        );
        drop(updates);
        task.await.unwrap().unwrap();
    }

    #[test]
    fn ignored_objects_are_counted_by_kind() {
        let foreign: Vec<String> = (0..8_040)
            .map(|n| format!("ConfigMap n/c{n}"))
            .chain(["Secret n/s".into()])
            .collect();
        let foreign: BTreeSet<&str> = foreign.iter().map(String::as_str).collect();
        assert_eq!(
            ignored(&foreign).unwrap(),
            "8041 objects are ignored that say nothing about egress: ConfigMap 8040, Secret 1"
        );
    }
}
