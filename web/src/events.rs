//! What happens, live.

use api::{EventEndRow, EventQuery, EventRow};
use maud::{Markup, html};

use crate::STREAM_PATH;
use crate::layout::{PageFrame, cell, choice, field, lines};

/// So many events are shown at a time; the script keeps as many.
pub const SHOWN: usize = 200;

const COLUMNS: [&str; 7] = ["Time", "Type", "Verdict", "From", "To", "Decided by", "Why"];

/// The page, with the events that are remembered, the oldest first; of all events the last was
/// `latest`.
pub fn page(frame: PageFrame<'_>, query: &EventQuery, remembered: &[EventRow], latest: u64) -> String {
    let content = html! {
        form.filter method="get" action="/" {
            (field("pod", "Pod", &query.pod, "shop/web"))
            (field("namespace", "Namespace", &query.namespace, "shop"))
            (field("to_fqdn", "Name", &query.to_fqdn, "**.example.com"))
            (field("to_ip", "To address", &query.to_ip, "192.0.2.0/24"))
            (field("port", "Port", &query.port, "443"))
            (choice("verdict", "Verdict", &query.verdict, &["", "allowed", "refused", "audited", "failed", "noted"]))
            (choice("type", "Type", &query.kind, &["", "lookup", "flow", "request", "policy", "agent"]))
            button type="submit" { "Filter" }
            a href="/" { "Clear" }
        }
        p.state {
            span #state role="status" { "Reload to see what is new: the script does not run." }
            " " span #count {}
            " " button #pause type="button" hidden { "Pause" }
        }
        table #events data-stream=(STREAM_PATH) data-shown=(SHOWN) data-after=(latest) {
            thead { tr { @for column in COLUMNS { th { (column) } } } }
            tbody { (rows(remembered)) }
        }
    };
    frame.page("/", &content)
}

/// Events as rows of the table, the latest first.
pub fn rows(events: &[EventRow]) -> Markup {
    html! { @for event in events.iter().rev() { (row(event)) } }
}

fn row(event: &EventRow) -> Markup {
    let [time, kind, verdict, from, to, decided, why] = COLUMNS;
    // Days are told by the title: what is shown is of today nearly always.
    let clock = event
        .time
        .split_once('T')
        .map_or(event.time.as_str(), |(_, clock)| clock);
    let rule = event.rule.as_ref().map(|rule| format!(" {rule}"));
    html! {
        tr class=(event.verdict) data-sequence=(event.sequence) {
            (cell(time, &html! { time title=(event.time) { (clock) } }))
            (cell(kind, &html! { (event.kind) }))
            (cell(verdict, &html! { span.verdict { (event.verdict) } }))
            (cell(from, &html! { @if let Some(source) = &event.source { (end(source)) } }))
            (cell(to, &destination(event)))
            (cell(decided, &html! { (event.policies.join(", ")) @if let Some(rule) = rule { (rule) } }))
            (cell(why, &html! {
                @if let Some(totals) = &event.totals { (totals) " " }
                @if let Some(reason) = &event.reason { (reason.strip_prefix("namegate: ").unwrap_or(reason)) }
            }))
        }
    }
}

/// What was asked for, or who was meant.
fn destination(event: &EventRow) -> Markup {
    html! {
        @if let Some(lookup) = &event.lookup {
            "? " (lookup.name)
            @for address in &lookup.addresses { div.quiet { (address) } }
        }
        @if let Some(destination) = &event.destination {
            (end(destination))
            @if let Some(protocol) = event.protocol_text() { " " (protocol) }
        }
        @if let Some(request) = &event.request {
            div { (request) }
        }
        @if let Some(nat) = &event.nat {
            (lines(nat.asked.map(|asked| html! { span.quiet { "asked " (asked) } })))
            (lines(nat.sent_as.map(|sent_as| html! { span.quiet { "sent as " (sent_as) } })))
        }
    }
}

/// An end, with a filter for its Pod behind the name of it.
fn end(end: &EventEndRow) -> Markup {
    let text = end.to_string();
    let pod = end.namespace.as_ref().zip(end.pod.as_ref());
    let pod = pod.map(|(namespace, pod)| format!("{namespace}/{pod}"));
    let labels = end.labels.join(", ");
    html! {
        @match pod.as_ref().and_then(|pod| text.strip_prefix(pod.as_str())) {
            Some(rest) => {
                // Neither namespaces nor names of Pods have letters that a query must escape.
                a href={ "/?pod=" (pod.as_deref().unwrap_or_default()) } title=(labels) {
                    (pod.as_deref().unwrap_or_default())
                }
                span.quiet { (rest) }
            }
            None => (text),
        }
    }
}

#[cfg(test)]
mod tests {
    use api::examples::{self, refused_lookup};
    use api::{FlowTotalsRow, LookupAnswerRow};

    use super::*;

    #[test]
    fn a_refused_lookup_says_who_asked_for_what_and_why_it_was_refused() {
        let text = rows(&[refused_lookup()]).into_string();
        for part in [
            "<tr class=\"refused\" data-sequence=\"7\">",
            "12:00:00.123Z",
            "<a href=\"/?pod=shop/web\"",
            "? mail.example",
            "shop/web-egress",
            ">no toFQDNs selector",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }

    #[test]
    fn what_a_pod_chooses_is_text_and_never_markup() {
        let hostile = "<script>alert(1)</script>\" onmouseover=\"x";
        let mut event = refused_lookup();
        event.reason = Some(hostile.into());
        event.policies = vec![hostile.into()];
        event.verdict = hostile.into();
        event.lookup = Some(LookupAnswerRow {
            name: hostile.into(),
            ..LookupAnswerRow::default()
        });
        if let Some(source) = &mut event.source {
            source.pod = Some(hostile.into());
            source.labels = vec![hostile.into()];
        }
        let query = EventQuery {
            pod: hostile.into(),
            ..EventQuery::default()
        };
        let status = examples::status(None);
        let text = page(PageFrame { status: &status }, &query, &[event], 7);
        assert!(!text.contains("<script>") && !text.contains("\" onmouseover"), "{text}");
    }

    #[test]
    fn the_latest_stands_first_and_the_filter_shows_what_is_asked() {
        let later = EventRow {
            sequence: 8,
            kind: "flow".into(),
            totals: Some(FlowTotalsRow {
                packets: Some(12),
                bytes: Some(3_456),
                duration_ms: 1_200,
            }),
            ..refused_lookup()
        };
        let query = EventQuery {
            pod: "shop/web".into(),
            verdict: "refused".into(),
            ..EventQuery::default()
        };
        let status = examples::status(Some("the ruleset is not in the kernel"));
        let text = page(PageFrame { status: &status }, &query, &[refused_lookup(), later], 8);
        let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part} is missing in {text}"));
        assert!(at("data-sequence=\"8\"") < at("data-sequence=\"7\""));
        at("value=\"shop/web\"");
        at("<option value=\"refused\" selected>");
        at("not ready: the ruleset is not in the kernel");
        at("ended after 1s 200ms: 12 packets, 3456 bytes");
    }
}
