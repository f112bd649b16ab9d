//! `namegate exec`: runs any command in a network that reaches the allowed names and nothing else.
//!
//! The steps of a run, and the modules that do them:
//!
//! 1. [`source`] reads the policies. An error in them ends the run here.
//! 2. [`undo`] removes what dead runs have left; [`sandbox_id`] claims a number for the sandbox.
//! 3. [`network_plan`] chooses a network from what the host leaves free.
//! 4. [`crash_guard`] starts a second process that can undo all changes, before the first is made.
//! 5. [`network_setup`] and [`firewall`] build the network. An agent starts on the host's side.
//! 6. [`child`] runs the command inside, confined by [`confinement`]; [`signals`] are forwarded.
//!    [`watcher`] follows what it does; [`report`] says what was refused.
//! 7. [`undo`] removes everything. The exit code is the command's.
//!
//! What is *not* confined: the command keeps its user, its files and its terminal. It does not see
//! processes outside, and has no capability that would harm them. But root inside can still ask
//! daemons of the host to act for it, through their Unix sockets, and can write files that the host
//! will run. Processes that outlive the command are ended with it.

mod allowance;
mod allowed_requests;
mod args;
mod child;
mod confinement;
mod crash_guard;
mod descriptors;
mod firewall;
mod landlock_scope;
mod mounts;
mod network_plan;
mod network_setup;
mod pid_namespace;
mod report;
mod sandbox_id;
mod seccomp;
mod signals;
mod source;
mod terminal;
#[cfg(test)]
mod tests;
mod trust;
mod undo;
mod watcher;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;

use agent::app::{Agent, AgentEquipment, StartError};
use agent::local_authority::LocalAuthority;
pub use args::Args;
use events::account::NetworkAccount;
use events::learned_policy::{self, PolicyHead};
use netns::Namespace;
use rustix::process::Signal;
use rustix::thread::{CapabilitySet, capabilities};
use settings::{RejectedOption, Settings};
use thiserror::Error;

use child::{Child, SpawnError};
use crash_guard::CrashGuard;
use network_plan::{HostNetwork, NetworkPlan};
use report::{LiveReport, RefusalReport};
use sandbox_id::SandboxIdClaim;
use signals::Signals;
use source::{Policies, SandboxSource};
use terminal::Foreground;
use trust::TrustError;
use undo::Undo;
use watcher::NetworkWatcher;

/// The exit code when the sandbox cannot be made.
const TROUBLE: u8 = 2;

/// The variable in which the command finds the file that says what was refused to it.
const REPORT_VARIABLE: &str = "NAMEGATE_REPORT";

/// The hidden verb that starts the crash guard.
pub const GUARD_VERB: &str = "exec-guard";

/// Why the command did not run, or could not be waited for.
#[derive(Debug, Error)]
enum ExecError {
    #[error("{}", .0.join("\n"))]
    Policies(Vec<String>),
    #[error(
        "this needs root, or the capabilities CAP_SYS_ADMIN and CAP_NET_ADMIN, to make a network for the command: sudo namegate exec …"
    )]
    Privileges,
    #[error(transparent)]
    Settings(#[from] RejectedOption),
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
    Trust(#[from] TrustError),
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error("cannot wait for the command: {0}")]
    Wait(io::Error),
    #[error("cannot learn what the command reaches: {0}")]
    NotRecorded(String),
    #[error("cannot write {}: {error}", file.display())]
    Write { file: PathBuf, error: io::Error },
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

/// Runs the verb `exec`. Must be called on the main thread: the kernel ends the command when the
/// thread that started it ends.
pub fn run(args: Args) -> ExitCode {
    match try_run(&args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            say(&error.to_string());
            ExitCode::from(error.code())
        }
    }
}

/// Runs the hidden verb [`GUARD_VERB`].
pub fn guard() -> ExitCode {
    match crash_guard::watch_standard_input() {
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
    descriptors::close_all_on_exec().map_err(ExecError::Descriptors)?;
    let terminal = Foreground::of_this_process();
    let policies = Policies::read(args.policy_files()).map_err(ExecError::Policies)?;
    let allowances = args.allowances().map_err(ExecError::Policies)?;
    check_privileges()?;
    if !args.quiet() {
        policies.remarks().iter().for_each(|remark| say(remark));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ExecError::Network)?;
    // From here on a signal no longer ends this process, so that every change is undone.
    let mut signals = {
        let _inside = runtime.enter();
        Signals::take().map_err(ExecError::Network)?
    };

    let host = Namespace::current().map_err(ExecError::Network)?;
    prepare(args.quiet()).map_err(ExecError::Network)?;
    let claim = SandboxIdClaim::fresh().map_err(ExecError::Network)?;
    let plan = HostNetwork::read(&host)
        .and_then(|host| NetworkPlan::choose(claim.id(), &host))
        .map_err(ExecError::Network)?;
    let settings = args.settings(&plan)?;
    let source = SandboxSource::new(plan.addresses(), args.labels(), &allowances, policies);
    if !args.quiet() {
        for policy in source.idle_policies() {
            say(&format!(
                "note: the policy {policy} does not select the command; give it labels with --label"
            ));
        }
    }
    let live = LiveReport::new().map_err(ExecError::Network)?;
    let mut environment = vec![(REPORT_VARIABLE, live.path())];
    let authority = match args.inspects() {
        true => {
            let (authority, bundle) = trust::authority(&live)?;
            environment.extend(trust::VARIABLES.map(|name| (name, bundle.clone())));
            Some(authority)
        }
        false => None,
    };
    let mut watcher = NetworkWatcher::new(live);
    let undo = Undo::of(&plan);
    let mut program = Command::new("/proc/self/exe");
    program.arg(GUARD_VERB);
    let guard = CrashGuard::start(program, &undo).map_err(ExecError::Guard)?;

    let ended = plan.build(&host).map_err(ExecError::Network).and_then(|network| {
        let resolvers: Vec<_> = plan.gateways().collect();
        let command = || {
            child::start(
                args.command(),
                &environment,
                &network,
                &resolvers,
                args.kept_descriptors(),
            )
        };
        runtime.block_on(run_beside_agent(
            args,
            settings,
            source,
            authority,
            &mut watcher,
            command,
            &mut signals,
        ))
    });

    terminal.restore();
    let problems = undo.perform();
    problems
        .iter()
        .for_each(|problem| say(&format!("cannot clean up: {problem}")));
    guard.release().map_err(ExecError::Guard)?;
    let code = ended?;
    tell(args, watcher.account())?;
    Ok(code)
}

/// Says what was refused, and writes what was asked for.
fn tell(args: &Args, account: &NetworkAccount) -> Result<(), ExecError> {
    let unwritten = |file: &Path| {
        let file = file.to_owned();
        move |error| ExecError::Write { file, error }
    };
    let refused = RefusalReport::of(account);
    if let Some(file) = args.report_file() {
        report::write(file, &refused).map_err(unwritten(file))?;
    }
    let mut lines = refused.lines();
    if let Some((file, options)) = args.learn() {
        let command: Vec<_> = args.command().iter().map(|part| part.to_string_lossy()).collect();
        let head = PolicyHead {
            comments: &[
                format!("What `namegate exec --learn` saw of: {}", command.join(" ")),
                "With `namegate exec --policy FILE -- COMMAND` it is enforced.".to_owned(),
            ],
            name: "learned",
            namespace: None,
            labels: &BTreeMap::new(),
        };
        let text = learned_policy::policy(account, &head, options);
        report::replace(file, &text).map_err(unwritten(file))?;
        lines = vec![format!(
            "the policy for what was reached ({} names, {} addresses without one) is in {}",
            account.names.len(),
            account.nameless.len(),
            file.display()
        )];
        if account.lost > 0 {
            lines.push(format!(
                "{} lookups or packets were not seen: learn again",
                account.lost
            ));
        }
    }
    if !args.quiet() {
        lines.iter().for_each(|line| say(line));
    }
    Ok(())
}

/// Runs the agent, and the command beside it once the agent is ready.
async fn run_beside_agent(
    args: &Args,
    settings: Settings,
    source: SandboxSource,
    authority: Option<Arc<LocalAuthority>>,
    watcher: &mut NetworkWatcher,
    start_command: impl FnOnce() -> Result<Child, SpawnError>,
    signals: &mut Signals,
) -> Result<u8, ExecError> {
    let start = async {
        let equipment = AgentEquipment {
            events: watcher.log(),
            authority,
        };
        let agent = Agent::start_equipped(settings, source, None, equipment).await?;
        agent.ready().await?;
        // The first packet of the command is to be recorded, too.
        let recording = agent.recording().await;
        Ok::<_, StartError>((agent, recording))
    };
    let (agent, recording) = tokio::select! {
        started = start => started?,
        signal = signals.next() => return Err(ExecError::Interrupted(signal)),
    };
    let ended = match recording {
        Err(why) if args.learn().is_some() => Err(ExecError::NotRecorded(why)),
        recording => {
            if let Err(why) = recording
                && !args.quiet()
            {
                say(&format!("note: refused packets are not reported: {why}"));
            }
            match start_command() {
                Ok(child) => wait(child, signals, watcher).await.map_err(ExecError::Wait),
                Err(error) => Err(error.into()),
            }
        }
    };
    if ended.is_ok() {
        watcher.settle(&agent).await;
    }
    agent.stop().await;
    ended
}

/// Waits for the command, and follows what it does meanwhile.
async fn wait(child: Child, signals: &mut Signals, watcher: &mut NetworkWatcher) -> io::Result<u8> {
    let mut ended = std::pin::pin!(child::wait(child, signals));
    loop {
        tokio::select! {
            status = &mut ended => return status.map(child::exit_code),
            () = tokio::time::sleep(watcher::PAUSE) => watcher.look(),
        }
    }
}

/// Removes what dead runs have left, and warns of chains that may drop the sandbox's packets.
///
/// # Errors
/// When `nft` cannot be run.
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
            network_plan::LINK_PREFIX
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

/// Writes to standard error: standard output is the command's. Nothing is left to do when standard
/// error is closed.
fn say(text: &str) {
    let mut stderr = io::stderr().lock();
    for line in text.lines() {
        let _ = writeln!(stderr, "namegate: {line}");
    }
}
