//! The kernel's word that something below a directory has changed: inotify(7).
//!
//! Each directory is watched just before it is read, so that no change falls between the two.
//! Opening and reading are not watched: our own reading would wake us, and thousands of files would
//! fill the kernel's queue with it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use tokio::io::unix::AsyncFd;

use super::catalogue::FileLook;
use super::file_stamp::FileStamp;
use super::readiness::register;
use super::tree::look_at_tree;

/// What may change what is read: contents, names, permissions, and the directory itself.
const IN_TREE: WatchFlags = WatchFlags::MODIFY
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);
/// What may replace the directory in its parent.
const IN_PARENT: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ONLYDIR);
/// Room for some dozens of events; one has at most 16 + 256 bytes.
const BUFFER: usize = 8 * 1024;

/// A directory that is read again and again, and watched in between.
#[derive(Debug)]
pub(super) struct WatchedDirectory {
    directory: PathBuf,
    /// `None` where the kernel grants no instance (`fs.inotify.max_user_instances`).
    inotify: Option<Arc<AsyncFd<OwnedFd>>>,
    /// The name of the directory in its parent, and the watch on that.
    in_parent: Option<(Vec<u8>, i32)>,
    /// The watches on the directories that were read last.
    tree: BTreeSet<i32>,
    trouble: Option<String>,
}

/// What one reading found.
struct WatchedTree {
    files: io::Result<BTreeMap<PathBuf, FileLook>>,
    tree: BTreeSet<i32>,
    trouble: Option<String>,
}

impl WatchedDirectory {
    /// Watches nothing yet. Must be called inside a tokio runtime.
    pub(super) fn new(directory: &Path) -> Self {
        let instance = || register(inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?);
        let (inotify, trouble) = match instance() {
            Ok(inotify) => (Some(Arc::new(inotify)), None),
            Err(error) => (None, Some(format!("the kernel grants no inotify instance: {error}"))),
        };
        Self {
            directory: directory.to_owned(),
            inotify,
            in_parent: None,
            tree: BTreeSet::new(),
            trouble,
        }
    }

    /// Looks at the files, and watches from before that on. Those whose stamps are `known` and
    /// still the same are not read.
    pub(super) async fn look(
        &mut self,
        known: BTreeMap<PathBuf, FileStamp>,
    ) -> io::Result<BTreeMap<PathBuf, FileLook>> {
        self.watch_parent();
        let (directory, inotify) = (self.directory.clone(), self.inotify.clone());
        let reading = tokio::task::spawn_blocking(move || look(&directory, inotify.as_deref(), &known))
            .await
            // The task is not cancelled; it could only have panicked, and it does not.
            .map_err(io::Error::other)?;
        if let Some(inotify) = &self.inotify {
            // Directories that are no longer part of the tree, but still exist somewhere.
            let parent = self.in_parent.as_ref().map(|(_, watch)| *watch);
            for stale in self.tree.difference(&reading.tree).filter(|it| Some(**it) != parent) {
                // Fails for a directory that is gone, whose watch the kernel has removed.
                let _ = inotify::remove_watch(inotify.get_ref(), *stale);
            }
            self.trouble = reading.trouble;
        }
        self.tree = reading.tree;
        reading.files
    }

    /// Whether every change will be told by [`changed`](Self::changed).
    pub(super) fn is_whole(&self) -> bool {
        self.trouble.is_none() && !self.tree.is_empty()
    }

    /// Why it is not whole, although the directory is there.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Waits until something may have changed since the last reading. Can be cancelled without
    /// losing anything that a reading would not find.
    pub(super) async fn changed(&self) {
        let Some(inotify) = &self.inotify else {
            return std::future::pending().await;
        };
        loop {
            let Ok(mut ready) = inotify.readable().await else {
                // The runtime is shutting down.
                return std::future::pending().await;
            };
            let matters = self.drain(inotify.get_ref());
            ready.clear_ready();
            if matters {
                return;
            }
        }
    }

    /// Takes all events; whether any of them matters.
    fn drain(&self, inotify: &OwnedFd) -> bool {
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut events = Reader::new(inotify, &mut buffer);
        let mut matters = false;
        // Ends with EAGAIN. Any other error leaves the rescan.
        while let Ok(event) = events.next() {
            let lost = event.events().contains(ReadFlags::QUEUE_OVERFLOW);
            let own_name = || match (&self.in_parent, event.file_name()) {
                (Some((name, watch)), Some(changed)) => *watch == event.wd() && name == changed.to_bytes(),
                _ => false,
            };
            matters |= lost || self.tree.contains(&event.wd()) || own_name();
        }
        matters
    }

    /// A comfort: without it, a directory that is replaced is found by the rescan.
    fn watch_parent(&mut self) {
        let path = std::path::absolute(&self.directory).ok();
        self.in_parent = self.inotify.as_ref().zip(path).and_then(|(inotify, path)| {
            let name = path.file_name()?.to_owned().into_vec();
            let watch = inotify::add_watch(inotify.get_ref(), path.parent()?.as_os_str().as_bytes(), IN_PARENT).ok()?;
            Some((name, watch))
        });
    }
}

fn look(directory: &Path, inotify: Option<&AsyncFd<OwnedFd>>, known: &BTreeMap<PathBuf, FileStamp>) -> WatchedTree {
    let mut tree = BTreeSet::new();
    let mut trouble = None;
    let mut entering = |path: &Path| {
        let Some(inotify) = inotify else { return };
        match inotify::add_watch(inotify.get_ref(), path.as_os_str().as_bytes(), IN_TREE) {
            Ok(watch) => drop(tree.insert(watch)),
            // ENOSPC: fs.inotify.max_user_watches.
            Err(error) => trouble = Some(format!("cannot watch {}: {error}", path.display())),
        }
    };
    let files = look_at_tree(directory, &mut entering, known);
    WatchedTree { files, tree, trouble }
}
