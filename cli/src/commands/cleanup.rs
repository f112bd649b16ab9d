//! `namegate cleanup`: takes away what an agent leaves behind on purpose.

use std::path::PathBuf;

use agent::cleanup::Leftovers;
use settings::{DEFAULT_STATE_DIR, DEFAULT_TABLE, STATE_DIR_VARIABLE, TABLE_VARIABLE};

use crate::VerbOutcome;

use super::agent_socket::AgentSocket;

/// Removes the ruleset and files that an agent has left: enforcement ends
///
/// An agent that stops leaves its ruleset in force, so that nothing opens while it is replaced.
/// This removes it, with the addresses and routes made for interception. It can be repeated.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  systemctl stop namegate && namegate cleanup")]
pub(crate) struct Args {
    /// The agent's --table
    #[arg(long, value_name = "NAME", env = TABLE_VARIABLE, hide_env_values = true, default_value = DEFAULT_TABLE)]
    table: String,
    /// The agent's --state-dir
    #[arg(long, value_name = "DIR", env = STATE_DIR_VARIABLE, hide_env_values = true, default_value = DEFAULT_STATE_DIR)]
    state_dir: PathBuf,
    #[command(flatten)]
    agent: AgentSocket,
    /// Also when an agent lives, which will put everything back when it notices
    #[arg(long)]
    force: bool,
}

/// Runs the verb.
pub(crate) fn run(args: &Args) -> crate::Result {
    let leftovers = Leftovers {
        table: &args.table,
        state_dir: &args.state_dir,
        run_dir: &args.agent.run_dir,
    };
    if !args.force {
        leftovers.refuse_while_an_agent_lives()?;
    }
    let removed = leftovers.remove()?;
    let mut text = format!("table inet {} is not in the kernel any more\n", args.table);
    for path in removed {
        text += &format!("{} is removed\n", path.display());
    }
    crate::print(&text)?;
    Ok(VerbOutcome::Positive)
}
