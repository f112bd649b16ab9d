//! Rules about requests and TLS names that are without effect, or that say less than they seem to.

use names::Name;

use crate::diagnostic::quoted;
use crate::diagnostic_report::DiagnosticReport;
use crate::direction::Direction;
use crate::l7::{HttpExpression, HttpRule, HttpRuleList, L7Rules};
use crate::peer_selector::PeerSelector;
use crate::policy::{Action, DirectionSpec, InspectedPorts, PolicyRule, PolicySpec};

use super::path_of;
use super::shadows::ComparisonBudget;

/// Findings about what one spec says of connections beyond their ports.
pub(super) fn of_one(spec: &PolicySpec, budget: &mut ComparisonBudget, report: &mut DiagnosticReport<'_>) {
    for (direction, spec) in spec.directions.iter() {
        for rule in spec.rules_that(Action::Allow) {
            for inspected in &rule.inspected {
                if !spec.closes {
                    not_closed(direction, inspected, report);
                }
                void(spec, rule, inspected, budget, report);
                of_requests(inspected, report);
                names_missed(rule, inspected, report);
            }
        }
    }
}

/// Where nothing closes the direction, everything passes whatever it announces.
fn not_closed(direction: Direction, inspected: &InspectedPorts, report: &mut DiagnosticReport<'_>) {
    let reason = format!(
        "{direction} is not closed by this spec, so by itself it lets every connection through, not only these"
    );
    report
        .warning("l7-without-default-deny", &inspected.path, reason)
        .suggest(format!("take `enableDefaultDeny.{direction}: false` out"));
}

/// An allowance of ports alone wins over what is asked beyond them.
fn void(
    spec: &DirectionSpec,
    rule: &PolicyRule,
    inspected: &InspectedPorts,
    budget: &mut ComparisonBudget,
    report: &mut DiagnosticReport<'_>,
) {
    let as_plain = PolicyRule {
        ports: inspected.ports.clone(),
        named: inspected.named.clone(),
        inspected: Vec::new(),
        dns: Vec::new(),
        ..rule.clone()
    };
    if as_plain.ports.is_empty() && as_plain.named.is_empty() {
        return;
    }
    let by = spec
        .rules_that(Action::Allow)
        .find(|whole| budget.rule_in(&as_plain, whole));
    if let Some(by) = by {
        let by = path_of(&by.origin);
        let reason = format!("{by} lets every connection to these ports through, so nothing is asked of them");
        report
            .warning("void-l7-rule", &inspected.path, reason)
            .suggest("take the ports out of that rule, or make it narrower");
    }
}

fn of_requests(inspected: &InspectedPorts, report: &mut DiagnosticReport<'_>) {
    let Some(list) = &inspected.rules.http else { return };
    for (position, rule) in list.rules().iter().enumerate() {
        let path = format!("{}.rules.http[{position}]", inspected.path);
        of_expressions(rule, &path, report);
        get_without_head(rule, list, &path, report);
    }
}

fn of_expressions(rule: &HttpRule, path: &str, report: &mut DiagnosticReport<'_>) {
    let fields = [("method", &rule.method), ("path", &rule.path), ("host", &rule.host)];
    for (field, expression) in fields {
        let Some(expression) = expression else { continue };
        if expression.is_anchored() {
            let reason = "an expression always matches the whole value, so `^` and `$` at its ends say nothing";
            report
                .warning("anchored-expression", &format!("{path}.{field}"), reason)
                .suggest("leave them out; write `.*` where more may stand");
        }
    }
    if let Some(written) = rule.path.as_ref().filter(|written| is_no_path(written)) {
        let reason = format!("{} matches no path: each begins with a slash", quoted(written.as_str()));
        report
            .warning("path-without-slash", &format!("{path}.path"), reason)
            .suggest(format!(
                "write {}",
                quoted(&format!("/{}", written.as_str().trim_start_matches('^')))
            ));
    }
    if let Some(method) = rule.method.as_ref().and_then(HttpExpression::as_literal)
        && method.iter().any(u8::is_ascii_lowercase)
    {
        let method = String::from_utf8_lossy(method);
        let reason = format!("{} matches no method that clients use: case counts", quoted(&method));
        report
            .warning("lower-case-method", &format!("{path}.method"), reason)
            .suggest(format!("write {}", quoted(&method.to_ascii_uppercase())));
    }
}

/// What begins neither with a slash nor with the star of `OPTIONS *`. `CONNECT` has an authority
/// there, but who means it writes so.
fn is_no_path(written: &HttpExpression) -> bool {
    let has_authority = written.as_str().contains(':');
    !has_authority && written.never_begins_with(b'/') && written.never_begins_with(b'*')
}

/// Whoever may GET asks with HEAD too, often without knowing.
fn get_without_head(rule: &HttpRule, list: &HttpRuleList, path: &str, report: &mut DiagnosticReport<'_>) {
    let takes = |rule: &HttpRule, method: &[u8]| rule.method.as_ref().is_none_or(|written| written.matches(method));
    if rule.method.is_none() || !takes(rule, b"GET") || takes(rule, b"HEAD") {
        return;
    }
    let same = |other: &&HttpRule| takes(other, b"HEAD") && (other.path.is_none() || other.path == rule.path);
    if !list.rules().iter().any(|other| same(&other)) {
        report
            .warning(
                "get-without-head",
                &format!("{path}.method"),
                "HEAD is not allowed where GET is, and clients and health checks use it in its place",
            )
            .suggest("write `GET|HEAD`");
    }
}

/// Names that the rule opens, and whose connections can announce none that is listed.
fn names_missed(rule: &PolicyRule, inspected: &InspectedPorts, report: &mut DiagnosticReport<'_>) {
    let L7Rules { server_names, .. } = &*inspected.rules;
    let PeerSelector::Names(patterns) = &rule.peers else {
        return;
    };
    if server_names.is_empty() {
        return;
    }
    for pattern in patterns {
        let Ok(name) = Name::parse(&pattern.to_string()) else {
            continue;
        };
        if !server_names.iter().any(|listed| listed.matches(&name)) {
            let reason = format!(
                "no entry matches {}, which this rule opens: connections that announce it are refused",
                quoted(&pattern.to_string())
            );
            report
                .warning(
                    "server-names-miss-fqdn",
                    &format!("{}.serverNames", inspected.path),
                    reason,
                )
                .suggest(format!(
                    "add {}, or take it out of `toFQDNs`",
                    quoted(&pattern.to_string())
                ));
        }
    }
    for (position, listed) in server_names.iter().enumerate().filter(|(_, listed)| listed.is_exact()) {
        let is_opened = Name::parse(listed.as_str()).is_ok_and(|name| patterns.iter().any(|it| it.matches(&name)));
        if !is_opened {
            let reason = format!(
                "{} is none of the names that this rule opens: it matters only where they share addresses",
                quoted(listed.as_str())
            );
            report
                .warning(
                    "fqdn-misses-server-name",
                    &format!("{}.serverNames[{position}]", inspected.path),
                    reason,
                )
                .suggest("add it to `toFQDNs`, or take it out");
        }
    }
}
