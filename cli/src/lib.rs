//! `namegate` on the command line: the verbs, their help, and how their results become exit codes.
//! Nothing is decided here.

mod commands;
mod log;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand};
use sandbox as exec;
use tracing_subscriber::filter::LevelFilter;

use crate::commands::{agent, check, cleanup, crds, doctor, drops, explain, names, status};

/// What a verb found, when it could do its work. (When it could not, it returns an error: exit code
/// 2, as for wrong usage.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerbOutcome {
    /// Exit code 0.
    Positive,
    /// Exit code 1: a check failed, an agent is not ready.
    Negative,
}

/// What a verb returns.
pub type Result = std::result::Result<VerbOutcome, Box<dyn Error>>;

/// Decides which names the workloads of this node may reach
///
/// Namegate intercepts the DNS lookups of workloads, matches them against toFQDNs policies, and
/// opens in the kernel exactly the addresses that allowed names resolve to, before the answer is
/// released.
#[derive(Debug, Parser)]
#[command(name = "namegate", version, max_term_width = 110, after_help = AFTER_HELP)]
struct Cli {
    /// Say more in the log: -v what is done, -vv everything (RUST_LOG wins)
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    verb: Verb,
}

const AFTER_HELP: &str = "\
Exit codes: 0 it went well; 1 the answer is no (a check failed, the agent is not ready);
2 it could not be done (wrong usage, no agent, no permission).";

#[derive(Debug, Subcommand)]
enum Verb {
    // Boxed because it is by far the largest.
    Agent(Box<agent::Args>),
    Check(check::Args),
    Explain(explain::Args),
    Names(names::Args),
    Drops(drops::Args),
    Status(status::Args),
    Cleanup(cleanup::Args),
    Doctor(doctor::Args),
    Crds(crds::Args),
    #[command(after_help = "\
Example:
  sudo namegate exec --allow registry.example --allow '*.cdn.example' -- make fetch")]
    Exec(exec::Args),
    /// What `exec` starts itself as
    #[command(name = exec::GUARD_VERB, hide = true)]
    ExecGuard,
}

/// Parses the command line and runs the verb.
pub fn run() -> ExitCode {
    // clap exits by itself: 0 for --help and --version, 2 for wrong usage.
    let Cli { verbose, verb } = Cli::parse();
    log_to_stderr(&verb, verbose);
    let result = match verb {
        Verb::Agent(args) => agent::run(*args),
        Verb::Check(args) => check::run(&args),
        Verb::Explain(args) => explain::run(&args),
        Verb::Names(args) => names::run(&args),
        Verb::Drops(args) => drops::run(&args),
        Verb::Status(args) => status::run(&args),
        Verb::Cleanup(args) => cleanup::run(&args),
        Verb::Doctor(args) => doctor::run(&args),
        Verb::Crds(args) => crds::run(&args),
        // The exit code is the command's.
        Verb::Exec(args) => return exec::run(args),
        Verb::ExecGuard => return exec::guard(),
    };
    match result {
        Ok(VerbOutcome::Positive) => ExitCode::SUCCESS,
        Ok(VerbOutcome::Negative) => ExitCode::from(1),
        Err(error) => {
            // Nothing is left to do when stderr is closed.
            let _ = writeln!(io::stderr(), "namegate: {}", chain(&*error));
            ExitCode::from(2)
        }
    }
}

/// Writes a verb's result to stdout. That the reader has gone (`| head`) is no failure.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// An error and its causes in one line. A cause that the text before it repeats already is not said
/// twice.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

fn log_to_stderr(verb: &Verb, verbose: u8) {
    log::start(match (verb, verbose) {
        (Verb::Agent(_), 0) => LevelFilter::INFO,
        (_, 0) => LevelFilter::WARN,
        (_, 1) => LevelFilter::DEBUG,
        (_, _) => LevelFilter::TRACE,
    });
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_has_an_example_in_its_help() {
        for verb in Cli::command().get_subcommands_mut().filter(|verb| !verb.is_hide_set()) {
            let help = verb.render_long_help().to_string();
            assert!(help.contains("Example"), "{help}");
            assert!(help.contains(&format!("namegate {}", verb.get_name())), "{help}");
        }
    }

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|it| it as &dyn Error)
        }
    }

    #[test]
    fn causes_are_joined_and_not_repeated() {
        let cause = || Some(Box::new(Layer("permission denied", None)));
        assert_eq!(chain(&Layer("cannot bind", cause())), "cannot bind: permission denied");
        assert_eq!(chain(&Layer("no: permission denied", cause())), "no: permission denied");
    }
}
