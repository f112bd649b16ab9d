//! `namegate man`: the manual pages, which packages ship.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::VerbOutcome;

/// Writes the manual pages, one for each verb
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  namegate man /usr/local/share/man/man1")]
pub(crate) struct Args {
    /// Where to; it is made if it is missing
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// A page cannot be written.
#[derive(Debug, Error)]
#[error("cannot write manual pages into {}: {error}", path.display())]
pub(crate) struct ManWriteError {
    path: PathBuf,
    error: io::Error,
}

/// Runs the verb.
pub(crate) fn run(args: &Args) -> crate::Result {
    write(&args.directory)?;
    Ok(VerbOutcome::Positive)
}

fn write(directory: &Path) -> Result<(), ManWriteError> {
    let failed = |error| ManWriteError {
        path: directory.to_owned(),
        error,
    };
    fs::create_dir_all(directory).map_err(failed)?;
    clap_mangen::generate_to(crate::command(), directory).map_err(failed)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn each_verb_has_a_page_with_its_flags_and_examples() {
        let dir = TempDir::new().unwrap();
        let directory = dir.path().join("man1");
        write(&directory).unwrap();
        let page = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
        assert!(
            page("namegate.1").contains("namegate\\-observe(1)"),
            "{}",
            page("namegate.1")
        );
        let observe = page("namegate-observe.1");
        assert!(
            observe.contains("\\fBnamegate observe\\fR") && observe.contains("to\\-fqdn"),
            "{observe}"
        );
        assert!(page("namegate-agent.1").contains("fail\\-mode"));
        let verbs = crate::command()
            .get_subcommands()
            .filter(|verb| !verb.is_hide_set())
            .count();
        assert_eq!(fs::read_dir(&directory).unwrap().count(), verbs + 1);
    }
}
