//! The command line of `namegate`: the verbs, their help, and the exit codes of their results.
//!
//! A verb parses its arguments, calls the crate that does the work, and prints the result.

mod commands;
mod log;
mod terminal;

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use api::error_chain;
use clap::{ArgAction, Command, CommandFactory, Parser, Subcommand};
use settings::{LogFormat, RejectedOption};
use tracing_subscriber::filter::LevelFilter;

use crate::commands::{
    agent, check, cleanup, completion, crds, doctor, drops, explain, man, names, observe, prepared_agent, status,
    suggest,
};
use crate::terminal::{ColorChoice, TerminalStyle};

/// The version, with the commit that it is built from.
pub(crate) const VERSION: &str = env!("NAMEGATE_VERSION");

/// The result of a verb that could do its work. A verb that could not returns an error: exit code
/// 2, as for wrong usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerbOutcome {
    /// Exit code 0: success, or the answer is yes.
    Positive,
    /// Exit code 1: the answer is no (a check failed, the agent is not ready).
    Negative,
}

/// What each verb returns.
pub type Result = std::result::Result<VerbOutcome, Box<dyn Error>>;

/// Decides which names the workloads of this node may reach
///
/// Namegate intercepts the DNS lookups of workloads, matches them against toFQDNs policies, and
/// opens in the kernel exactly the addresses that allowed names resolve to, before the answer is
/// released.
#[derive(Debug, Parser)]
#[command(name = "namegate", version = VERSION, max_term_width = 110, after_help = AFTER_HELP)]
struct Cli {
    /// Say more in the log: -v what is done, -vv everything (RUST_LOG wins)
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    /// Colour what is refused
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value = "auto")]
    color: ColorChoice,
    #[command(subcommand)]
    verb: Verb,
}

const AFTER_HELP: &str = "\
Exit codes: 0 it went well; 1 the answer is no (a check failed, the agent is not ready);
2 it could not be done (wrong usage, no agent, no permission).";

#[derive(Debug, Subcommand)]
enum Verb {
    // Boxed because it is by far the largest.
    Agent(Box<prepared_agent::Args>),
    Check(check::Args),
    Explain(explain::Args),
    Names(names::Args),
    Observe(observe::Args),
    Drops(drops::Args),
    Suggest(suggest::Args),
    Status(status::Args),
    Cleanup(cleanup::Args),
    Doctor(doctor::Args),
    Crds(crds::Args),
    Completion(completion::Args),
    Man(man::Args),
    #[command(after_help = "\
Example:
  sudo namegate exec --allow registry.example --allow '*.cdn.example' -- make fetch")]
    Exec(sandbox::Args),
    /// What `exec` starts itself as
    #[command(name = sandbox::GUARD_VERB, hide = true)]
    ExecGuard,
}

/// Parses the command line and runs the verb.
pub fn run() -> ExitCode {
    // clap exits by itself: 0 for --help and --version, 2 for wrong usage.
    let Cli { verbose, color, verb } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => match RejectedOption::of(&error) {
            // As it is told of the config file.
            Some(rejected) => return failed(&rejected),
            None => error.exit(),
        },
    };
    log_to_stderr(&verb, verbose, color);
    let style = TerminalStyle::of_stdout(color);
    let result = match verb {
        Verb::Agent(args) => agent::run(*args),
        Verb::Check(args) => check::run(&args, style),
        Verb::Explain(args) => explain::run(&args, style),
        Verb::Names(args) => names::run(&args, style),
        Verb::Observe(args) => observe::run(&args, style),
        Verb::Drops(args) => drops::run(&args, style),
        Verb::Suggest(args) => suggest::run(&args),
        Verb::Status(args) => status::run(&args, style),
        Verb::Cleanup(args) => cleanup::run(&args),
        Verb::Doctor(args) => doctor::run(&args, style),
        Verb::Crds(args) => crds::run(&args),
        Verb::Completion(args) => completion::run(&args),
        Verb::Man(args) => man::run(&args),
        // The exit code is the command's.
        Verb::Exec(args) => return sandbox::run(args),
        Verb::ExecGuard => return sandbox::guard(),
    };
    match result {
        Ok(VerbOutcome::Positive) => ExitCode::SUCCESS,
        Ok(VerbOutcome::Negative) => ExitCode::from(1),
        Err(error) => failed(&*error),
    }
}

fn failed(error: &dyn Error) -> ExitCode {
    // Nothing can be done when stderr is closed.
    let _ = writeln!(io::stderr(), "namegate: {}", error_chain(error));
    ExitCode::from(2)
}

/// Writes the result of a verb to stdout. It is no failure when the reader has gone (`| head`).
pub fn print(text: &str) -> io::Result<()> {
    print_some(text).map(|_| ())
}

/// Whether somebody still reads stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    Listens,
    HasGone,
}

/// Writes a part of the result of a verb to stdout.
fn print_some(text: &str) -> io::Result<Reader> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(Reader::Listens),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::HasGone),
        Err(error) => Err(error),
    }
}

/// The command line as clap knows it.
fn command() -> Command {
    Cli::command()
}

fn log_to_stderr(verb: &Verb, verbose: u8, color: ColorChoice) {
    let level = match (verb, verbose) {
        (Verb::Agent(_), 0) => LevelFilter::INFO,
        (_, 0) => LevelFilter::WARN,
        (_, 1) => LevelFilter::DEBUG,
        (_, _) => LevelFilter::TRACE,
    };
    let format = match verb {
        Verb::Agent(args) => args.log_format(),
        _ => LogFormat::Text,
    };
    log::start(level, format, color.is_coloured(io::stderr().is_terminal()));
}

#[cfg(test)]
mod tests {
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
}
