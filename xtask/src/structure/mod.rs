//! `cargo xtask structure`: how the workspace is built, and whether that follows its own rules.
//!
//! The rules: crates depend downwards only (`layers`), files do not import each other in a circle
//! (`circles`), one type name has one meaning (`type_names`), and prose fits into 100 columns
//! (`width`).

mod circles;
mod error;
mod layers;
mod modules;
mod paths;
mod source;
mod type_names;
mod width;
mod workspace;

use std::path::Path;

use error::StructureError;
use modules::ModuleTree;
use workspace::{WorkspaceCrate, read_workspace};

/// A file with more lines probably holds two ideas. It is printed and never refused.
const LONG_FILE: usize = 600;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Fail if a rule is broken, and print only what breaks it.
    #[arg(long)]
    check: bool,
}

/// What breaks a rule, by rule.
struct RuleReport {
    rule: &'static str,
    /// What the reader should do about it.
    remedy: &'static str,
    findings: Vec<String>,
}

/// Returns whether the rules are kept; without `--check` that is always so.
pub(crate) fn run(args: &Args) -> Result<bool, StructureError> {
    let (root, crates) = read_workspace()?;
    let mut trees = Vec::new();
    for member in &crates {
        for target in &member.roots {
            trees.push((member, ModuleTree::read(&root, target)?));
        }
    }
    let reports = [
        RuleReport {
            rule: "arrows between crates that the layers do not have",
            remedy: "depend on a lower crate, or change xtask/src/structure/layers.rs and ARCHITECTURE.md",
            findings: layers::forbidden(&crates),
        },
        RuleReport {
            rule: "circles of files",
            remedy: "move what both need into a file of its own",
            findings: trees
                .iter()
                .flat_map(|(member, tree)| circles::find(&member.directory, tree))
                .collect(),
        },
        RuleReport {
            rule: "type names defined more than once",
            remedy: "qualify each with the noun that it belongs to",
            findings: type_names::doubled(&trees),
        },
        RuleReport {
            rule: "comments and documents over 100 columns",
            remedy: "wrap the line",
            findings: width::wide_lines(&root)?,
        },
    ];
    if args.check {
        return Ok(check(&reports));
    }
    print(&root, &crates, &trees, &reports)?;
    Ok(true)
}

fn check(reports: &[RuleReport]) -> bool {
    let broken: Vec<_> = reports.iter().filter(|report| !report.findings.is_empty()).collect();
    for report in &broken {
        eprintln!("{}: {} ({})", report.rule, report.findings.len(), report.remedy);
        for finding in &report.findings {
            eprintln!("  {}", finding.replace('\n', "\n  "));
        }
    }
    broken.is_empty()
}

#[expect(clippy::print_stdout, reason = "the report is the output")]
fn print(
    root: &Path,
    crates: &[WorkspaceCrate],
    trees: &[(&WorkspaceCrate, ModuleTree)],
    reports: &[RuleReport],
) -> Result<(), StructureError> {
    println!("{:<26} {:>6} {:>6}  depends on", "crate", "src", "tests");
    for member in crates {
        let lines = member.lines(root, trees)?;
        println!(
            "{:<26} {:>6} {:>6}  {}",
            member.directory,
            lines.source,
            lines.tests,
            member.dependencies.join(", ")
        );
    }
    for report in reports {
        println!("\n{}: {}", report.rule, report.findings.len());
        for finding in &report.findings {
            println!("  {}", finding.replace('\n', "\n  "));
        }
    }
    let long = workspace::long_files(root, LONG_FILE)?;
    println!("\nfiles over {LONG_FILE} lines: {}", long.len());
    for (file, lines) in long {
        println!("  {}: {lines}", file.display());
    }
    Ok(())
}
