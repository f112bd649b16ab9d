//! `namegate check`: what the agent would say of these files, without an agent.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use policy::{Diagnostic, Severity};
use thiserror::Error;

use crate::cli::{self, Outcome};
use crate::objects::catalogue::{Catalogue, Content};
use crate::objects::{Report, ReportState, tree};

use super::table::printable;
use super::{Output, to_json};

/// Checks files of policies and other objects, and says what the agent would not enforce
///
/// Reads the files as `namegate agent --objects` does, and prints what is wrong with them, field by field. Everything is
/// taken as one cluster: an object that two files define is reported.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exits with 0 when nothing is an error, with 1 otherwise; with --strict, warnings and what is not
enforced count as errors.

Examples:
  namegate check policies/
  namegate check --strict -o json policy.yaml
  kubectl get ciliumnetworkpolicies,networkpolicies -A -o yaml | namegate check -")]
pub struct Args {
    /// Files, directories (read as --objects is), or `-` for standard input
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    /// Let warnings and what is not enforced fail the check
    #[arg(long)]
    strict: bool,
}

/// Why nothing was checked.
#[derive(Debug, Error)]
#[error("cannot read {}: {error}", path.display())]
pub struct CheckError {
    path: PathBuf,
    error: io::Error,
}

/// Runs the verb.
pub fn run(args: &Args) -> cli::Result {
    let mut contents = BTreeMap::new();
    for path in &args.paths {
        contents.extend(read(path).map_err(|error| CheckError {
            path: path.clone(),
            error,
        })?);
    }
    let checked = Checked::new(contents);
    cli::print(&match args.output {
        Output::Table => checked.render(),
        Output::Json => to_json(&checked.reports)?,
    })?;
    Ok(match checked.passes(args.strict) {
        true => Outcome::Positive,
        false => Outcome::Negative,
    })
}

fn read(path: &Path) -> io::Result<BTreeMap<PathBuf, Content>> {
    if path == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text)?;
        return Ok(BTreeMap::from([("<stdin>".into(), Ok(text))]));
    }
    if path.is_dir() {
        return tree::read_tree(path, &mut |_| {});
    }
    Ok(BTreeMap::from([(path.to_owned(), Ok(tree::read_file(path)?))]))
}

/// The result of a check.
struct Checked {
    contents: BTreeMap<PathBuf, Content>,
    reports: Vec<Report>,
    /// Objects that Namegate has no use for.
    foreign: usize,
}

impl Checked {
    fn new(contents: BTreeMap<PathBuf, Content>) -> Self {
        let mut catalogue = Catalogue::default();
        // The first scan always gives an update.
        let update = catalogue.scan(contents.clone()).unwrap_or_default();
        Self {
            contents,
            reports: update.reports,
            foreign: catalogue.foreign().len(),
        }
    }

    fn passes(&self, strict: bool) -> bool {
        !self.reports.iter().any(|report| match report.worst() {
            Some(Severity::Error) => true,
            Some(Severity::Warning | Severity::Unenforced) => strict,
            None => false,
        })
    }

    fn render(&self) -> String {
        let mut text = String::new();
        for report in &self.reports {
            for diagnostic in &report.diagnostics {
                // Writing to a String does not fail.
                let _ = writeln!(text, "{}", printable(report.headline(diagnostic)));
                text += &self.excerpt(report, diagnostic);
                if let Some(suggestion) = &diagnostic.suggestion {
                    let _ = writeln!(text, "  help: {}", printable(suggestion.clone()));
                }
            }
        }
        if !text.is_empty() {
            text += "\n";
        }
        text + &self.summary()
    }

    /// The line of the file, with a caret under the column.
    fn excerpt(&self, report: &Report, diagnostic: &Diagnostic) -> String {
        let line = || {
            let Ok(text) = self.contents.get(report.file.as_ref()?)?.as_ref() else {
                return None;
            };
            let at = diagnostic.position?;
            Some((at, text.lines().nth(at.line.checked_sub(1)?)?))
        };
        let Some((at, line)) = line() else {
            return String::new();
        };
        // Tabs are kept under the line, so that the caret stands where it should.
        let indent: String = line
            .chars()
            .take(at.column.saturating_sub(1))
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        let shown: String = line.chars().filter(|c| !c.is_control() || *c == '\t').collect();
        let number = at.line.to_string();
        let gutter = " ".repeat(number.len());
        format!("  {number} | {shown}\n  {gutter} | {indent}^\n")
    }

    fn summary(&self) -> String {
        let objects = self.reports.iter().filter(|it| !it.object.is_empty());
        let (objects, policies) = objects.fold((0, 0), |(objects, policies), report| {
            (objects + 1, policies + usize::from(report.is_policy()))
        });
        let found = |severity| {
            self.reports
                .iter()
                .flat_map(|it| &it.diagnostics)
                .filter(|it| it.severity == severity)
                .count()
        };
        let rejected = self
            .reports
            .iter()
            .filter(|it| it.state == ReportState::Rejected)
            .count();
        let mut text = format!(
            "{} read: {}, {} of them policies; {}, {}, {} not enforced",
            counted(self.contents.len(), "file"),
            counted(objects, "object"),
            policies,
            counted(found(Severity::Error), "error"),
            counted(found(Severity::Warning), "warning"),
            found(Severity::Unenforced),
        );
        if rejected > 0 {
            let _ = write!(text, "; {rejected} rejected");
        }
        if self.foreign > 0 {
            let _ = write!(text, "; {} of other kinds ignored", self.foreign);
        }
        text + "\n"
    }
}

fn counted(count: usize, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}
