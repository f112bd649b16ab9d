//! Why the structure could not be read.

use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub(crate) enum StructureError {
    #[error("cargo metadata: {0}")]
    Metadata(#[from] cargo_metadata::Error),
    #[error("git ls-files: {0}")]
    ListFiles(String),
    #[error("{}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("{}:{}: {error}", path.display(), error.span().start().line)]
    Parse { path: PathBuf, error: syn::Error },
    #[error("{}: module {name} has no file", path.display())]
    NoModuleFile { path: PathBuf, name: String },
}

/// The text of a file.
pub(crate) fn read(path: &Path) -> Result<String, StructureError> {
    std::fs::read_to_string(path).map_err(|error| StructureError::Read {
        path: path.to_owned(),
        error,
    })
}
