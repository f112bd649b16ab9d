//! `cargo xtask`: the usual commands of a developer, and the checks that no other tool knows.

mod structure;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What a developer runs, most usual first.
const COMMANDS: &[(&str, &str)] = &[
    ("./test --fast", "yes or no within three minutes of a warm build"),
    (
        "cargo test -p namegate-policy",
        "the tests of one crate; most take seconds",
    ),
    ("./test", "everything that CI runs"),
    ("./test --help", "the stages of ./test; --only NAME runs some of them"),
    ("cargo clippy --workspace --all-targets", "lints"),
    ("cargo fmt --all", "format"),
    (
        "cargo xtask structure",
        "crates, circles of files, doubled type names, wide lines",
    ),
    ("./demo", "two pods, a resolver and an internet in network namespaces"),
    ("./bench", "what lookups cost, beside other resolvers"),
    ("./reliability", "what faults cost"),
    (
        "integration/hot-path/instructions",
        "instructions of the hot path, under valgrind",
    ),
    (
        "cargo +nightly fuzz run policy_yaml",
        "fuzz a parser; the targets are in fuzz/",
    ),
    (
        "cargo doc --workspace --no-deps --open",
        "the documentation of the code",
    ),
];

#[derive(Parser)]
#[command(name = "cargo xtask", disable_help_subcommand = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Prints how the workspace is built: crates, circles of files, doubled type names, wide lines.
    Structure(structure::Args),
}

fn main() -> ExitCode {
    let done = match Args::parse().command {
        None => {
            list_commands();
            Ok(true)
        }
        Some(Command::Structure(args)) => structure::run(&args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "the list is the output")]
fn list_commands() {
    for (command, purpose) in COMMANDS {
        println!("{command:<40}  {purpose}");
    }
}
