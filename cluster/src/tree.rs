//! Reading a directory's files.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::catalogue::{FileContent, FileLook};
use super::file_stamp::{FileId, FileStamp};

/// A policy file is some kilobytes; etcd takes objects up to 1.5 MiB.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// Directories below the one that is read. Links can make a tree endless.
const MAX_DEPTH: usize = 16;

/// Reads all `*.yaml`, `*.yml` and `*.json` files below a directory, by path. What vanishes while
/// it is read is left out.
///
/// Entries whose names begin with a dot are left out: editors' temporary files, `.git`, and the
/// `..data` directories of ConfigMap mounts, whose files are read through the links beside them.
/// `entering` is told each directory before it is read.
pub fn read_tree(directory: &Path, entering: &mut dyn FnMut(&Path)) -> io::Result<BTreeMap<PathBuf, FileContent>> {
    let looks = look_at_tree(directory, entering, &BTreeMap::new())?;
    let contents = looks.into_iter().filter_map(|(path, look)| match look {
        FileLook::Read { content, .. } => Some((path, content)),
        // Not reached: no stamp is known.
        FileLook::Unchanged => None,
    });
    Ok(contents.collect())
}

/// As [`read_tree`], without reading the files again whose stamps are `known` and still the same.
pub(crate) fn look_at_tree(
    directory: &Path,
    entering: &mut dyn FnMut(&Path),
    known: &BTreeMap<PathBuf, FileStamp>,
) -> io::Result<BTreeMap<PathBuf, FileLook>> {
    let mut files = BTreeMap::new();
    look_below(directory, entering, known, &mut Vec::new(), &mut files)?;
    Ok(files)
}

/// Reads one file, whatever its name.
pub fn read_file(path: &Path) -> io::Result<String> {
    read_and_stamp(path).map(|(text, _)| text)
}

/// The text of a file, and its stamp where that is to be believed.
// Stamps are in the file system's time, which is the wall clock's.
#[allow(clippy::disallowed_methods)]
fn read_and_stamp(path: &Path) -> io::Result<(String, Option<FileStamp>)> {
    // Without O_NONBLOCK, opening a FIFO would wait for a writer. Regular files do not mind it.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut file = File::options().read(true).custom_flags(nonblocking).open(path)?;
    let now = SystemTime::now();
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    // Sized for the file and one read more that finds its end; not by what a hostile size claims.
    let mut text = String::with_capacity(usize::try_from(metadata.len().min(MAX_FILE_BYTES)).unwrap_or(0) + 1);
    (&mut file).take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        let limit = MAX_FILE_BYTES / 1024 / 1024;
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {limit} MiB"),
        ));
    }
    // What was written meanwhile may be in the text or not.
    let stamp = FileStamp::of(&metadata, now);
    let after = FileStamp::unsettled(&file.metadata()?);
    Ok((text, stamp.filter(|stamp| *stamp == after)))
}

/// Looks at one file: reads it unless its stamp is the `known` one.
fn look_at_file(path: &Path, known: Option<&FileStamp>) -> io::Result<FileLook> {
    if let Some(known) = known
        && FileStamp::unsettled(&fs::metadata(path)?) == *known
    {
        return Ok(FileLook::Unchanged);
    }
    let (text, stamp) = read_and_stamp(path)?;
    Ok(FileLook::Read {
        content: Ok(text),
        stamp,
    })
}

/// `above` are the directories on the way here, so that a link to one of them is not followed for
/// ever.
fn look_below(
    directory: &Path,
    entering: &mut dyn FnMut(&Path),
    known: &BTreeMap<PathBuf, FileStamp>,
    above: &mut Vec<FileId>,
    files: &mut BTreeMap<PathBuf, FileLook>,
) -> io::Result<()> {
    let id = FileId::of(&fs::metadata(directory)?);
    if above.contains(&id) || above.len() > MAX_DEPTH {
        return Ok(());
    }
    entering(directory);
    above.push(id);
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        // The entry knows most kinds without asking the file system; links are followed.
        let is_directory = match entry.file_type() {
            Ok(kind) if kind.is_symlink() => path.is_dir(),
            Ok(kind) => kind.is_dir(),
            Err(_) => false,
        };
        let look = if is_directory {
            look_below(&path, entering, known, above, files).map(|()| None)
        } else if is_object_file(&path) {
            look_at_file(&path, known.get(&path)).map(Some)
        } else {
            continue;
        };
        match look {
            Ok(Some(look)) => drop(files.insert(path, look)),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let content = Err(error.to_string());
                files.insert(path, FileLook::Read { content, stamp: None });
            }
        }
    }
    above.pop();
    Ok(())
}

fn is_object_file(path: &Path) -> bool {
    let extension = path.extension().and_then(|it| it.to_str());
    matches!(extension, Some("yaml" | "yml" | "json"))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    fn read(directory: &Path) -> BTreeMap<PathBuf, FileContent> {
        read_tree(directory, &mut |_| {}).unwrap()
    }

    fn names(files: &BTreeMap<PathBuf, FileContent>, directory: &Path) -> Vec<String> {
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
        let files = read(dir.path());
        assert_eq!(names(&files, dir.path()), ["b/c/a.yml", "b/x.json", "z.yaml"]);
    }

    #[test]
    fn links_that_lead_in_circles_or_nowhere_do_no_harm() {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/a.yaml"), "").unwrap();
        symlink("..", dir.path().join("sub/up")).unwrap();
        symlink("nowhere.yaml", dir.path().join("gone.yaml")).unwrap();
        let files = read(dir.path());
        assert_eq!(names(&files, dir.path()), ["sub/a.yaml"]);
    }

    #[test]
    fn what_is_no_text_or_no_regular_file_is_an_error_of_its_own() {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("binary.yaml"), b"\xff\xfe").unwrap();
        fs::write(dir.path().join("good.yaml"), "kind: x").unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            dir.path().join("pipe.yaml"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        let files = read(dir.path());
        let states: Vec<bool> = files.values().map(Result::is_ok).collect();
        assert_eq!(names(&files, dir.path()), ["binary.yaml", "good.yaml", "pipe.yaml"]);
        assert_eq!(states, [false, true, false]);
    }

    #[test]
    fn a_file_comes_whole_and_a_huge_one_is_refused() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("a");
        for size in [0, 1, 4096, 100_000] {
            fs::write(&path, "x".repeat(size)).unwrap();
            assert_eq!(read_file(&path).unwrap().len(), size);
        }
        File::create(&path).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
        assert_eq!(read_file(&path).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    /// Looks twice, with a change in between. Whether the second look reads the file.
    fn is_read_again(change: impl FnOnce(&Path)) -> bool {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("a.yaml");
        fs::write(&path, "kind: x").unwrap();
        let stamp = FileStamp::unsettled(&fs::metadata(&path).unwrap());
        let known = BTreeMap::from([(path.clone(), stamp)]);
        change(&path);
        let looks = look_at_tree(dir.path(), &mut |_| {}, &known).unwrap();
        matches!(looks[&path], FileLook::Read { .. })
    }

    #[test]
    fn a_file_is_read_again_when_its_stamp_differs() {
        assert!(!is_read_again(|_| {}));
        assert!(is_read_again(|path| fs::write(path, "kind: longer").unwrap()));
        assert!(is_read_again(|path| {
            // The same size, and the time set back: a rename shows in the inode.
            let modified = fs::metadata(path).unwrap().modified().unwrap();
            let beside = path.with_extension("new");
            fs::write(&beside, "kind: y").unwrap();
            File::open(&beside).unwrap().set_modified(modified).unwrap();
            fs::rename(&beside, path).unwrap();
        }));
        assert!(is_read_again(|path| {
            let target = path.with_extension("target");
            fs::write(&target, "kind: z").unwrap();
            fs::remove_file(path).unwrap();
            symlink(&target, path).unwrap();
        }));
    }

    #[test]
    fn the_stamp_of_a_file_that_was_just_written_is_not_believed() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("a.yaml");
        fs::write(&path, "kind: x").unwrap();
        // The change time cannot be set: what was written now is new, whatever it says.
        let long_ago = SystemTime::now() - std::time::Duration::from_secs(3600);
        File::open(&path).unwrap().set_modified(long_ago).unwrap();
        let looks = look_at_tree(dir.path(), &mut |_| {}, &BTreeMap::new()).unwrap();
        assert!(matches!(looks[&path], FileLook::Read { stamp: None, .. }));
    }

    #[test]
    fn each_directory_is_told_before_it_is_read() {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        let mut told = Vec::new();
        let files = read_tree(dir.path(), &mut |path| {
            told.push(path.to_owned());
            fs::write(path.join("late.yaml"), "").unwrap();
        });
        assert_eq!(told, [dir.path().to_owned(), dir.path().join("sub")]);
        assert_eq!(names(&files.unwrap(), dir.path()), ["late.yaml", "sub/late.yaml"]);
    }
}
