//! Policies, with what is known of their rules.

use std::collections::BTreeMap;

use api::{AgentStatus, ReportRow, RuleRow};
use maud::{Markup, html};

use crate::layout::{PageFrame, cell, lines};

/// The page.
pub fn page(frame: PageFrame<'_>, rules: &[RuleRow]) -> String {
    let status = frame.status;
    let mut policies: BTreeMap<&str, Vec<&RuleRow>> = BTreeMap::new();
    for rule in rules {
        policies.entry(&rule.policy).or_default().push(rule);
    }
    let troubled = status
        .reports
        .iter()
        .filter(|report| report.state != "accepted" || !report.findings.is_empty());
    let troubled: Vec<&ReportRow> = troubled.collect();
    let content = html! {
        h2 { "Findings" }
        @if troubled.is_empty() { p { "None." } }
        @for report in troubled { (findings(report)) }
        h2 { "Rules" }
        p.quiet {
            "A rule of names was hit when a Pod was answered such a name since the agent started. Of other rules, "
            "and of flows that were allowed, only what somebody watched is known."
        }
        @for (policy, rules) in &policies { (policy_rules(status, policy, rules)) }
        @if policies.is_empty() { p { "No policy is in force." } }
    };
    frame.page("/web/policies", &content)
}

fn findings(report: &ReportRow) -> Markup {
    let class = if report.state == "accepted" { "quiet" } else { "bad" };
    html! {
        div.card {
            h3 {
                (report.object) " " span class=(class) { (report.state) }
            }
            @if let Some(file) = &report.file { p.quiet { (file) } }
            (lines(report.findings.iter().map(|finding| html! { code { (finding) } })))
        }
    }
}

fn policy_rules(status: &AgentStatus, policy: &str, rules: &[&RuleRow]) -> Markup {
    let selected = status
        .endpoints
        .iter()
        .filter(|row| row.policies.iter().any(|known| known == policy));
    let selected: Vec<&str> = selected.map(|row| row.endpoint.as_str()).collect();
    html! {
        div.card {
            h3 { (policy) @if rules.iter().any(|rule| rule.is_audited) { " " span.audit { "audit" } } }
            p {
                @if selected.is_empty() { "It selects no Pod of this node." } @else { "For " (selected.join(", ")) }
            }
            table {
                thead { tr { th { "Rule" } th { "Does" } th { "Peers" } th { "Hits" } th { "Last" } } }
                tbody {
                    @for rule in rules {
                        tr class=[rule.is_unused().then_some("unused")] {
                            (cell("Rule", &html! { (rule.rule) }))
                            (cell("Does", &html! { (rule.action) }))
                            (cell("Peers", &html! { (rule.peers) }))
                            (cell("Hits", &hits(rule)))
                            (cell("Last", &html! { (rule.last_hit.as_deref().unwrap_or("-")) }))
                        }
                    }
                }
            }
        }
    }
}

fn hits(rule: &RuleRow) -> Markup {
    html! {
        @if rule.is_unused() { span.bad { "none since " (rule.since) } }
        @else {
            @if rule.names > 0 { (rule.names) " names " }
            @if rule.hits > 0 { (rule.hits) " events" }
        }
    }
}

#[cfg(test)]
mod tests {
    use api::examples;

    use super::*;

    #[test]
    fn a_rule_without_hits_is_marked_with_since_when() {
        let rule = |rule: &str, hits| RuleRow {
            policy: "shop/api".into(),
            rule: rule.into(),
            action: "allow".into(),
            peers: "*.example".into(),
            hits,
            since: "2026-11-30T11:00:00Z".into(),
            ..RuleRow::default()
        };
        let rules = [rule("spec.egress[0]", 3), rule("spec.egress[1]", 0)];
        let status = examples::status(None);
        let text = page(PageFrame { status: &status }, &rules);
        assert!(text.contains("3 events"), "{text}");
        assert_eq!(text.matches("none since 2026-11-30T11:00:00Z").count(), 1, "{text}");
        for report in status.reports.iter().filter(|report| report.state != "accepted") {
            assert!(text.contains(&report.object), "{text}");
        }
    }
}
