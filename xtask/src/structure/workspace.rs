//! The crates of the workspace, as cargo knows them, and the files that git knows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, TargetKind};

use super::error::{StructureError, read};
use super::modules::ModuleTree;

/// A member of the workspace.
pub(crate) struct WorkspaceCrate {
    /// Where it is, from the root of the workspace: `dns-proxy`. This names it in every report.
    pub(crate) directory: String,
    /// The directories of the members that its product depends on.
    pub(crate) dependencies: Vec<String>,
    /// The root files of its library and its programs.
    pub(crate) roots: Vec<PathBuf>,
}

/// How long a crate is.
#[derive(Default)]
pub(crate) struct CrateLines {
    pub(crate) source: usize,
    pub(crate) tests: usize,
}

impl WorkspaceCrate {
    /// Counts lines. What no library or program is built from is a test, and so are benchmarks and
    /// examples.
    pub(crate) fn lines(
        &self,
        root: &Path,
        trees: &[(&WorkspaceCrate, ModuleTree)],
    ) -> Result<CrateLines, StructureError> {
        let mut source_lines = BTreeMap::new();
        for (_, tree) in trees.iter().filter(|(member, _)| member.directory == self.directory) {
            for file in tree.files() {
                source_lines.insert(file.path.clone(), file.source_lines);
            }
        }
        let nested: Vec<&str> = trees
            .iter()
            .map(|(member, _)| member.directory.as_str())
            .filter(|other| other.starts_with(&format!("{}/", self.directory)))
            .collect();
        let mut lines = CrateLines::default();
        for file in tracked_files(root, "rs")? {
            if !file.starts_with(&self.directory) || nested.iter().any(|crate_| file.starts_with(crate_)) {
                continue;
            }
            let source = source_lines.get(&file).copied().unwrap_or(0);
            lines.source += source;
            lines.tests += read(&root.join(&file))?.lines().count() - source;
        }
        Ok(lines)
    }
}

/// The root of the workspace and its members, in the order of their directories.
pub(crate) fn read_workspace() -> Result<(PathBuf, Vec<WorkspaceCrate>), StructureError> {
    let metadata = MetadataCommand::new().no_deps().exec()?;
    let directories = directories(&metadata);
    let mut crates: Vec<WorkspaceCrate> = metadata
        .workspace_packages()
        .into_iter()
        .map(|package| {
            let dependencies: BTreeSet<String> = package
                .dependencies
                .iter()
                .filter(|dependency| dependency.kind == DependencyKind::Normal && dependency.path.is_some())
                .filter_map(|dependency| directories.get(dependency.name.as_str()).cloned())
                .collect();
            WorkspaceCrate {
                directory: directories[package.name.as_str()].clone(),
                dependencies: dependencies.into_iter().collect(),
                roots: package
                    .targets
                    .iter()
                    .filter(|target| {
                        [TargetKind::Lib, TargetKind::Bin]
                            .iter()
                            .any(|kind| target.kind.contains(kind))
                    })
                    .map(|target| target.src_path.clone().into_std_path_buf())
                    .collect(),
            }
        })
        .collect();
    crates.sort_by(|one, other| one.directory.cmp(&other.directory));
    Ok((metadata.workspace_root.into_std_path_buf(), crates))
}

/// The directory of each member, by the name of its package.
fn directories(metadata: &Metadata) -> BTreeMap<String, String> {
    metadata
        .workspace_packages()
        .into_iter()
        .map(|package| {
            let directory = package
                .manifest_path
                .parent()
                .and_then(|directory| directory.strip_prefix(&metadata.workspace_root).ok())
                .map_or_else(String::new, ToString::to_string);
            (package.name.to_string(), directory)
        })
        .collect()
}

/// The files with this ending that git knows or would add, from the root of the workspace.
pub(crate) fn tracked_files(root: &Path, ending: &str) -> Result<Vec<PathBuf>, StructureError> {
    let listed = Command::new("git")
        .arg("-C")
        .arg(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--"])
        .arg(format!("*.{ending}"))
        .output()
        .map_err(|error| StructureError::ListFiles(error.to_string()))?;
    if !listed.status.success() {
        let why = String::from_utf8_lossy(&listed.stderr).trim().to_owned();
        return Err(StructureError::ListFiles(why));
    }
    let files: BTreeSet<PathBuf> = String::from_utf8_lossy(&listed.stdout)
        .split_terminator('\0')
        .map(PathBuf::from)
        // A file that was deleted and not yet committed is still listed.
        .filter(|file| root.join(file).exists())
        .collect();
    Ok(files.into_iter().collect())
}

/// The Rust files that have more lines than `limit`, the longest first.
pub(crate) fn long_files(root: &Path, limit: usize) -> Result<Vec<(PathBuf, usize)>, StructureError> {
    let mut long = Vec::new();
    for file in tracked_files(root, "rs")? {
        let lines = read(&root.join(&file))?.lines().count();
        if lines > limit {
            long.push((file, lines));
        }
    }
    long.sort_by_key(|(_, lines)| std::cmp::Reverse(*lines));
    Ok(long)
}
