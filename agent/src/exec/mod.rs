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
//! What is *not* contained: the command keeps its user, files and terminal. It lost the capabilities to leave its network
//! namespace or change the host's, but root inside can still ask daemons of the host to act for it, through their Unix
//! sockets, and write files that the host will run. Processes that outlive the command lose their network with it.

mod before_exec;
mod child;
mod claim;
mod firewall;
pub mod guard;
mod network;
mod signals;
mod source;
#[cfg(test)]
mod tests;
pub mod undo;
mod upstreams;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use dns_proxy::gate::Rcode;
use enforcer::{FailMode, Interception, Refusal};
use fqdn_cache::{LeaseTerms, Limits};
use ipnet::IpNet;
use policy::question::QuestionMode;
use policy::{Name, Pattern};
use rustix::thread::{CapabilitySet, capabilities};
use thiserror::Error;

use crate::app::{Agent, StartError};
use crate::config::{NameMatching, Settings};
use crate::netns::Namespace;
use child::SpawnError;
use claim::Claim;
use guard::Guard;
use network::{Host, Plan};
use signals::Signals;
use source::{Policies, SandboxSource};
use undo::Undo;

/// The exit code when the command could not be run for a reason that is not the command's.
const TROUBLE: u8 = 2;

/// The verb that the guard is started with.
pub const GUARD_VERB: &str = "exec-guard";

/// Runs a command in a fresh network namespace that reaches only the names it is allowed.
///
/// The exit code is the command's, or 128 and the signal that ended it; 127 when it is not found, 126 when it cannot be
/// executed, 2 when the sandbox cannot be made.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Name that may be reached, on every port; with stars a pattern, as in matchPattern (repeatable)
    #[arg(long, value_name = "NAME|PATTERN", value_parser = parse_allow)]
    allow: Vec<Pattern>,

    /// File with CiliumNetworkPolicies that apply to the command (repeatable)
    #[arg(long, value_name = "FILE")]
    policy: Vec<PathBuf>,

    /// Label of the command, for the endpointSelector of the policies (repeatable)
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_label)]
    label: Vec<(String, String)>,

    /// Resolver to ask, instead of those in /etc/resolv.conf (repeatable)
    #[arg(long, value_name = "IP[:PORT]", value_parser = upstreams::parse)]
    upstream: Vec<SocketAddr>,

    /// Names of an answer that policies are matched against: the one that was asked, or all of the CNAME chain
    #[arg(long, value_name = "WHICH", default_value = "question", value_parser = one_of([("question", NameMatching::Question), ("chain", NameMatching::Chain)]))]
    dns_match: NameMatching,

    /// How lookups of other names are answered
    #[arg(long, value_name = "HOW", default_value = "nxdomain", value_parser = one_of([("nxdomain", Rcode::NxDomain), ("refused", Rcode::Refused)]))]
    dns_denied: Rcode,

    /// What other packets get: an answer that they are refused, or none
    #[arg(long, value_name = "HOW", default_value = "reject", value_parser = one_of([("reject", Refusal::Reject), ("drop", Refusal::Drop)]))]
    deny_response: Refusal,

    /// Range that names may open although it is loopback, link-local or the like (repeatable)
    #[arg(long, value_name = "CIDR")]
    allow_rebind: Vec<IpNet>,

    /// Say nothing but errors
    #[arg(long, short)]
    quiet: bool,

    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Why the command did not run, or how it ended badly.
#[derive(Debug, Error)]
enum ExecError {
    #[error("{}", .0.join("\n"))]
    Policies(Vec<String>),
    #[error(
        "this needs root, or the capabilities CAP_SYS_ADMIN and CAP_NET_ADMIN, to make a network for the command: sudo namegate exec …"
    )]
    Privileges,
    #[error("no resolver is named in /etc/resolv.conf; name one with --upstream")]
    NoUpstream,
    #[error("cannot make the sandbox's network: {0}")]
    Network(io::Error),
    #[error("cannot start the guard that cleans up after a crash: {0}")]
    Guard(io::Error),
    #[error(transparent)]
    Agent(#[from] StartError),
    #[error("ended by a signal before the command was started")]
    Interrupted(u8),
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error("cannot wait for the command: {0}")]
    Wait(io::Error),
}

impl ExecError {
    fn code(&self) -> u8 {
        match self {
            ExecError::Interrupted(signal) => 128 + signal,
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
    let policies = Policies::read(&args.policy).map_err(ExecError::Policies)?;
    check_privileges()?;
    let upstreams = upstreams(args)?;
    if !args.quiet {
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
    prepare(args.quiet).map_err(ExecError::Network)?;
    let claim = Claim::fresh().map_err(ExecError::Network)?;
    let plan = Host::read(&host)
        .and_then(|host| Plan::choose(claim.id(), &host))
        .map_err(ExecError::Network)?;
    let undo = Undo::of(&plan);
    let mut program = Command::new("/proc/self/exe");
    program.arg(GUARD_VERB);
    let guard = Guard::start(program, &undo).map_err(ExecError::Guard)?;

    let ended = plan
        .build(&host)
        .map_err(ExecError::Network)
        .and_then(|network| runtime.block_on(confined(args, &plan, &network, upstreams, policies, &mut signals)));

    let problems = undo.perform();
    problems
        .iter()
        .for_each(|problem| say(&format!("cannot clean up: {problem}")));
    guard.release().map_err(ExecError::Guard)?;
    ended
}

/// The agent, and the command beside it.
async fn confined(
    args: &Args,
    plan: &Plan,
    network: &Namespace,
    upstreams: Vec<SocketAddr>,
    policies: Policies,
    signals: &mut Signals,
) -> Result<u8, ExecError> {
    let labels = args.label.iter().cloned().collect::<BTreeMap<_, _>>();
    let source = SandboxSource::new(plan.addresses(), labels, &args.allow, policies);
    let settings = settings(args, plan, upstreams);
    let start = async {
        let agent = Agent::start(settings, source).await?;
        agent.ready().await?;
        Ok::<_, StartError>(agent)
    };
    let agent = tokio::select! {
        started = start => started?,
        signal = signals.next() => return Err(ExecError::Interrupted(u8::try_from(signal.as_raw()).unwrap_or(0))),
    };
    let resolvers: Vec<_> = plan.gateways().collect();
    let ended = match child::start(&args.command, network, &resolvers) {
        Ok(child) => child::wait(child, signals)
            .await
            .map(child::exit_code)
            .map_err(ExecError::Wait),
        Err(error) => Err(error.into()),
    };
    agent.stop().await;
    ended
}

/// Removes what dead runs left, and tells what of the host may stand in the way. Fails without `nft`.
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

fn upstreams(args: &Args) -> Result<Vec<SocketAddr>, ExecError> {
    if !args.upstream.is_empty() {
        return Ok(args.upstream.clone());
    }
    // The agent runs on the host, so a stub resolver on loopback is reachable for it.
    let found = fs::read_to_string("/etc/resolv.conf").map(|text| upstreams::of_resolv_conf(&text));
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(ExecError::NoUpstream),
    }
}

fn settings(args: &Args, plan: &Plan, upstreams: Vec<SocketAddr>) -> Settings {
    /// Live addresses of all names together; a command needs far fewer than a node.
    // The literal is not zero.
    const CAPACITY: NonZeroU32 = NonZeroU32::new(16_384).unwrap();
    Settings {
        node: "exec".to_owned(),
        upstreams,
        listen: plan
            .gateways()
            .map(|gateway| SocketAddr::new(gateway, upstreams::DNS_PORT))
            .collect(),
        http: None,
        state_dir: None,
        run_dir: None,
        table: firewall::agent_table(plan.id),
        fail_mode: FailMode::Closed,
        interception: Interception::Off,
        refusal: args.deny_response,
        capacity: CAPACITY,
        questions: QuestionMode::AllowedOnly,
        matching: args.dns_match,
        denied: args.dns_denied,
        lease: LeaseTerms::default(),
        limits: Limits::default(),
        rebind: args.allow_rebind.clone(),
        cluster_cidrs: Vec::new(),
        // Names in the cluster's domain may be asked by everyone. There is no cluster here, so there is no such name.
        cluster_domain: Name::from_wire_labels([b"exec".as_slice(), b"namegate", b"invalid"]),
        cluster_dns: Vec::new(),
        commit_deadline: Duration::from_secs(1),
    }
}

fn parse_allow(text: &str) -> Result<Pattern, String> {
    if text.contains('*') {
        Pattern::pattern(text)
    } else {
        Pattern::name(text)
    }
    .map_err(|error| error.to_string())
}

/// A flag that takes one of a few words.
fn one_of<T: Copy + Send + Sync + 'static, const N: usize>(
    choices: [(&'static str, T); N],
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(choices.map(|(word, _)| word)).try_map(move |word| {
        // The parser before lets no other word through.
        let chosen = choices.iter().find(|(choice, _)| *choice == word);
        chosen.map(|(_, value)| *value).ok_or("not one of the choices")
    })
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

/// Standard output is the command's. Nothing can be done if standard error is closed.
fn say(text: &str) {
    let mut stderr = io::stderr().lock();
    for line in text.lines() {
        let _ = writeln!(stderr, "namegate: {line}");
    }
}
