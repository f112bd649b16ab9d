//! One rule: an action on peers, crossed with protocols.

use crate::diagnostic::quoted;
use crate::diagnostic_report::DiagnosticReport;
use crate::direction::Direction;
use crate::peer_selector::PeerSelector;
use crate::policy::{Action, PolicyRule};
use crate::shape::DocumentNode;
use crate::stand_in::deny_everything;

use super::{domain_names, peers, protocols};

/// What a rule comes to: nothing, or one rule for its names and one for its other peers.
pub(super) fn read(
    rule: &DocumentNode<'_>,
    direction: Direction,
    report: &mut DiagnosticReport<'_>,
) -> Vec<PolicyRule> {
    if !rule.value.is_object() {
        return Vec::new();
    }
    let action = action(rule, report);
    let origin = origin(rule, report);
    let peers = peers::read(rule, direction, report);
    let ports = protocols::read(rule, report);
    if let Some(action) = action {
        domain_names::check_action(&peers.names, action, report);
    }
    if !ports.named.is_empty()
        && let Some(path) = &peers.without_named_ports
    {
        report
            .error(
                "named-port",
                path,
                "only Pods have named ports, and this peer stands in a rule with `destinationNamedPort`",
            )
            .suggest("write the number of the port, or another rule");
    }
    let Some(action) = action else {
        return Vec::new();
    };
    let unknown: Vec<_> = peers.unknown.iter().chain(&ports.unknown).collect();
    for unknown in &unknown {
        unknown.say(action, report);
    }
    if !unknown.is_empty() {
        return match action {
            Action::Allow => Vec::new(),
            Action::Deny | Action::Pass => vec![deny_everything(origin)],
        };
    }
    let of = |peers| PolicyRule {
        origin: origin.clone(),
        action,
        peers,
        ports: ports.set.clone(),
        named: ports.named.clone(),
        inspected: Vec::new(),
        dns: Vec::new(),
    };
    let names = peers.names.into_iter().filter_map(|(_, pattern)| pattern);
    let names = Some(names.collect::<Vec<_>>()).filter(|names| !names.is_empty());
    let objects = Some(peers.objects).filter(|objects| !objects.is_empty());
    let names = names.map(|names| of(PeerSelector::Names(names)));
    names
        .into_iter()
        .chain(objects.map(|objects| of(objects.into())))
        .collect()
}

fn action(rule: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> Option<Action> {
    const ACTIONS: [(&str, Action); 3] = [
        ("Accept", Action::Allow),
        ("Deny", Action::Deny),
        ("Pass", Action::Pass),
    ];
    let Some(node) = rule.get("action") else {
        super::missing(rule, "action", "write Accept, Deny or Pass", report);
        return None;
    };
    let text = node.value.as_str()?;
    let found = ACTIONS.into_iter().find(|(name, _)| *name == text);
    if found.is_none() {
        let reason = format!("{} is not Accept, Deny or Pass", quoted(text));
        let finding = report.error("bad-value", &node.path, reason);
        if text.eq_ignore_ascii_case("allow") {
            finding.suggest("write Accept");
        }
    }
    found.map(|(_, action)| action)
}

/// Where the rule stands, and what it calls itself.
fn origin(rule: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> String {
    const MAX_CHARS: usize = 100;
    let Some(name) = rule.text("name").filter(|name| !name.is_empty()) else {
        return rule.path.clone();
    };
    let chars = name.chars().count();
    if chars > MAX_CHARS {
        let path = format!("{}.name", rule.path);
        report.error(
            "too-long",
            &path,
            format!("it has {chars} characters, and at most {MAX_CHARS} are allowed"),
        );
    }
    format!("{} {}", rule.path, quoted(name))
}
