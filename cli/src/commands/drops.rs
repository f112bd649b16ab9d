//! `namegate drops`: lists packets that were refused, packets that an audited policy would refuse,
//! lookups that were refused, and answers that were withheld.

use api::ask;
use api::{RecordRow, Records, RecordsSummary, RefusedLookupRow, WithheldRow};
use serde::Serialize;
use thiserror::Error;

use crate::VerbOutcome;
use crate::terminal::TerminalStyle;

use super::agent_socket::AgentSocket;
use super::table::{list, table, whole_seconds};
use super::{OutputFormat, to_json};

/// Shows which packets were refused of late, or would have been, with pod, name and policy; which
/// lookups were refused, and which answers were withheld
///
/// Packets that are alike are one line, the most recent first. It is a sample: of each pod the last
/// 256 kinds of packets are remembered. VERDICT `audited` says that the packet passed, because the
/// policy that would have refused it has the annotation `namegate.io/mode: audit`. POD is whose
/// policies decided: the sender's at DIRECTION `egress`, the receiver's at `ingress`. PEER is the
/// other end, and PORT the receiver's. NAME is the name that last led this pod to the address, `-`
/// where it asked for none.
///
/// An answer is withheld, and its lookup fails, where it is not to be believed, or where the kernel
/// does not hold its addresses.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  namegate drops
  namegate drops --pod shop/web
  namegate drops --audited -o json | jq -r '.[] | [.pod, .name // .destination, .port] | @tsv' | sort -u")]
pub(crate) struct Args {
    /// Only what an audited policy would have refused
    #[arg(long)]
    audited: bool,
    /// Only what this pod's policies decided about
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = pod)]
    pod: Option<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    output: OutputFormat,
    #[command(flatten)]
    agent: AgentSocket,
}

/// Why no packets are recorded.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum NotRecorded {
    /// Recording is switched off.
    #[error("the agent does not record packets; start it without `--records-group off`")]
    Off,
    /// Recording is on and fails.
    #[error("the agent cannot record packets: {0}")]
    Failed(String),
}

/// Runs the verb.
pub(crate) fn run(args: &Args, style: TerminalStyle) -> crate::Result {
    let mut records = ask(args.agent.client().records())??;
    // Records from before a failure are shown.
    if records.rows.is_empty() && records.withheld.is_empty() && records.lookups.is_empty() {
        is_recorded(&records.summary)?;
    }
    records.rows.retain(|row| is_asked_for(row, args));
    records
        .withheld
        .retain(|row| is_client_asked_for(row.pod.as_ref(), args));
    records
        .lookups
        .retain(|row| is_client_asked_for(row.pod.as_ref(), args));
    let text = match args.output {
        OutputFormat::Json => to_json(&lines(&records))?,
        OutputFormat::Table => show(&records, style),
    };
    crate::print(&text)?;
    Ok(VerbOutcome::Positive)
}

fn is_recorded(summary: &RecordsSummary) -> Result<(), NotRecorded> {
    match &summary.failure {
        _ if summary.on => Ok(()),
        Some(failure) => Err(NotRecorded::Failed(failure.clone())),
        None => Err(NotRecorded::Off),
    }
}

fn is_asked_for(row: &RecordRow, args: &Args) -> bool {
    (!args.audited || row.verdict == "audited") && args.pod.as_ref().is_none_or(|pod| row.pod.as_ref() == Some(pod))
}

/// No lookup is refused because of an audited policy.
fn is_client_asked_for(client: Option<&String>, args: &Args) -> bool {
    !args.audited && args.pod.as_ref().is_none_or(|pod| client == Some(pod))
}

/// A record of a packet, a lookup or an answer. The field `type` tells them apart.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum DropLine<'a> {
    Packet(&'a RecordRow),
    Lookup(&'a RefusedLookupRow),
    Answer(&'a WithheldRow),
}

fn lines(records: &Records) -> Vec<DropLine<'_>> {
    let packets = records.rows.iter().map(DropLine::Packet);
    let lookups = records.lookups.iter().map(DropLine::Lookup);
    let answers = records.withheld.iter().map(DropLine::Answer);
    packets.chain(lookups).chain(answers).collect()
}

fn show(records: &Records, style: TerminalStyle) -> String {
    let mut text = match records.rows.is_empty() {
        true => "No such packet was refused since the agent started.\n".into(),
        false => render(&records.rows, style),
    };
    if !records.lookups.is_empty() {
        text += "\nLookups that were refused:\n";
        text += &render_lookups(&records.lookups, style);
    }
    if !records.withheld.is_empty() {
        text += "\nAnswers that were withheld, so that lookups failed:\n";
        text += &render_withheld(&records.withheld, style);
    }
    text + &remarks(&records.summary)
}

fn render_lookups(rows: &[RefusedLookupRow], style: TerminalStyle) -> String {
    table(
        ["LAST SEEN", "COUNT", "POD", "NAME", "POLICY", "WHY"],
        rows.iter().map(|row| {
            [
                whole_seconds(row.seen.last_seen_ms_ago),
                row.seen.count.to_string(),
                row.pod.clone().unwrap_or_else(|| row.source.to_string()),
                row.name.clone(),
                list(&row.policies),
                row.reason.strip_prefix("namegate: ").unwrap_or(&row.reason).to_owned(),
            ]
        }),
        style,
    )
}

fn render_withheld(rows: &[WithheldRow], style: TerminalStyle) -> String {
    table(
        ["LAST SEEN", "COUNT", "POD", "NAME", "UPSTREAM", "WHY"],
        rows.iter().map(|row| {
            let client = row.source.map(|client| client.to_string());
            [
                whole_seconds(row.seen.last_seen_ms_ago),
                row.seen.count.to_string(),
                row.pod.clone().or(client).unwrap_or_else(|| "(answer cache)".into()),
                row.name.clone(),
                row.upstream.to_string(),
                row.why.clone(),
            ]
        }),
        style,
    )
}

fn render(rows: &[RecordRow], style: TerminalStyle) -> String {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    table(
        [
            "LAST SEEN",
            "COUNT",
            "VERDICT",
            "DIRECTION",
            "POD",
            "PEER",
            "PORT",
            "NAME",
            "POLICY",
        ],
        rows.iter().map(|row| {
            let (judged, peer) = match row.direction.as_str() {
                "ingress" => (row.destination, row.source),
                _ => (row.source, row.destination),
            };
            [
                whole_seconds(row.seen.last_seen_ms_ago),
                row.seen.count.to_string(),
                row.verdict.clone(),
                row.direction.clone(),
                row.pod.clone().unwrap_or_else(|| judged.to_string()),
                peer.to_string(),
                port(row),
                or_dash(&row.name),
                policy(row),
            ]
        }),
        style,
    )
}

/// The port as `443/TCP`. For ICMP, the type stands in the port's place.
fn port(row: &RecordRow) -> String {
    let port = row.port.or(row.icmp_type.map(u16::from));
    match port {
        Some(port) => format!("{port}/{}", row.protocol),
        None => row.protocol.clone(),
    }
}

fn policy(row: &RecordRow) -> String {
    match (&row.policy, &row.rule) {
        (Some(policy), Some(rule)) => format!("{policy} {rule}"),
        (Some(policy), None) => policy.clone(),
        (None, _) => "-".into(),
    }
}

/// Notes on what the table does not show.
fn remarks(summary: &RecordsSummary) -> String {
    let mut text = String::new();
    if let Err(not_recorded) = is_recorded(summary) {
        text += &format!("\nNothing new is added: {not_recorded}.\n");
    }
    if summary.overruns > 0 {
        text += &format!(
            "\nRecords were lost {} times because too many came at once: counts are too low.\n",
            summary.overruns
        );
    }
    let packets = [
        ("refused", summary.refused, summary.refused_packets),
        ("audited", summary.audited, summary.audited_packets),
    ];
    for (verdict, recorded, counted) in packets {
        // Records may be a moment ahead of the counters, and are counted anew by a new agent.
        if let Some(counted) = counted.filter(|counted| *counted > recorded) {
            text += &format!("\n{recorded} of {counted} {verdict} packets are recorded: counts are a sample.\n");
        }
    }
    if summary.left_out > 0 {
        text += &format!(
            "\n{} lookups are not recorded, because their pods had too many at once.\n",
            summary.left_out
        );
    }
    text
}

fn pod(text: &str) -> Result<String, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => Ok(text.to_owned()),
        _ => Err("write the pod's namespace and name, as in shop/web".into()),
    }
}

#[cfg(test)]
mod tests {
    use api::examples;
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn verdicts(line: &[&str]) -> Vec<String> {
        let args = Command::try_parse_from([&["drops"], line].concat()).unwrap().args;
        let Records {
            rows,
            withheld,
            lookups,
            ..
        } = examples::records();
        let packets = rows.into_iter().filter(|row| is_asked_for(row, &args));
        let lookups = lookups
            .into_iter()
            .filter(|row| is_client_asked_for(row.pod.as_ref(), &args));
        let answers = withheld
            .into_iter()
            .filter(|row| is_client_asked_for(row.pod.as_ref(), &args));
        packets
            .map(|row| row.verdict)
            .chain(lookups.map(|row| row.verdict))
            .chain(answers.map(|row| row.verdict))
            .collect()
    }

    #[test]
    fn packets_that_are_alike_are_one_line() {
        insta::assert_snapshot!(render(&examples::records().rows, TerminalStyle::default()));
    }

    #[test]
    fn answers_that_were_withheld_follow_the_packets() {
        insta::assert_snapshot!(show(&examples::records(), TerminalStyle::default()));
        let mut records = examples::records();
        records.rows.clear();
        records.lookups.clear();
        insta::assert_snapshot!("only_answers_were_withheld", show(&records, TerminalStyle::default()));
        let json = serde_json::to_value(lines(&examples::records())).unwrap();
        let verdicts: Vec<_> = json.as_array().unwrap().iter().map(|row| &row["verdict"]).collect();
        assert_eq!(verdicts, ["refused", "audited", "refused", "refused", "withheld"]);
        let kinds: Vec<_> = json.as_array().unwrap().iter().map(|row| &row["type"]).collect();
        assert_eq!(kinds, ["flow", "flow", "flow", "lookup", "answer"]);
    }

    #[test]
    fn only_what_is_asked_for_is_shown() {
        let all = ["refused", "audited", "refused", "refused", "withheld"];
        assert_eq!(verdicts(&[]), all);
        assert_eq!(verdicts(&["--audited"]), ["audited"]);
        assert_eq!(verdicts(&["--pod", "shop/api"]), all);
        assert_eq!(verdicts(&["--pod", "shop/web"]), [""; 0]);
        assert!(Command::try_parse_from(["drops", "--pod", "web"]).is_err());
    }

    #[test]
    fn that_packets_are_not_recorded_is_no_empty_list() {
        let mut summary = examples::records().summary;
        assert_eq!(is_recorded(&summary), Ok(()));
        assert_eq!(remarks(&summary), "");
        summary.refused_packets = Some(summary.refused + 1);
        summary.left_out = 4;
        let told = remarks(&summary);
        assert!(
            told.contains("3 of 4 refused packets") && told.contains("4 lookups are not"),
            "{told}"
        );
        summary.overruns = 2;
        assert!(remarks(&summary).contains("lost 2 times"));
        summary.on = false;
        assert_eq!(is_recorded(&summary), Err(NotRecorded::Off));
        summary.failure = Some("the group is taken".into());
        let message = is_recorded(&summary).unwrap_err().to_string();
        assert!(message.contains("the group is taken"), "{message}");
        assert!(remarks(&summary).contains("the group is taken"));
    }
}
