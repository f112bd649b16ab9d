//! How the agent is.

use std::time::Duration;

use api::RecordsSummary;
use maud::{Markup, html};

use crate::layout::{PageFrame, lines};

/// The page.
pub fn page(frame: PageFrame<'_>) -> String {
    let status = frame.status;
    let uptime = humantime::format_duration(Duration::from_secs(status.uptime_seconds));
    let facts = [
        (
            "Agent",
            format!("{}, process {}, up {uptime}", status.version, status.pid),
        ),
        ("Node", status.node.clone()),
        ("Cluster", status.cluster.clone()),
        (
            "Interception",
            format!("{}, fail-mode {}", status.interception, status.fail_mode),
        ),
        ("Resolvers", status.resolvers.join(", ")),
        ("Listening", status.listening.join(", ")),
        ("Pods", status.endpoints.len().to_string()),
        (
            "Names",
            format!("{}, with {} addresses", status.names, status.addresses),
        ),
        ("Kernel", format!("{} elements", status.elements)),
    ];
    let source = status.source.iter().flat_map(|source| &source.troubles);
    let others = status.other_clusters.iter().filter_map(|other| other.source.as_ref());
    let others = others.flat_map(|source| &source.troubles);
    let troubles = [
        ("Not ready", trouble(&status.not_ready_because)),
        ("Rules cannot be installed", trouble(&status.install_error)),
        ("Changed by others", trouble(&status.damage)),
        ("Changed sysctls", trouble(&status.changed_sysctls)),
        ("Upstreams that do not answer", trouble(&status.silent_upstreams)),
        ("API servers", trouble(source.chain(others))),
        ("Files", trouble(&status.state_troubles)),
        ("Records", trouble(&status.records.failure)),
    ];
    let is_well = troubles.iter().all(|(_, lines)| lines.is_empty());
    let content = html! {
        @if is_well { p.good { "Nothing is wrong." } }
        @for (title, found) in troubles.iter().filter(|(_, found)| !found.is_empty()) {
            div.card { h3.bad { (title) } (lines(found)) }
        }
        dl { @for (title, fact) in &facts { dt { (title) } dd { (fact) } } }
        h2 { "Packets" }
        (records(&status.records))
        p { a href="/metrics" { "Metrics" } ", " a href="/readyz" { "readiness" } }
    };
    frame.page("/web/agent", &content)
}

fn trouble<'a>(lines: impl IntoIterator<Item = &'a String>) -> Vec<&'a str> {
    lines.into_iter().map(String::as_str).collect()
}

/// Totals, and how many of them were recorded.
fn records(summary: &RecordsSummary) -> Markup {
    let total = |recorded: u64, counted: Option<u64>| match counted {
        Some(counted) => format!("{counted}, of which {recorded} are recorded"),
        None => format!("{recorded} are recorded"),
    };
    html! {
        dl {
            dt { "Refused" } dd { (total(summary.refused, summary.refused_packets)) }
            dt { "Audited" } dd { (total(summary.audited, summary.audited_packets)) }
            @if summary.left_out > 0 { dt { "Events left out" } dd.bad { (summary.left_out) } }
            @if summary.overruns > 0 { dt { "Records lost" } dd.bad { (summary.overruns) " times" } }
        }
    }
}

#[cfg(test)]
mod tests {
    use api::examples;

    use super::*;

    #[test]
    fn what_is_wrong_is_said_and_totals_say_how_many_were_recorded() {
        let mut status = examples::status(Some("the ruleset is not in the kernel"));
        status.records = RecordsSummary {
            on: true,
            refused: 3,
            refused_packets: Some(17),
            ..RecordsSummary::default()
        };
        let text = page(PageFrame { status: &status });
        for part in ["the ruleset is not in the kernel", "17, of which 3 are recorded"] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        assert!(!text.contains("Nothing is wrong"), "{text}");
    }
}
