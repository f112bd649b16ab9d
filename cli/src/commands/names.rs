//! `namegate names`: lists the live leases.

use api::NameRow;
use api::ask;

use crate::VerbOutcome;
use crate::terminal::TerminalStyle;

use super::agent_socket::AgentSocket;
use super::table::{list, table, whole_seconds};
use super::{OutputFormat, to_json};

/// Shows which names have resolved to which addresses, and for how long these stay allowed
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  namegate names
  namegate names -o json | jq -r '.[] | select(.policies == []) | .name'")]
pub(crate) struct Args {
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    output: OutputFormat,
    #[command(flatten)]
    agent: AgentSocket,
}

/// Runs the verb.
pub(crate) fn run(args: &Args, style: TerminalStyle) -> crate::Result {
    let names = ask(args.agent.client().names())??;
    let text = match args.output {
        OutputFormat::Json => to_json(&names)?,
        OutputFormat::Table if names.is_empty() => {
            "No name holds an address: nothing was looked up yet, or all leases have ended.\n".into()
        }
        OutputFormat::Table => render(&names, style),
    };
    crate::print(&text)?;
    Ok(VerbOutcome::Positive)
}

fn render(names: &[NameRow], style: TerminalStyle) -> String {
    table(
        ["NAME", "ADDRESS", "LEASE", "SELECTORS", "POLICIES", "SOURCE"],
        names.iter().map(|row| {
            [
                row.name.clone(),
                row.address.to_string(),
                whole_seconds(row.lease_left_ms),
                list(&row.selectors),
                list(&row.policies),
                match row.private {
                    true => format!("{} (private)", row.source),
                    false => row.source.to_string(),
                },
            ]
        }),
        style,
    )
}

#[cfg(test)]
mod tests {
    use api::examples;

    use super::*;

    #[test]
    fn a_lease_is_one_line() {
        insta::assert_snapshot!(render(&examples::names(), TerminalStyle::default()));
    }
}
