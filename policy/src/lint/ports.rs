//! Ports that nobody listens on.

use crate::diagnostic::closest;
use crate::diagnostic_report::DiagnosticReport;
use crate::direction::Direction;
use crate::inventory::InventoryService;
use crate::policy::{Action, PolicyRule};
use crate::policy_id::PolicyKind;
use crate::ports::{PortRange, PortSet, Protocol};
use crate::shape::DocumentNode;

use super::context::LintedSpec;
use super::peers::written_rule;
use super::selection::{SelectedPods, Selection};

/// Rules that list ports and no destinations. Port 53 alone is how lookups are let through
/// everywhere.
pub(super) fn to_anywhere(spec: &DocumentNode<'_>, kind: PolicyKind, report: &mut DiagnosticReport<'_>) {
    let (ports, suggestion) = match kind {
        PolicyKind::CiliumNetworkPolicy | PolicyKind::CiliumClusterwideNetworkPolicy => (
            "toPorts",
            "name the destinations; `toEntities: [all]` says the same openly",
        ),
        PolicyKind::NetworkPolicy => ("ports", "list the destinations under `to`"),
        PolicyKind::ClusterNetworkPolicy => return,
    };
    let is_destination = |field: &str| field.starts_with("to") && !matches!(field, "toPorts" | "toRequires");
    for rule in spec.list("egress") {
        let Some(node) = rule.get(ports).filter(|node| !node.is_empty_list()) else {
            continue;
        };
        if rule.fields().any(|(field, _)| is_destination(field)) {
            continue;
        }
        let entries: Vec<DocumentNode<'_>> = match kind {
            PolicyKind::NetworkPolicy => node.items().collect(),
            _ => node.items().flat_map(|entry| entry.list("ports")).collect(),
        };
        let is_dns = |entry: &DocumentNode<'_>| matches!(entry.get("port"), Some(port) if port.value == "53" || port.value == 53);
        if !entries.is_empty() && !entries.iter().all(is_dns) {
            report
                .warning(
                    "port-to-anywhere",
                    &node.path,
                    "no destinations are named, so these ports are open everywhere, inside the cluster and outside",
                )
                .suggest(suggestion);
        }
    }
}

/// The Pods whose ports a rule speaks of: the destinations, or at ingress those that the policy
/// selects.
fn receivers(
    direction: Direction,
    rule: &PolicyRule,
    linted: &LintedSpec<'_>,
    selection: &Selection<'_>,
) -> SelectedPods {
    match direction {
        Direction::Egress => selection.pods_of(&rule.peers),
        Direction::Ingress => SelectedPods::Some(linted.pods.clone()),
    }
}

/// The rules of both directions, each with its direction.
fn rules<'a>(linted: &LintedSpec<'a>) -> impl Iterator<Item = (Direction, &'a PolicyRule)> + use<'a> {
    let directions = linted.spec.directions.iter();
    directions.flat_map(|(direction, spec)| spec.rules.iter().map(move |rule| (direction, rule)))
}

/// Names of ports that no container among the receivers gives.
pub(super) fn unknown_names(linted: &LintedSpec<'_>, selection: &Selection<'_>, report: &mut DiagnosticReport<'_>) {
    for (direction, rule) in rules(linted).filter(|(_, rule)| !rule.named.is_empty()) {
        let pods = receivers(direction, rule, linted, selection);
        // Where there are none, that is what is to be said.
        let is_none = match &pods {
            SelectedPods::Every => selection.pods().is_empty(),
            SelectedPods::Some(pods) => pods.is_empty(),
        };
        if is_none {
            continue;
        }
        let ports = selection.pods().ports(&pods);
        for named in &rule.named {
            if ports
                .iter()
                .any(|port| port.name == named.name && named.protocols.contains(&port.protocol))
            {
                continue;
            }
            let protocols: Vec<String> = named.protocols.iter().map(Protocol::to_string).collect();
            let whose = match direction {
                Direction::Egress => "the destinations",
                Direction::Ingress => "the Pods that the policy selects",
            };
            let reason = format!(
                "no container of {whose} has a port with the name {:?} of {}",
                named.name,
                protocols.join(", ")
            );
            let finding = report.warning("named-port-unknown", &place(linted, rule, &named.name), reason);
            let other_protocol = ports.iter().find(|port| port.name == named.name);
            let near = closest(&named.name, ports.iter().map(|port| port.name.as_str()));
            finding.suggest(match (other_protocol, near) {
                (Some(port), _) => format!("the port {} is {}", port.name, port.protocol),
                (None, Some(near)) => format!("did you mean {near:?}?"),
                (None, None) => "write the number of the port, or name it in the Pods' containers".to_owned(),
            });
        }
    }
}

/// Ports at which a service listens and its Pods do not: rules see packets on their way to a Pod.
pub(super) fn of_services(linted: &LintedSpec<'_>, selection: &Selection<'_>, report: &mut DiagnosticReport<'_>) {
    for (direction, rule) in rules(linted).filter(|(_, rule)| rule.action == Action::Allow) {
        let PortSet::Ranges(ranges) = &rule.ports else { continue };
        let mut single = ranges.iter().filter(|range| range.is_single()).peekable();
        if single.peek().is_none() {
            continue;
        }
        let known = match direction {
            Direction::Egress => selection.service_ports_of(&rule.peers),
            Direction::Ingress => selection.service_ports_before(&linted.pods),
        };
        for range in single {
            let of_protocol = || known.iter().filter(|port| port.mapping.protocol == range.protocol);
            if of_protocol().any(|port| port.targets.contains(&range.first)) {
                continue;
            }
            let Some(port) = of_protocol().find(|port| port.mapping.port == range.first) else {
                continue;
            };
            // A rule that allows the port behind it too works.
            let works = |target: &u16| rule.ports.contains(range.protocol, *target);
            if let Some(target) = port.targets.first().filter(|_| !port.targets.iter().any(works)) {
                shadow_port(linted, rule, *range, port.service, *target, report);
            }
        }
    }
}

fn shadow_port(
    linted: &LintedSpec<'_>,
    rule: &PolicyRule,
    range: PortRange,
    service: &InventoryService,
    target: u16,
    report: &mut DiagnosticReport<'_>,
) {
    let reason = format!(
        "{} {} is where the Service {}/{} listens; its Pods listen on {target}, and rules are about the Pods",
        range.protocol, range.first, service.namespace, service.name
    );
    report
        .warning("service-port", &place(linted, rule, &range.first.to_string()), reason)
        .suggest(format!("write {target}"));
}

/// Where in a rule a port stands, by its text; the rule itself where it does not.
fn place(linted: &LintedSpec<'_>, rule: &PolicyRule, port: &str) -> String {
    let Some(written) = written_rule(&linted.node, rule) else {
        return rule.origin.clone();
    };
    let lists = ["toPorts", "ports", "protocols"].into_iter();
    let found = lists
        .filter_map(|list| written.get(list))
        .find_map(|list| find(&list, port));
    found.unwrap_or(written.path)
}

/// Depth first. Documents are not deep.
fn find(node: &DocumentNode<'_>, text: &str) -> Option<String> {
    let is_it = match node.value {
        serde_json::Value::String(written) => written == text,
        serde_json::Value::Number(number) => number.to_string() == text,
        _ => false,
    };
    if is_it {
        return Some(node.path.clone());
    }
    let below = node.items().chain(node.fields().map(|(_, field)| field));
    below.into_iter().find_map(|below| find(&below, text))
}
