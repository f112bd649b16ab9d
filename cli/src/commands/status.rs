//! `namegate status`: shows the state of the running agent.

use std::fmt::Write;
use std::time::Duration;

use api::ask;
use api::{
    AgentStatus, EndpointRow, OtherClusterStatus, RepairStatus, ReportRow, RuleRow, SourceStatus, SupervisorStatus,
};
use settings::DEFAULT_CLUSTER_NAME;

use crate::VerbOutcome;
use crate::terminal::TerminalStyle;

use super::agent_socket::AgentSocket;
use super::table::{list, printable, table};
use super::{OutputFormat, to_json};

/// Shows the running agent: is it ready, what does it govern, what was found in the policies
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exits with 1 when the agent is not ready.

Examples:
  namegate status
  namegate status --rules
  namegate status -o json | jq '.endpoints[] | select(.egress == \"unselected\")'")]
pub(crate) struct Args {
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    output: OutputFormat,
    #[command(flatten)]
    agent: AgentSocket,
    /// Show the rules of policies instead: how much each was needed, or since when nothing has
    /// needed it
    ///
    /// Of a rule of names, names count that pods were answered; of any rule, remembered events that
    /// it decided. Flows that are allowed are events only while somebody follows them.
    #[arg(long, conflicts_with = "alive")]
    rules: bool,
    /// Print nothing, and exit with 0 as soon as an agent answers, ready or not
    #[arg(long)]
    alive: bool,
}

/// Runs the verb.
pub(crate) fn run(args: &Args, style: TerminalStyle) -> crate::Result {
    let client = args.agent.client();
    if args.rules {
        let rules = ask(client.rules())??;
        crate::print(&match args.output {
            OutputFormat::Json => to_json(&rules)?,
            OutputFormat::Table => rule_table(&rules, style),
        })?;
        return Ok(VerbOutcome::Positive);
    }
    let status = ask(client.status())??;
    if args.alive {
        return Ok(VerbOutcome::Positive);
    }
    let text = match args.output {
        OutputFormat::Json => to_json(&status)?,
        OutputFormat::Table => render(&status, style),
    };
    crate::print(&text)?;
    Ok(match status.ready {
        true => VerbOutcome::Positive,
        false => VerbOutcome::Negative,
    })
}

fn render(status: &AgentStatus, style: TerminalStyle) -> String {
    let mut text = overview(status);
    text += "\n";
    text += &endpoints(status, style);
    text += "\n";
    text += &reports(status, style);
    text
}

fn overview(status: &AgentStatus) -> String {
    let uptime = humantime::format_duration(Duration::from_secs(status.uptime_seconds));
    let ready = match (status.ready, &status.not_ready_because) {
        (true, _) if status.source.as_ref().is_some_and(|source| !source.absent.is_empty()) => {
            "yes, but policies of kinds that the API server does not have are not in force".into()
        }
        (true, _) => "yes".into(),
        (false, Some(missing)) => format!("NO: {missing}"),
        (false, None) => "NO".into(),
    };
    let interception = format!("{}, fail-mode {}", status.interception, status.fail_mode);
    let learned = format!(
        "{} names, {} addresses; {} elements in the kernel",
        status.names, status.addresses, status.elements
    );
    let mut lines = vec![
        (
            "Agent",
            format!("{}, process {}, up {uptime}", status.version, status.pid),
        ),
        ("Node", node(status)),
        ("Ready", ready),
        ("Interception", interception),
        ("Resolvers", list(&status.resolvers)),
        ("Listening", list(&status.listening)),
        ("Learned", learned),
    ];
    lines.extend(status.silent_upstreams.iter().map(|silent| {
        (
            "UPSTREAM",
            format!("does not answer, so that others are asked first: {silent}"),
        )
    }));
    if let Some(supervisor) = status.supervisor {
        lines.insert(1, ("Supervisor", supervision(supervisor)));
    }
    if let Some(source) = &status.source {
        lines.push(("API server", api_server(source)));
        if !source.absent.is_empty() {
            let absent = format!("{}; `namegate crds` prints the definitions", source.absent.join(", "));
            lines.push(("ABSENT", absent));
        }
        lines.extend(source.troubles.iter().map(|trouble| ("BROKEN", trouble.clone())));
    }
    for other in &status.other_clusters {
        lines.push(("Cluster", other_cluster(other)));
        let troubles = other.source.iter().flat_map(|source| &source.troubles);
        lines.extend(troubles.map(|trouble| ("BROKEN", format!("cluster {}: {trouble}", other.name))));
        let masked = other.masked.iter();
        lines.extend(masked.map(|masked| ("MASKED", format!("cluster {}: {masked}", other.name))));
    }
    if status.heartbeat_gaps > 0 {
        let times = status.heartbeat_gaps;
        lines.push((
            "Gaps",
            format!("{times} times lookups went past the agent, since it was stopped or too slow; see its log"),
        ));
    }
    if status.records.audited > 0 {
        let audited = status.records.audited;
        lines.push((
            "Audited",
            format!("{audited} packets passed that would have been refused; see `namegate drops --audited`"),
        ));
    }
    if let Some(failure) = &status.records.failure {
        lines.push(("Records", format!("NONE: {failure}")));
    }
    let troubles = status.state_troubles.iter();
    lines.extend(troubles.map(|trouble| {
        (
            "STATE",
            format!("{trouble}; a restart will not know what it should hold"),
        )
    }));
    if !status.damage.is_empty() {
        lines.push(("DAMAGED", status.damage.join("; ")));
    }
    if !status.changed_sysctls.is_empty() {
        lines.push(("SYSCTLS", status.changed_sysctls.join("; ")));
    }
    if let Some(repair) = &status.last_repair {
        lines.push(("Repaired", repaired(repair)));
    }
    if let Some(error) = &status.install_error {
        lines.push(("RULES", format!("NOT INSTALLED: {error}")));
    }
    lines.into_iter().fold(String::new(), |mut text, (title, value)| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{:<14}{value}", format!("{title}:"));
        text
    })
}

/// The name of the node, and of the cluster where it has one of its own.
fn node(status: &AgentStatus) -> String {
    match status.other_clusters.is_empty() && status.cluster == DEFAULT_CLUSTER_NAME {
        true => status.node.clone(),
        false => format!("{} of the cluster {}", status.node, status.cluster),
    }
}

fn other_cluster(other: &OtherClusterStatus) -> String {
    let OtherClusterStatus {
        name,
        pods,
        nodes,
        source,
        contested,
        ..
    } = other;
    let from = match source {
        Some(source) => api_server(source),
        None => "a directory".to_owned(),
    };
    let mut text = format!("{name}: {pods} pods and {nodes} nodes, from {from}");
    if !contested.is_empty() {
        let count = contested.len();
        text.push_str(&format!("; CONTESTED: {count} of its ranges and addresses, see below"));
    }
    text
}

fn repaired(repair: &RepairStatus) -> String {
    let ago = humantime::format_duration(Duration::from_secs(repair.seconds_ago));
    let damage = repair.damage.join("; ");
    format!(
        "{ago} ago, in {} ms, what somebody else had changed: {damage}",
        repair.took_ms
    )
}

fn supervision(supervisor: SupervisorStatus) -> String {
    let SupervisorStatus { pid, deaths } = supervisor;
    match deaths {
        0 => format!("process {pid}; no agent died under it"),
        _ => format!("process {pid}; AGENTS DIED under it: {deaths}; its log says how"),
    }
}

fn api_server(source: &SourceStatus) -> String {
    let age = humantime::format_duration(Duration::from_secs(source.age_seconds));
    let mut text = match source.recalled {
        true => format!(
            "{}, NOT ANSWERING: in force is what was written down {age} ago",
            source.server
        ),
        false => format!("{}, heard {age} ago", source.server),
    };
    if !source.awaited.is_empty() {
        text.push_str(&format!("; not read yet: {}", list(&source.awaited)));
    }
    text
}

fn endpoints(status: &AgentStatus, style: TerminalStyle) -> String {
    if status.endpoints.is_empty() {
        return "No endpoint is local: no Pod with an address was read for this node.\n".into();
    }
    table(
        ["ENDPOINT", "ADDRESSES", "EGRESS", "INGRESS", "PROGRAMS", "POLICIES"],
        status.endpoints.iter().map(|row| {
            [
                row.endpoint.clone(),
                list(&row.addresses),
                row.egress.clone(),
                row.ingress.clone(),
                programs(row),
                list(&row.policies),
            ]
        }),
        style,
    )
}

/// The ids of the programs of both directions: those of egress and of ingress may be one.
fn programs(row: &EndpointRow) -> String {
    let of = |program: &Option<String>| program.clone().unwrap_or_else(|| "-".into());
    format!("{} {}", of(&row.program), of(&row.ingress_program))
}

fn rule_table(rules: &[RuleRow], style: TerminalStyle) -> String {
    if rules.is_empty() {
        return "No policy is in force.\n".into();
    }
    table(
        ["POLICY", "RULE", "DOES", "PEERS", "NAMES", "EVENTS", "LAST"],
        rules.iter().map(|row| {
            [
                row.policy.clone(),
                row.rule.clone(),
                match row.is_audited {
                    true => format!("{} (audit)", row.action),
                    false => row.action.clone(),
                },
                row.peers.clone(),
                row.names.to_string(),
                row.hits.to_string(),
                match row.is_unused() {
                    true => format!("none since {}", row.since),
                    false => row.last_hit.clone().unwrap_or_else(|| "-".into()),
                },
            ]
        }),
        style,
    )
}

/// Policies, and whatever else is not simply accepted; then what was found.
fn reports(status: &AgentStatus, style: TerminalStyle) -> String {
    let worth_showing = |it: &&ReportRow| {
        let kind = it.object.split(' ').next().unwrap_or_default();
        kind.ends_with("Policy") || it.state != "accepted" || !it.findings.is_empty()
    };
    let rows: Vec<&ReportRow> = status.reports.iter().filter(worth_showing).collect();
    if rows.is_empty() {
        return "No policy was read.\n".into();
    }
    let mut text = table(
        ["OBJECT", "STATE", "FINDINGS", "FILE"],
        rows.iter().map(|row| {
            [
                match row.object.is_empty() {
                    true => "(the file)".into(),
                    false => row.object.clone(),
                },
                row.state.clone(),
                row.findings.len().to_string(),
                row.file.clone().unwrap_or_else(|| "-".into()),
            ]
        }),
        style,
    );
    let findings: Vec<String> = rows
        .iter()
        .flat_map(|row| &row.findings)
        .map(|finding| printable(finding.clone()))
        .collect();
    if !findings.is_empty() {
        text += "\n";
        text += &findings.join("\n");
        text += "\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use api::examples;

    use super::*;

    #[test]
    fn it_shows_readiness_endpoints_and_policies_with_findings() {
        insta::assert_snapshot!(render(&examples::status(None), TerminalStyle::default()));
    }

    #[test]
    fn a_rule_that_nothing_needed_says_since_when() {
        let needed = RuleRow {
            policy: "shop/api".into(),
            rule: "spec.egress[0]".into(),
            action: "allow".into(),
            peers: "*.example".into(),
            names: 2,
            since: "2026-11-30T11:00:00.000Z".into(),
            ..RuleRow::default()
        };
        let unused = RuleRow {
            rule: "spec.egress[1]".into(),
            names: 0,
            is_audited: true,
            ..needed.clone()
        };
        let text = rule_table(&[needed, unused], TerminalStyle::default());
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            lines[1],
            ["shop/api", "spec.egress[0]", "allow", "*.example", "2", "0", "-"]
        );
        let since = ["0", "none", "since", "2026-11-30T11:00:00.000Z"];
        assert!(lines[2].ends_with(&since) && lines[2].contains(&"(audit)"), "{text}");
        assert_eq!(rule_table(&[], TerminalStyle::default()), "No policy is in force.\n");
    }

    #[test]
    fn other_clusters_are_shown_with_how_old_and_whose_they_are() {
        let mut status = examples::status(None);
        status.cluster = "east".into();
        let other = OtherClusterStatus {
            name: "west".into(),
            pods: 20,
            nodes: 3,
            contested: vec!["10.1.0.0/16 overlaps".into()],
            masked: vec!["192.0.2.9, a node of it, was refused".into()],
            source: Some(SourceStatus {
                server: "https://192.0.2.1:6443/".into(),
                age_seconds: 61,
                recalled: true,
                awaited: Vec::new(),
                absent: Vec::new(),
                troubles: vec!["Pod: connection refused".into()],
            }),
        };
        let of_directory = OtherClusterStatus {
            name: "north".into(),
            contested: Vec::new(),
            masked: Vec::new(),
            source: None,
            ..other.clone()
        };
        status.other_clusters = vec![of_directory, other];
        let text = render(&status, TerminalStyle::default());
        for line in [
            "Node:         node-1 of the cluster east",
            "Cluster:      north: 20 pods and 3 nodes, from a directory",
            "Cluster:      west: 20 pods and 3 nodes, from https://192.0.2.1:6443/, NOT ANSWERING: in force is what was written \
             down 1m 1s ago; CONTESTED: 1 of its ranges and addresses, see below",
            "BROKEN:       cluster west: Pod: connection refused",
            "MASKED:       cluster west: 192.0.2.9, a node of it, was refused",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn what_is_missing_is_said_and_empty_tables_are_sentences() {
        let mut status = examples::status(Some("no listener"));
        status.endpoints.clear();
        status.reports.clear();
        status.install_error = Some("set full".into());
        status.silent_upstreams = vec!["192.0.2.53:53, for 12s".into()];
        status.damage = vec!["chain forward was removed".into()];
        status.last_repair = Some(RepairStatus {
            damage: vec!["set pods4 was removed".into(), "lo was set down".into()],
            seconds_ago: 61,
            took_ms: 40,
        });
        status.records.failure = Some("the group is taken".into());
        status.records.audited = 12;
        status.state_troubles = vec!["/s/ledger.json cannot be written: no room".into()];
        status.supervisor = Some(SupervisorStatus { pid: 6, deaths: 2 });
        insta::assert_snapshot!(render(&status, TerminalStyle::default()));
    }
}
