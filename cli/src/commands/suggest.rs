//! `namegate suggest`: the policy for what a pod was seen to do.

use std::io::{self, Write};
use std::time::Duration;

use api::{SuggestionQuestion, ask};
use clap::ValueEnum;

use crate::VerbOutcome;

use super::agent_socket::AgentSocket;
use super::{OutputFormat, to_json};

/// Writes the policy for what a pod of this node was seen to do
///
/// It is made of the events that the agent remembers (`namegate observe`), and proved before it is
/// printed: it passes `namegate check`, and with it in force each event that it is made from is
/// allowed. A name whose lookup was refused is opened on port 443, since nothing has connected to
/// it. Addresses that no lookup led to are commented out.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exits with 1 when something of what was seen stays refused, by a denial or a tier before; stderr says what.

Examples:
  namegate suggest --pod shop/web --from audited > web.yaml
  namegate suggest --pod shop/web --since 1h --from all --generalize 3")]
pub(crate) struct Args {
    /// The pod
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pod: String,
    /// Only of what is not older than this
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
    /// Of what
    #[arg(long, value_enum, default_value = "audited")]
    from: SeenKind,
    /// So many names below one parent become a pattern [default: never]
    #[arg(long, value_name = "N")]
    generalize: Option<usize>,
    /// How to print: the policy alone, or JSON with what was found
    #[arg(short, long, value_enum, default_value = "table")]
    output: OutputFormat,
    #[command(flatten)]
    agent: AgentSocket,
}

/// The values of `--from`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SeenKind {
    /// What passed because policies are audited, and would have been refused.
    Audited,
    /// What was refused.
    Refused,
    /// Both, and what was allowed as far as somebody watched.
    All,
}

/// Runs the verb.
pub(crate) fn run(args: &Args) -> crate::Result {
    let question = SuggestionQuestion {
        pod: args.pod.clone(),
        since_ms: args
            .since
            .map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
        from: match args.from {
            SeenKind::Audited => "audited",
            SeenKind::Refused => "refused",
            SeenKind::All => "all",
        }
        .into(),
        generalize: args.generalize,
    };
    let answer = ask(args.agent.client().suggestion(&question))??;
    let mut stderr = io::stderr().lock();
    if answer.lost > 0 {
        // Nothing can be done when stderr is closed.
        let _ = writeln!(
            stderr,
            "namegate: {} events of this node are forgotten or were not recorded: the policy may lack something",
            answer.lost
        );
    }
    for refused in &answer.not_allowed {
        let _ = writeln!(
            stderr,
            "namegate: it stays refused, by a denial or a tier before: {refused}"
        );
    }
    crate::print(&match args.output {
        OutputFormat::Table => answer.policy.clone(),
        OutputFormat::Json => to_json(&answer)?,
    })?;
    Ok(match answer.not_allowed.is_empty() {
        true => VerbOutcome::Positive,
        false => VerbOutcome::Negative,
    })
}
