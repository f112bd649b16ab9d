//! `namegate doctor`: checks what this node needs, and tells how to mend what it lacks.

use std::fmt::Write;

use doctor::{FindingLevel, NodeFinding};
use settings::{DEFAULT_TABLE, InterceptionMode, TABLE_VARIABLE, choice};

use crate::VerbOutcome;
use crate::terminal::TerminalStyle;

use super::agent_socket::AgentSocket;
use super::table::printable;
use super::{OutputFormat, to_json};

/// Checks this node for what Namegate needs, and says how to mend what is missing
///
/// Looks at privileges, kernel features, sysctls, bridges, the tables of others, and at ways to
/// resolve names unobserved. Beside a running agent it takes that agent's mode and resolvers.
/// Changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exits with 0 when there is no problem, with 1 otherwise. Notes are no problems.

Examples:
  sudo namegate doctor
  sudo namegate doctor --intercept tproxy -o json
  kubectl exec --namespace namegate daemonset/namegate -- namegate doctor")]
pub(crate) struct Args {
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    output: OutputFormat,
    /// The mode that the agent is going to have [default: the running agent's, or dnat]
    #[arg(long, value_name = "MODE", value_parser = choice([("dnat", InterceptionMode::Dnat), ("tproxy", InterceptionMode::Tproxy), ("off", InterceptionMode::Off)]))]
    intercept: Option<InterceptionMode>,
    /// The agent's --table
    #[arg(long, value_name = "NAME", env = TABLE_VARIABLE, hide_env_values = true, default_value = DEFAULT_TABLE)]
    table: String,
    #[command(flatten)]
    agent: AgentSocket,
}

/// Runs the verb.
pub(crate) fn run(args: &Args, style: TerminalStyle) -> crate::Result {
    let findings = doctor::examine_node(&args.agent.run_dir, args.intercept, &args.table)?;
    crate::print(&match args.output {
        OutputFormat::Table => render(&findings, style),
        OutputFormat::Json => to_json(&findings)?,
    })?;
    Ok(match doctor::has_problem(&findings) {
        true => VerbOutcome::Negative,
        false => VerbOutcome::Positive,
    })
}

fn render(findings: &[NodeFinding], style: TerminalStyle) -> String {
    let mut text = String::new();
    for NodeFinding {
        code,
        level,
        found,
        mend,
    } in findings
    {
        let level = match level {
            FindingLevel::Ok => "ok",
            FindingLevel::Note => "note",
            FindingLevel::Problem => "PROBLEM",
        };
        // Writing to a String does not fail.
        let pad = " ".repeat(8_usize.saturating_sub(level.len()));
        let _ = writeln!(
            text,
            "{}{pad} {code:<18} {}",
            style.paint(level),
            printable(found.clone())
        );
        if let Some(mend) = mend {
            let _ = writeln!(text, "{:<27} mend: {}", "", printable(mend.clone()));
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let _ = writeln!(
        text,
        "\n{} checks: {} problems, {} notes",
        findings.len(),
        count(FindingLevel::Problem),
        count(FindingLevel::Note)
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line_and_how_to_mend_it_another() {
        let finding = |level, mend: Option<&str>| NodeFinding {
            code: "nft",
            level,
            found: "something".into(),
            mend: mend.map(str::to_owned),
        };
        let text = render(
            &[
                finding(FindingLevel::Ok, None),
                finding(FindingLevel::Problem, Some("do it")),
            ],
            TerminalStyle::default(),
        );
        assert_eq!(
            text,
            "ok       nft                something\n\
             PROBLEM  nft                something\n                            mend: do it\n\n\
             2 checks: 1 problems, 0 notes\n"
        );
    }
}
