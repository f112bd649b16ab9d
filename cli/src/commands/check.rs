//! `namegate check`: reports what an agent would find in these files, without an agent.
//!
//! `cluster::check` collects the findings. `plain` and `graphical` print them, each with its
//! `excerpt`; `github` and `sarif` print them for what shows them beside the code.

mod excerpt;
mod findings;
mod github;
mod graphical;
mod plain;
mod sarif;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use cluster::catalogue::FileContent;
use cluster::check::CheckedFiles;
use cluster::tree;
use thiserror::Error;

use crate::VerbOutcome;
use crate::terminal::TerminalStyle;

use super::to_json;

/// Checks files of policies and other objects, and says what the agent would not enforce
///
/// Reads the files as `namegate agent --objects` does, and prints what is wrong with them and what
/// is probably not meant, field by field. In a directory what is no object is passed over: the
/// values and templates of charts, and what kustomize reads. Everything is taken as one cluster:
/// policies are compared with each other and with the Pods, Services and Nodes beside them. What
/// each finding means: docs/policies.md and docs/lints.md.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exits with 0 when nothing is an error, with 1 otherwise; with --strict, warnings and what is not
enforced count as errors.

Examples:
  namegate check policies/
  namegate check --strict -o json policy.yaml
  namegate check -o github policies/     # in a workflow: findings beside the lines
  kubectl get pods,services,nodes,networkpolicies -A -o yaml | namegate check -")]
pub(crate) struct Args {
    /// Files, directories (read as --objects is), or `-` for standard input
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// How to print. The table is drawn on a terminal, and plain lines elsewhere
    #[arg(short, long, value_enum, default_value = "table")]
    output: CheckFormat,
    /// Let warnings and what is not enforced fail the check
    #[arg(long)]
    strict: bool,
}

/// The values of `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CheckFormat {
    /// For people.
    Table,
    /// JSON, for programs.
    Json,
    /// Annotations of a GitHub Actions workflow.
    Github,
    /// SARIF 2.1.0, for code scanning.
    Sarif,
}

/// A path cannot be read.
#[derive(Debug, Error)]
#[error("cannot read {}: {error}", path.display())]
pub(crate) struct CheckError {
    path: PathBuf,
    error: io::Error,
}

/// Runs the verb.
pub(crate) fn run(args: &Args, style: TerminalStyle) -> crate::Result {
    let mut contents = BTreeMap::new();
    // Files met in a directory: among them, what is no object is passed over. A file that was named
    // is always checked.
    let mut walked = BTreeSet::new();
    for path in &args.paths {
        let files = read_path(path).map_err(|error| CheckError {
            path: path.clone(),
            error,
        })?;
        if path.is_dir() {
            walked.extend(files.keys().cloned());
        }
        contents.extend(files);
    }
    let checked = CheckedFiles::of_repository(contents, &walked);
    crate::print(&match args.output {
        CheckFormat::Table if is_for_a_terminal() => graphical::render(&checked, style),
        CheckFormat::Table => plain::render(&checked),
        CheckFormat::Json => to_json(&checked.reports)?,
        CheckFormat::Github => github::render(&checked),
        CheckFormat::Sarif => to_json(&sarif::log(&checked, crate::VERSION))?,
    })?;
    Ok(match checked.passes(args.strict) {
        true => VerbOutcome::Positive,
        false => VerbOutcome::Negative,
    })
}

fn is_for_a_terminal() -> bool {
    io::stdout().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
}

fn read_path(path: &Path) -> io::Result<BTreeMap<PathBuf, FileContent>> {
    if path == Path::new("-") {
        // Up to twice MAX_TEXT, so that a text over the limit is refused for its length and not for
        // being cut off.
        let limit = 2 * policy::document::MAX_TEXT as u64;
        let mut text = String::new();
        io::stdin().take(limit).read_to_string(&mut text)?;
        return Ok(BTreeMap::from([("<stdin>".into(), Ok(text))]));
    }
    if path.is_dir() {
        return tree::read_tree(path, &mut |_| {});
    }
    Ok(BTreeMap::from([(path.to_owned(), Ok(tree::read_file(path)?))]))
}
