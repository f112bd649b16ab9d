//! What tells whether a file is still the one that was read.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

/// How old the last change of a file must be before its stamp is believed. Times of files are told
/// in steps: of milliseconds in the kernel's own file systems, of up to two seconds in others. What
/// is written within one step may leave the time as it was.
const SETTLED: Duration = Duration::from_secs(3);

/// Which file a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// The state of a file as stat(2) tells it. Two equal ones are of the same content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileStamp {
    id: FileId,
    size: u64,
    /// Seconds and nanoseconds of the last change of the content.
    modified: (i64, i64),
    /// The same of the content or of what the file system keeps about it, which no program can set.
    changed: (i64, i64),
}

impl FileStamp {
    /// The stamp of a file that is looked at `now`; `None` where it changed so shortly before that
    /// another change need not show in it.
    pub(crate) fn of(metadata: &Metadata, now: SystemTime) -> Option<Self> {
        let stamp = Self::unsettled(metadata);
        let last = stamp.modified.max(stamp.changed);
        let last = Duration::new(u64::try_from(last.0).ok()?, u32::try_from(last.1).ok()?);
        let age = now.duration_since(SystemTime::UNIX_EPOCH + last).ok()?;
        (age >= SETTLED).then_some(stamp)
    }

    /// The stamp of a file, whenever it changed: to be held against one that was believed.
    pub(crate) fn unsettled(metadata: &Metadata) -> Self {
        Self {
            id: FileId::of(metadata),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_stamp_is_believed_when_the_last_change_is_long_past() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "one").unwrap();
        let metadata = fs::metadata(&path).unwrap();
        let changed = metadata.modified().unwrap();
        assert_eq!(FileStamp::of(&metadata, changed + SETTLED / 2), None);
        assert_eq!(
            FileStamp::of(&metadata, changed - SETTLED),
            None,
            "its time is not ours"
        );
        let believed = FileStamp::of(&metadata, changed + SETTLED * 2).unwrap();
        assert_eq!(believed, FileStamp::unsettled(&metadata));
        // As tools do that keep the time of what they copy.
        fs::write(&path, "two").unwrap();
        fs::File::open(&path).unwrap().set_modified(changed).unwrap();
        assert_ne!(believed, FileStamp::unsettled(&fs::metadata(&path).unwrap()));
    }
}
