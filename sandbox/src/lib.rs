//! `namegate exec`: any command, in a network that reaches the allowed names and nothing else.
//!
//! The life of a run, each step a module:
//!
//! 1. [`source`]: the policies are read; whatever is wrong with them ends it here.
//! 2. [`claim`], [`undo`]: the sandbox gets a number; what dead runs left is removed.
//! 3. [`network`], [`firewall`]: its network is chosen from what the host leaves free.
//! 4. [`guard`]: a second process learns how to undo it all, before any of it is done.
//! 5. The network is built, and an agent started on the host's side of it.
//! 6. [`child`], `before_exec`: the command runs inside; `signals` for it are handed on.
//! 7. All is undone; the exit code is the command's.
//!
//! What is *not* contained: the command keeps its user, files and terminal. Processes outside are
//! hidden from it and the capabilities that matter to them are gone, but root inside can still ask
//! daemons of the host to act for it, through their Unix sockets, and write files that the host
//! will run. Processes that outlive the command are ended with it.

mod args;
mod before_exec;
mod child;
mod claim;
mod descriptors;
mod filter;
mod firewall;
mod guard;
mod mounts;
mod network;
mod pid_namespace;
mod scope;
mod signals;
mod source;
mod terminal;
#[cfg(test)]
mod tests;
mod undo;

use std::io::{self, Write};
use std::os::fd::RawFd;
use std::process::{Command, ExitCode};

use agent::app::{Agent, StartError};
pub use args::Args;
use netns::Namespace;
use rustix::process::Signal;
use rustix::thread::{CapabilitySet, capabilities};
use settings::{Rejected, Settings};
use thiserror::Error;

use child::{Child, SpawnError};
use claim::Claim;
use guard::Guard;
use network::{Host, Plan};
use signals::Signals;
use source::{Policies, SandboxSource};
use terminal::Foreground;
use undo::Undo;

/// The exit code when the command could not be run for a reason that is not the command's.
const TROUBLE: u8 = 2;

/// The verb that the guard is started with.
pub const GUARD_VERB: &str = "exec-guard";

/// Why the command did not run, or how it ended badly.
#[derive(Debug, Error)]
enum ExecError {
    #[error("{}", .0.join("\n"))]
    Policies(Vec<String>),
    #[error(
        "this needs root, or the capabilities CAP_SYS_ADMIN and CAP_NET_ADMIN, to make a network for the command: sudo namegate exec …"
    )]
    Privileges,
    #[error(transparent)]
    Settings(#[from] Rejected),
    #[error("--keep-fd: descriptor {0} is not open here")]
    NotOpen(RawFd),
    #[error("cannot keep open files from the command: {0}")]
    Descriptors(io::Error),
    #[error("cannot make the sandbox's network: {0}")]
    Network(io::Error),
    #[error("cannot start the guard that cleans up after a crash: {0}")]
    Guard(io::Error),
    #[error(transparent)]
    Agent(#[from] StartError),
    #[error("ended by a signal before the command was started")]
    Interrupted(Signal),
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error("cannot wait for the command: {0}")]
    Wait(io::Error),
}

impl ExecError {
    fn code(&self) -> u8 {
        match self {
            ExecError::Interrupted(signal) => child::killed_by(*signal),
            ExecError::Spawn(error) => error.code(),
            _ => TROUBLE,
        }
    }
}

/// The verb. Must be called on the main thread, which the command's life is tied to.
pub fn run(args: Args) -> ExitCode {
    match try_run(&args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            say(&error.to_string());
            ExitCode::from(error.code())
        }
    }
}

/// The hidden verb of the guard.
pub fn guard() -> ExitCode {
    match guard::watch_standard_input() {
        Ok(problems) if problems.is_empty() => ExitCode::SUCCESS,
        Ok(problems) => {
            problems
                .iter()
                .for_each(|problem| say(&format!("cannot clean up: {problem}")));
            ExitCode::from(TROUBLE)
        }
        Err(error) => {
            say(&format!("cannot clean up: {error}"));
            ExitCode::from(TROUBLE)
        }
    }
}

fn try_run(args: &Args) -> Result<u8, ExecError> {
    if let Some(closed) = args.kept_descriptors().iter().find(|it| !descriptors::is_open(**it)) {
        return Err(ExecError::NotOpen(*closed));
    }
    descriptors::mark_all().map_err(ExecError::Descriptors)?;
    let terminal = Foreground::of_this_process();
    let policies = Policies::read(args.policy_files()).map_err(ExecError::Policies)?;
    check_privileges()?;
    if !args.quiet() {
        policies.remarks().iter().for_each(|remark| say(remark));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ExecError::Network)?;
    // From here on a signal is answered, so that nothing stays half made.
    let mut signals = {
        let _inside = runtime.enter();
        Signals::take().map_err(ExecError::Network)?
    };

    let host = Namespace::current().map_err(ExecError::Network)?;
    prepare(args.quiet()).map_err(ExecError::Network)?;
    let claim = Claim::fresh().map_err(ExecError::Network)?;
    let plan = Host::read(&host)
        .and_then(|host| Plan::choose(claim.id(), &host))
        .map_err(ExecError::Network)?;
    let settings = args.settings(&plan)?;
    let source = SandboxSource::new(plan.addresses(), args.labels(), args.allowed(), policies);
    if !args.quiet() {
        for policy in source.idle_policies() {
            say(&format!(
                "note: the policy {policy} does not select the command; give it labels with --label"
            ));
        }
    }
    let undo = Undo::of(&plan);
    let mut program = Command::new("/proc/self/exe");
    program.arg(GUARD_VERB);
    let guard = Guard::start(program, &undo).map_err(ExecError::Guard)?;

    let ended = plan.build(&host).map_err(ExecError::Network).and_then(|network| {
        let resolvers: Vec<_> = plan.gateways().collect();
        let command = |network: &Namespace| child::start(args.command(), network, &resolvers, args.kept_descriptors());
        runtime.block_on(confined(settings, source, || command(&network), &mut signals))
    });

    terminal.restore();
    let problems = undo.perform();
    problems
        .iter()
        .for_each(|problem| say(&format!("cannot clean up: {problem}")));
    guard.release().map_err(ExecError::Guard)?;
    ended
}

/// The agent, and the command beside it.
async fn confined(
    settings: Settings,
    source: SandboxSource,
    start_command: impl FnOnce() -> Result<Child, SpawnError>,
    signals: &mut Signals,
) -> Result<u8, ExecError> {
    let start = async {
        let agent = Agent::start(settings, source, None).await?;
        agent.ready().await?;
        Ok::<_, StartError>(agent)
    };
    let agent = tokio::select! {
        started = start => started?,
        signal = signals.next() => return Err(ExecError::Interrupted(signal)),
    };
    let ended = match start_command() {
        Ok(child) => child::wait(child, signals)
            .await
            .map(child::exit_code)
            .map_err(ExecError::Wait),
        Err(error) => Err(error.into()),
    };
    agent.stop().await;
    ended
}

/// Removes what dead runs left, and tells what of the host may stand in the way. Fails without
/// `nft`.
fn prepare(quiet: bool) -> io::Result<()> {
    let problems = undo::sweep()?;
    let foreign = firewall::foreign_chains_that_drop()?;
    if quiet {
        return Ok(());
    }
    for problem in problems {
        say(&format!("cannot remove what an earlier run left: {problem}"));
    }
    for chain in foreign {
        say(&format!(
            "note: the chain `{chain}` of this host's firewall drops what it does not know; if even allowed names cannot be \
             reached, let links named {}* through it, from them and to them",
            network::LINK_PREFIX
        ));
    }
    Ok(())
}

fn check_privileges() -> Result<(), ExecError> {
    let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN;
    match capabilities(None) {
        Ok(sets) if sets.effective.contains(needed) => Ok(()),
        _ => Err(ExecError::Privileges),
    }
}

/// Standard output is the command's. Nothing can be done if standard error is closed.
fn say(text: &str) {
    let mut stderr = io::stderr().lock();
    for line in text.lines() {
        let _ = writeln!(stderr, "namegate: {line}");
    }
}
