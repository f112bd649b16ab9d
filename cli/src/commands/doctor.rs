//! `namegate doctor`: checks what this node needs, and tells how to mend what it lacks.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use api::AgentStatus;
use api::{ApiClient, ClientError};
use api::{ExplainQuestion, ExplainVerdict, ask};
use doctor::{self, DOCUMENTATION_ADDRESSES, FindingLevel, NodeFinding, OpenProviders, RunningAgent};
use policy::encrypted_dns::{HTTPS_PORT, PROVIDERS, TLS_PORT};
use settings::{DEFAULT_RUN_DIR, DEFAULT_TABLE, InterceptionMode, choice};

use crate::VerbOutcome;

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
    #[arg(long, value_name = "NAME", default_value = DEFAULT_TABLE)]
    table: String,
    /// The agent's --run-dir
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_DIR)]
    run_dir: PathBuf,
}

/// Runs the verb.
pub(crate) fn run(args: &Args) -> crate::Result {
    let client = ApiClient::new(&args.run_dir);
    let status = match ask(client.status())? {
        Ok(status) => Some(status),
        // A node is looked at before an agent is there.
        Err(ClientError::NoAgent { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let its_mode = status.as_ref().and_then(|status| mode(&status.interception));
    let interception = args.intercept.or(its_mode).unwrap_or(InterceptionMode::Dnat);
    let running = match status {
        Some(status) => {
            let (open_to_encrypted_dns, open_providers) = ask(bypasses(&client, &status))??;
            Some(RunningAgent {
                resolvers: status.resolvers.iter().filter_map(|text| resolver(text)).collect(),
                open_to_encrypted_dns,
                open_providers,
            })
        }
        None => None,
    };
    let findings = doctor::examine(&doctor::read(interception, &args.table, running));
    crate::print(&match args.output {
        OutputFormat::Table => render(&findings),
        OutputFormat::Json => to_json(&findings)?,
    })?;
    Ok(
        match findings.iter().any(|finding| finding.level == FindingLevel::Problem) {
            true => VerbOutcome::Negative,
            false => VerbOutcome::Positive,
        },
    )
}

/// Which ways to resolve names unobserved a program leaves open.
#[derive(Debug, Clone, Default)]
struct Bypasses {
    /// DNS over TLS to anybody.
    anybody: bool,
    providers: Vec<&'static str>,
}

/// Asks for one endpoint of each program; the others of a program are told the same.
async fn bypasses(client: &ApiClient, status: &AgentStatus) -> Result<(Vec<String>, Vec<OpenProviders>), ClientError> {
    let mut told: BTreeMap<_, Bypasses> = BTreeMap::new();
    let (mut open, mut open_providers) = (Vec::new(), Vec::new());
    for row in status.endpoints.iter().filter(|row| row.egress == "default-deny") {
        let bypasses = match told.get(&row.program) {
            Some(known) => known.clone(),
            None => {
                let found = find_bypasses(client, &row.endpoint).await?;
                told.insert(row.program.clone(), found.clone());
                found
            }
        };
        if bypasses.anybody {
            open.push(row.endpoint.clone());
        }
        if !bypasses.providers.is_empty() {
            open_providers.push(OpenProviders {
                endpoint: row.endpoint.clone(),
                providers: bypasses.providers,
            });
        }
    }
    Ok((open, open_providers))
}

async fn find_bypasses(client: &ApiClient, endpoint: &str) -> Result<Bypasses, ClientError> {
    let mut found = Bypasses::default();
    for address in DOCUMENTATION_ADDRESSES {
        found.anybody |= may_reach(client, endpoint, address.to_string(), TLS_PORT).await?;
    }
    for provider in PROVIDERS {
        // The usual name, and of each family the usual address.
        let addresses = [IpAddr::is_ipv4, IpAddr::is_ipv6].map(|is_of_family| {
            let mut addresses = provider.addresses.iter();
            addresses.find(|address| is_of_family(address)).map(ToString::to_string)
        });
        let host = provider.hosts.first().map(ToString::to_string);
        for server in addresses.into_iter().chain([host]).flatten() {
            let is_open = may_reach(client, endpoint, server.clone(), HTTPS_PORT).await?
                // Of anybody's port it is said already.
                || (!found.anybody && may_reach(client, endpoint, server, TLS_PORT).await?);
            if is_open {
                found.providers.push(provider.name);
                break;
            }
        }
    }
    Ok(found)
}

async fn may_reach(client: &ApiClient, endpoint: &str, to: String, port: u16) -> Result<bool, ClientError> {
    let question = ExplainQuestion {
        from: endpoint.to_owned(),
        to,
        port: Some(port),
        protocol: None,
    };
    match client.explain(&question).await {
        Ok(answer) => Ok(answer.verdict == ExplainVerdict::Allowed),
        // A Pod that has gone meanwhile.
        Err(ClientError::CannotTell(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn mode(text: &str) -> Option<InterceptionMode> {
    [
        ("dnat", InterceptionMode::Dnat),
        ("tproxy", InterceptionMode::Tproxy),
        ("off", InterceptionMode::Off),
    ]
    .into_iter()
    .find_map(|(word, mode)| (word == text).then_some(mode))
}

fn resolver(text: &str) -> Option<SocketAddr> {
    text.parse::<settings::DnsAddress>().ok().map(|address| address.0)
}

fn render(findings: &[NodeFinding]) -> String {
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
        let _ = writeln!(text, "{level:<8} {code:<18} {}", printable(found.clone()));
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
        let text = render(&[
            finding(FindingLevel::Ok, None),
            finding(FindingLevel::Problem, Some("do it")),
        ]);
        assert_eq!(
            text,
            "ok       nft                something\n\
             PROBLEM  nft                something\n                            mend: do it\n\n\
             2 checks: 1 problems, 0 notes\n"
        );
    }

    #[test]
    fn resolvers_are_read_as_status_shows_them() {
        assert_eq!(resolver("10.53.0.53:53"), Some("10.53.0.53:53".parse().unwrap()));
        assert_eq!(resolver("10.53.0.53"), Some("10.53.0.53:53".parse().unwrap()));
    }
}
