//! `namegate observe`: shows what happens on this node, as it happens.

use std::fmt::Write as _;
use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

use api::{EventQuery, EventRow, ask};
use clap::ValueEnum;
use serde_json::to_string;
use thiserror::Error;

use crate::VerbOutcome;
use crate::terminal::TerminalStyle;

use super::agent_socket::AgentSocket;
use super::table::{list, printable, table};

/// How many events are shown where nothing is said of that, as of hubble.
const LAST: usize = 20;

/// Shows lookups, flows and news of policies: what was let through, refused, audited, or failed,
/// and which policies decided
///
/// Without -f, what the agent remembers: of each pod the last 1,024 events. Lookups and flows that
/// are allowed are recorded only while somebody follows with -f. Where events were lost, a line
/// says how many.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Lists may be separated by commas, or flags repeated; one of a list is enough, and all flags must match.
The fields of -o json are in docs/observe.md.

Examples:
  namegate observe -f
  namegate observe --since 5m --pod shop/web --verdict refused
  namegate observe -f --type lookup --to-fqdn '**.example.com'
  namegate observe --last 1000 -o json | jq -r 'select(.verdict==\"refused\") | .lookup.name // empty' | sort | uniq -c")]
pub(crate) struct Args {
    /// Go on with what comes, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Only what is not older than this
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
    /// Of what is remembered, only the last so many [default: 20, without --since and -f]
    #[arg(short = 'n', long, value_name = "N")]
    last: Option<usize>,
    /// A pod at either end
    #[arg(long, value_name = "NAMESPACE/NAME", value_delimiter = ',')]
    pod: Vec<String>,
    /// The namespace of a pod at either end
    #[arg(long, value_name = "NAMESPACE", value_delimiter = ',')]
    namespace: Vec<String>,
    /// The name that was asked for, or that led to the destination; with stars a pattern
    #[arg(long, value_name = "NAME|PATTERN", value_delimiter = ',')]
    to_fqdn: Vec<String>,
    /// The destination's address, or one of the answer
    #[arg(long, value_name = "IP|CIDR", value_delimiter = ',')]
    to_ip: Vec<String>,
    /// The port at either end
    #[arg(long, value_name = "PORT", value_delimiter = ',')]
    port: Vec<u16>,
    /// What was decided
    #[arg(long, value_enum, value_delimiter = ',')]
    verdict: Vec<VerdictFilter>,
    /// Which kind of event
    #[arg(short = 't', long = "type", value_enum, value_delimiter = ',')]
    kind: Vec<KindFilter>,
    /// How to print
    #[arg(short, long, value_enum, default_value = "compact")]
    output: EventFormat,
    #[command(flatten)]
    agent: AgentSocket,
}

/// The values of `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EventFormat {
    /// One line for each, for people.
    Compact,
    /// One JSON object a line, for programs.
    Json,
    /// A table; not with -f.
    Table,
}

/// The values of `--verdict`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum VerdictFilter {
    /// Let through.
    Allowed,
    /// Refused by policies.
    Refused,
    /// Let through, and would have been refused if the policy were enforced.
    Audited,
    /// Allowed, and failed.
    Failed,
    /// News.
    Noted,
}

/// The values of `--type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum KindFilter {
    /// DNS lookups.
    Lookup,
    /// Connections, and packets of none.
    Flow,
    /// Requests inside connections.
    Request,
    /// News of policies.
    Policy,
    /// News of the agent.
    Agent,
}

/// A table needs an end.
#[derive(Debug, Error)]
#[error("-o table cannot follow; use -o compact or -o json with -f")]
pub(crate) struct EndlessTable;

/// Runs the verb.
pub(crate) fn run(args: &Args, style: TerminalStyle) -> crate::Result {
    if args.follow && args.output == EventFormat::Table {
        return Err(EndlessTable.into());
    }
    let client = args.agent.client();
    let mut rows = Vec::new();
    let mut printed: io::Result<()> = Ok(());
    let see = |row: EventRow| {
        let line = match args.output {
            EventFormat::Table => {
                rows.push(row);
                return ControlFlow::Continue(());
            }
            EventFormat::Compact => compact(&row, style) + "\n",
            EventFormat::Json => match to_string(&row) {
                Ok(text) => text + "\n",
                Err(error) => {
                    printed = Err(error.into());
                    return ControlFlow::Break(());
                }
            },
        };
        match crate::print_some(&line) {
            Ok(crate::Reader::Listens) => ControlFlow::Continue(()),
            Ok(crate::Reader::HasGone) => ControlFlow::Break(()),
            Err(error) => {
                printed = Err(error);
                ControlFlow::Break(())
            }
        }
    };
    ask(client.events(&query(args), see))??;
    printed?;
    if args.output == EventFormat::Table {
        crate::print(&tabular(&rows, style))?;
    }
    Ok(VerbOutcome::Positive)
}

fn query(args: &Args) -> EventQuery {
    let ports: Vec<String> = args.port.iter().map(ToString::to_string).collect();
    EventQuery {
        pod: args.pod.join(","),
        namespace: args.namespace.join(","),
        to_fqdn: args.to_fqdn.join(","),
        to_ip: args.to_ip.join(","),
        port: ports.join(","),
        verdict: words(&args.verdict),
        kind: words(&args.kind),
        since_ms: args
            .since
            .map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
        last: args.last.or((args.since.is_none() && !args.follow).then_some(LAST)),
        follow: args.follow,
    }
}

fn words<T: ValueEnum>(values: &[T]) -> String {
    let words: Vec<String> = values
        .iter()
        .filter_map(|value| value.to_possible_value())
        .map(|value| value.get_name().to_owned())
        .collect();
    words.join(",")
}

/// An event in a line: when, who, what, and what became of it.
fn compact(row: &EventRow, style: TerminalStyle) -> String {
    let mut line = format!("{} {:<7}", row.time, row.kind);
    if let Some(source) = &row.source {
        let _ = write!(line, " {source}");
    }
    if let Some(lookup) = &row.lookup {
        let _ = write!(line, " ? {}", lookup.name);
        if !lookup.addresses.is_empty() {
            let _ = write!(line, " = {}", list(&lookup.addresses));
        }
    }
    if let Some(destination) = &row.destination {
        let _ = write!(line, " -> {destination}");
    }
    if let Some(protocol) = row.protocol_text() {
        let _ = write!(line, " {protocol}");
    }
    if let Some(request) = &row.request {
        let _ = write!(line, " {request}");
    }
    if let Some(asked) = row.nat.as_ref().and_then(|nat| nat.asked) {
        let _ = write!(line, " (asked {asked})");
    }
    let mut line = printable(line);
    if row.verdict != "noted" {
        let _ = write!(line, " {}", style.paint(&printable(row.verdict.to_uppercase())));
    }
    let mut why = String::new();
    if let Some(totals) = &row.totals {
        let _ = write!(why, ", {totals}");
    }
    if let Some(decided) = decided(row) {
        let _ = write!(why, " by {decided}");
    }
    if let Some(reason) = &row.reason {
        let colon = if row.verdict == "noted" { "" } else { ":" };
        let _ = write!(why, "{colon} {}", reason.strip_prefix("namegate: ").unwrap_or(reason));
    }
    line + &printable(why)
}

/// The policies that decided, with the rule; `None` for news, whose text names the policy.
fn decided(row: &EventRow) -> Option<String> {
    if row.policies.is_empty() || row.kind == "policy" {
        return None;
    }
    let mut text = list(&row.policies);
    if let Some(direction) = row.direction.as_ref().filter(|_| row.kind != "lookup") {
        text = format!("{direction} of {text}");
    }
    if let Some(rule) = &row.rule {
        let _ = write!(text, " {rule}");
    }
    Some(text)
}

fn tabular(rows: &[EventRow], style: TerminalStyle) -> String {
    if rows.is_empty() {
        return "No such event is remembered.\n".into();
    }
    table(
        ["TIME", "TYPE", "VERDICT", "SOURCE", "DESTINATION", "POLICY", "WHY"],
        rows.iter().map(|row| {
            let asked = row.lookup.as_ref().map(|lookup| lookup.name.clone());
            let destination = row.destination.as_ref().map(|destination| {
                let protocol = row.protocol_text().map(|protocol| format!("/{protocol}"));
                destination.to_string() + &protocol.unwrap_or_default()
            });
            let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
            [
                row.time.clone(),
                row.kind.clone(),
                row.verdict.clone(),
                or_dash(row.source.as_ref().map(ToString::to_string)),
                or_dash(asked.or(destination)),
                or_dash(decided(row)),
                or_dash(row.reason.clone()),
            ]
        }),
        style,
    )
}

#[cfg(test)]
mod tests {
    use api::examples::refused_lookup;
    use api::{EventEndRow, FlowNatRow, FlowTotalsRow};
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &[&str]) -> Args {
        Command::try_parse_from([&["observe"], line].concat()).unwrap().args
    }

    fn rows() -> Vec<EventRow> {
        let lookup = refused_lookup();
        let flow = EventRow {
            sequence: 8,
            kind: "flow".into(),
            destination: Some(EventEndRow {
                address: Some("2001:db8::1".parse().unwrap()),
                port: Some(25),
                names: vec!["mail.example".into()],
                ..EventEndRow::default()
            }),
            protocol: Some("TCP".into()),
            lookup: None,
            rule: Some("spec.egressDeny[0]".into()),
            reason: None,
            ..lookup.clone()
        };
        let ended = EventRow {
            sequence: 9,
            verdict: "allowed".into(),
            rule: Some("spec.egress[0]".into()),
            nat: Some(FlowNatRow {
                asked: Some("[2001:db8:96::7]:8025".parse().unwrap()),
                sent_as: None,
            }),
            totals: Some(FlowTotalsRow {
                packets: Some(12),
                bytes: Some(3_456),
                duration_ms: 1_200,
            }),
            ..flow.clone()
        };
        let news = EventRow {
            sequence: 10,
            time: "2026-11-30T12:00:01.000Z".into(),
            node: "node-1".into(),
            kind: "policy".into(),
            verdict: "noted".into(),
            policies: vec!["shop/web-egress".into()],
            reason: Some("shop/web-egress is in force for shop/web".into()),
            ..EventRow::default()
        };
        let lost = EventRow {
            kind: "agent".into(),
            verdict: "failed".into(),
            policies: Vec::new(),
            reason: Some("5 events are not shown".into()),
            lost: Some(5),
            ..news.clone()
        };
        vec![lookup, flow, ended, news, lost]
    }

    #[test]
    fn an_event_is_a_line() {
        let lines: Vec<String> = rows()
            .iter()
            .map(|row| compact(row, TerminalStyle::default()))
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn only_the_verdict_of_a_refused_event_is_painted() {
        let style = TerminalStyle {
            colour: true,
            columns: None,
        };
        let line = compact(&rows()[0], style);
        assert!(
            line.contains("mail.example \u{1b}[31mREFUSED\u{1b}[39m by "),
            "{line:?}"
        );
        assert!(!compact(&rows()[2], style).contains('\u{1b}'));
    }

    #[test]
    fn events_are_a_table() {
        insta::assert_snapshot!(tabular(&rows(), TerminalStyle::default()));
    }

    #[test]
    fn an_event_is_an_object_without_fields_that_mean_nothing() {
        let lines: Vec<String> = rows().iter().map(|row| to_string(row).unwrap()).collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn flags_become_the_query_that_the_agent_answers() {
        assert_eq!(query(&args(&[])).last, Some(20), "as hubble");
        assert_eq!(query(&args(&["-f"])).last, None);
        assert_eq!(
            query(&args(&[
                "--since", "5m", "--pod", "shop/web", "--pod", "shop/db", "--port", "80,443"
            ])),
            EventQuery {
                pod: "shop/web,shop/db".into(),
                port: "80,443".into(),
                since_ms: Some(300_000),
                ..EventQuery::default()
            }
        );
        assert_eq!(
            query(&args(&["--verdict", "refused,audited", "-t", "lookup", "--last", "3"])),
            EventQuery {
                verdict: "refused,audited".into(),
                kind: "lookup".into(),
                last: Some(3),
                ..EventQuery::default()
            }
        );
        assert!(Command::try_parse_from(["observe", "--verdict", "dropped"]).is_err());
    }

    #[test]
    fn a_table_that_would_never_end_is_refused() {
        let error = run(&args(&["-f", "-o", "table"]), TerminalStyle::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("-o compact"), "{error}");
    }
}
