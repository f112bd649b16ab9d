//! The source that reads a directory and watches it: a directory of YAML files is a cluster too.
//!
//! Watching only says *when* to look; what changed is found by reading the files again
//! ([`Catalogue`] makes that cheap). So a missed or a spurious event does no harm, and a slow rescan bounds what a missed one costs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use policy::Severity;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{Level, debug, error, info, warn};

use super::catalogue::{Catalogue, Content};
use super::{ReportState, Source, Update};

/// How long the files must be quiet before they are read: editors and `kubectl`-like tools write in several steps.
const QUIET: Duration = Duration::from_millis(50);
/// How long a steady stream of events can put reading off.
const PATIENCE: Duration = Duration::from_millis(150);
/// The safety net under the watch: files that are links to elsewhere change without an event.
const RESCAN: Duration = Duration::from_secs(10);
/// The same where there is no watch, because the directory is missing or the kernel grants no more watches.
const RESCAN_UNWATCHED: Duration = Duration::from_millis(500);
/// A policy file is some kilobytes; etcd takes objects up to 1.5 MiB.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// Directories below the one watched. Links can make a tree endless.
const MAX_DEPTH: usize = 16;

/// A directory of `*.yaml`, `*.yml` and `*.json` files, read recursively. Entries whose names begin with a dot are left out:
/// editors' temporary files, `.git`, and the `..data` directories of ConfigMap mounts, whose files are read through the links beside them.
#[derive(Debug, Clone)]
pub struct DirectorySource {
    /// Which.
    pub directory: PathBuf,
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

impl Source for DirectorySource {
    type Error = DirectoryError;

    async fn run(self, updates: mpsc::Sender<Update>) -> Result<(), DirectoryError> {
        let directory = self.directory;
        let unreadable = |error| DirectoryError::Unreadable {
            directory: directory.clone(),
            error,
        };
        let (wake, mut woken) = mpsc::channel(1);
        let mut watch = Watch::default();
        // Watched before it is read, so that no change falls between the two.
        watch.renew(&directory, &wake);
        let files = read_elsewhere(&directory).await.map_err(unreadable)?;
        let mut catalogue = Catalogue::default();
        let mut journal = Journal::default();
        let mut update = catalogue.scan(files);
        loop {
            if let Some(update) = update.take() {
                journal.write(&update, &catalogue);
                if updates.send(update).await.is_err() {
                    return Ok(());
                }
            }
            let pause = if watch.is_whole() { RESCAN } else { RESCAN_UNWATCHED };
            tokio::select! {
                // `wake` lives as long as this function, so this is never `None`.
                _ = woken.recv() => settle(&mut woken).await,
                () = sleep(pause) => {}
                () = updates.closed() => return Ok(()),
            }
            watch.renew(&directory, &wake);
            update = match read_elsewhere(&directory).await {
                Ok(files) => catalogue.scan(files),
                Err(error) => {
                    let reason = format!("the directory cannot be read ({error}); what it held stays in force");
                    catalogue.unreadable(&directory, reason)
                }
            };
        }
    }
}

/// Waits until events stop coming, or patience ends.
async fn settle(woken: &mut mpsc::Receiver<()>) {
    let end = Instant::now() + PATIENCE;
    while let Ok(Some(())) = timeout_at(end.min(Instant::now() + QUIET), woken.recv()).await {
        if Instant::now() >= end {
            return;
        }
    }
}

async fn read_elsewhere(directory: &Path) -> io::Result<BTreeMap<PathBuf, Content>> {
    let directory = directory.to_owned();
    tokio::task::spawn_blocking(move || read_tree(&directory))
        .await
        // The task is not cancelled; it could only have panicked, and it does not.
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// Reads all files of a directory, by path. What vanishes while it is read is left out.
pub fn read_tree(directory: &Path) -> io::Result<BTreeMap<PathBuf, Content>> {
    let mut files = BTreeMap::new();
    read_below(directory, &mut Vec::new(), &mut files)?;
    Ok(files)
}

/// Reads one file, whatever its name.
pub fn read_file(path: &Path) -> io::Result<String> {
    // Opening a FIFO would wait for a writer.
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut text = String::new();
    fs::File::open(path)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        let limit = MAX_FILE_BYTES / 1024 / 1024;
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {limit} MiB"),
        ));
    }
    Ok(text)
}

/// `above` are the directories on the way here, so that a link to one of them is not followed for ever.
fn read_below(directory: &Path, above: &mut Vec<Identity>, files: &mut BTreeMap<PathBuf, Content>) -> io::Result<()> {
    let identity = Identity::of(&fs::metadata(directory)?);
    if above.contains(&identity) || above.len() > MAX_DEPTH {
        return Ok(());
    }
    above.push(identity);
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        // Follows links: in a ConfigMap mount every file is one.
        let read = match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => read_below(&path, above, files).map(|()| None),
            Ok(_) if is_object_file(&path) => read_file(&path).map(Some),
            Ok(_) => continue,
            Err(error) if is_object_file(&path) => Err(error),
            Err(_) => continue,
        };
        match read {
            Ok(Some(text)) => drop(files.insert(path, Ok(text))),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => drop(files.insert(path, Err(error.to_string()))),
        }
    }
    above.pop();
    Ok(())
}

fn is_object_file(path: &Path) -> bool {
    let extension = path.extension().and_then(|it| it.to_str());
    matches!(extension, Some("yaml" | "yml" | "json"))
}

/// Which directory a path leads to at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// The kernel's watch on the directory, and on its parent: that tells when the directory itself is replaced.
#[derive(Debug, Default)]
struct Watch {
    /// Dropping it ends the watch.
    watcher: Option<RecommendedWatcher>,
    /// What is watched. The path may lead elsewhere by now.
    watched: Option<Identity>,
    /// The last trouble, so that it is logged once.
    trouble: Option<String>,
}

impl Watch {
    /// Watches the directory that the path leads to now, if that is not watched yet.
    fn renew(&mut self, directory: &Path, wake: &mpsc::Sender<()>) {
        let now = fs::metadata(directory).ok().map(|it| Identity::of(&it));
        if self.watcher.is_some() && self.watched == now {
            return;
        }
        self.watcher = None;
        self.watched = None;
        match watch(directory, now.is_some(), wake.clone()) {
            Ok(watcher) => {
                self.watcher = Some(watcher);
                self.watched = now;
                self.trouble = None;
            }
            Err(error) => {
                let trouble = error.to_string();
                if self.trouble.as_ref() != Some(&trouble) {
                    warn!(directory = %directory.display(), "cannot watch the directory, reading it every {RESCAN_UNWATCHED:?} instead: {trouble}");
                }
                self.trouble = Some(trouble);
            }
        }
    }

    fn is_whole(&self) -> bool {
        self.watched.is_some()
    }
}

fn watch(directory: &Path, exists: bool, wake: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let own_path = std::path::absolute(directory)?;
    let parent = own_path.parent().map(Path::to_owned);
    let watched_parent = parent.clone();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let matters = match &event {
            // The parent's other children are no business of ours.
            Ok(event) => {
                is_change(event.kind) && event.paths.iter().any(|path| path.starts_with(&own_path))
                    || event.need_rescan()
            }
            Err(_) => true,
        };
        if matters {
            // Full means that a wake-up is waiting already.
            let _ = wake.try_send(());
        }
    })?;
    if exists {
        watcher.watch(&std::path::absolute(directory)?, RecursiveMode::Recursive)?;
    }
    // The parent is a comfort: without it a directory that is replaced is found by the rescan.
    if let Some(parent) = watched_parent
        && let Err(error) = watcher.watch(&parent, RecursiveMode::NonRecursive)
    {
        debug!(parent = %parent.display(), "cannot watch the parent: {error}");
    }
    Ok(watcher)
}

/// Whether contents or names may have changed. Our own reading makes events too (open, close), and must not wake us.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

/// What was logged, so that each thing is logged once as long as it stands.
#[derive(Debug, Default)]
struct Journal {
    lines: BTreeSet<(Level, String)>,
}

impl Journal {
    fn write(&mut self, update: &Update, catalogue: &Catalogue) {
        let mut lines = BTreeSet::new();
        for report in &update.reports {
            for diagnostic in &report.diagnostics {
                let level = match diagnostic.severity {
                    Severity::Error => Level::ERROR,
                    Severity::Unenforced | Severity::Warning => Level::WARN,
                };
                lines.insert((level, report.headline(diagnostic)));
            }
            if report.state == ReportState::KeptLastGood && !report.object.is_empty() {
                let line = format!("{} is refused now; its last good version stays in force", report.object);
                lines.insert((Level::ERROR, line));
            }
        }
        for object in catalogue.foreign() {
            lines.insert((
                Level::INFO,
                format!("{object} is ignored: it says nothing about egress"),
            ));
        }
        for (level, line) in lines.difference(&self.lines) {
            match *level {
                Level::ERROR => error!("{line}"),
                Level::WARN => warn!("{line}"),
                _ => info!("{line}"),
            }
        }
        self.lines = lines;
        info!(
            changes = update.changes.len(),
            objects = catalogue.len(),
            "objects were read"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;
    use tokio::task::JoinHandle;

    use super::super::{Change, ObjectKey, Report};
    use super::*;

    fn pod(name: &str) -> String {
        format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n")
    }

    fn names(files: &BTreeMap<PathBuf, Content>, directory: &Path) -> Vec<String> {
        let name = |path: &PathBuf| path.strip_prefix(directory).unwrap().display().to_string();
        files.keys().map(name).collect()
    }

    #[test]
    fn a_tree_is_read_by_path_without_hidden_files_and_other_extensions() {
        let dir = TempDir::new().unwrap();
        fs::create_dir_all(dir.path().join("b/c")).unwrap();
        fs::create_dir_all(dir.path().join(".git")).unwrap();
        for file in [
            "z.yaml",
            "b/c/a.yml",
            "b/x.json",
            "README.md",
            ".z.yaml.swp",
            ".hidden.yaml",
            "z.yaml~",
            ".git/a.yaml",
        ] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        let files = read_tree(dir.path()).unwrap();
        assert_eq!(names(&files, dir.path()), ["b/c/a.yml", "b/x.json", "z.yaml"]);
    }

    #[test]
    fn links_that_lead_in_circles_or_nowhere_do_no_harm() {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/a.yaml"), "").unwrap();
        symlink("..", dir.path().join("sub/up")).unwrap();
        symlink("nowhere.yaml", dir.path().join("gone.yaml")).unwrap();
        let files = read_tree(dir.path()).unwrap();
        assert_eq!(names(&files, dir.path()), ["sub/a.yaml"]);
    }

    #[test]
    fn what_is_no_text_or_no_regular_file_is_an_error_of_its_own() {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("binary.yaml"), b"\xff\xfe").unwrap();
        fs::write(dir.path().join("good.yaml"), pod("a")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            dir.path().join("pipe.yaml"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        let files = read_tree(dir.path()).unwrap();
        let states: Vec<bool> = files.values().map(Result::is_ok).collect();
        assert_eq!(names(&files, dir.path()), ["binary.yaml", "good.yaml", "pipe.yaml"]);
        assert_eq!(states, [false, true, false]);
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
            };
            Self {
                updates,
                _task: tokio::spawn(source.run(sender)),
                present: BTreeSet::new(),
            }
        }

        /// Applies updates until exactly these pods are present. The limit is far above what it takes, and far below the
        /// slow rescan: only an event can have brought it about.
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
                        Change::Apply(super::super::Object::Pod(pod)) => {
                            self.present.insert(pod.metadata.name.unwrap());
                        }
                        Change::Delete(ObjectKey::Pod(_, name)) => {
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
                let said = |it: &Report| it.diagnostics.iter().any(|it| it.reason.contains(text));
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
            }
            .run(sender),
        );
        drop(updates);
        task.await.unwrap().unwrap();
    }
}
