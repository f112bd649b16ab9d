//! Ports to everywhere, and ports on which nobody listens.

use std::sync::Arc;

use crate::diagnostic::closest;
use crate::diagnostic_report::DiagnosticReport;
use crate::inventory::{Inventory, InventoryPod, InventoryService};
use crate::peer_selector::{ObjectSelector, PeerSelector};
use crate::policy::{Action, PolicyRule};
use crate::policy_id::PolicyKind;
use crate::ports::{PortRange, PortSet, Protocol};
use crate::shape::DocumentNode;
use crate::zone::Zone;

use super::cluster_context::{ClusterContext, ServicePortMapping, TargetPort};
use super::context::LintedSpec;
use super::peers::written_rule;

/// Warns of rules that list ports and no destinations. Port 53 alone is exempt, because this is the
/// usual way to let lookups through.
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

/// Warns of port names that no container of the destinations has.
pub(super) fn unknown_names(linted: &LintedSpec<'_>, cluster: &ClusterContext<'_>, report: &mut DiagnosticReport<'_>) {
    for rule in linted
        .spec
        .directions
        .egress
        .rules
        .iter()
        .filter(|rule| !rule.named.is_empty())
    {
        let pods = pods(&rule.peers, &cluster.inventory);
        // Peers without Pods are another lint's finding.
        if pods.is_empty() {
            continue;
        }
        for named in &rule.named {
            let ports = || pods.iter().flat_map(|pod| pod.ports());
            if ports().any(|port| port.name == named.name && named.protocols.contains(&port.protocol)) {
                continue;
            }
            let protocols: Vec<String> = named.protocols.iter().map(Protocol::to_string).collect();
            let reason = format!(
                "no container of the destinations has a port with the name {:?} of {}",
                named.name,
                protocols.join(", ")
            );
            let finding = report.warning("named-port-unknown", &path_of_port(linted, rule, &named.name), reason);
            let other_protocol = ports().find(|port| port.name == named.name);
            let near = closest(&named.name, ports().map(|port| port.name.as_str()));
            finding.suggest(match (other_protocol, near) {
                (Some(port), _) => format!("the port {} is {}", port.name, port.protocol),
                (None, Some(near)) => format!("did you mean {near:?}?"),
                (None, None) => "write the number of the port, or name it in the Pods' containers".to_owned(),
            });
        }
    }
}

/// Warns of ports at which a Service listens and its Pods do not. Rules see packets after the
/// Service's address was translated, on their way to a Pod.
pub(super) fn of_services(linted: &LintedSpec<'_>, cluster: &ClusterContext<'_>, report: &mut DiagnosticReport<'_>) {
    for rule in linted.spec.directions.egress.rules_that(Action::Allow) {
        let PortSet::Ranges(ranges) = &rule.ports else { continue };
        let services = services(&rule.peers, cluster);
        for range in ranges.iter().filter(|range| range.is_single()) {
            let mut known = services
                .iter()
                .flat_map(|(service, ports)| ports.iter().map(move |port| (*service, port)));
            let is_backend = |(service, port): (&InventoryService, &ServicePortMapping)| {
                port.protocol == range.protocol && targets(service, port, &cluster.inventory).contains(&range.first)
            };
            if known.clone().any(is_backend) {
                continue;
            }
            let listens = known.find(|(_, port)| port.protocol == range.protocol && port.port == range.first);
            let Some((service, port)) = listens else { continue };
            let targets = targets(service, port, &cluster.inventory);
            // A rule that allows the Pods' port too does what is meant.
            let works = |target: &u16| rule.ports.contains(range.protocol, *target);
            if let Some(target) = targets.first().filter(|_| !targets.iter().any(works)) {
                report_service_port(linted, rule, *range, service, *target, report);
            }
        }
    }
}

fn report_service_port(
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
        .warning(
            "service-port",
            &path_of_port(linted, rule, &range.first.to_string()),
            reason,
        )
        .suggest(format!("write {target}"));
}

/// The Services that peers select, or that lead to Pods which peers select; with their ports.
fn services<'i>(
    peers: &PeerSelector,
    cluster: &'i ClusterContext<'_>,
) -> Vec<(&'i InventoryService, &'i [ServicePortMapping])> {
    let PeerSelector::Objects(selectors) = peers else {
        return Vec::new();
    };
    let pods = pods(peers, &cluster.inventory);
    let is_meant = |service: &&InventoryService| {
        let by_itself = selectors.iter().any(|selector| match selector {
            ObjectSelector::Services(selector) => selector.matches(service),
            _ => false,
        });
        by_itself || pods.iter().any(|pod| service.selects(pod.identity()))
    };
    let services = cluster.inventory.services.iter().filter(is_meant);
    let with_ports = services.filter_map(|service| {
        let key = (service.namespace.clone(), service.name.clone());
        Some((service, cluster.service_ports.get(&key)?.as_slice()))
    });
    with_ports.collect()
}

/// The ports at which a Service's Pods listen, for one of its ports.
fn targets(service: &InventoryService, port: &ServicePortMapping, inventory: &Inventory) -> Vec<u16> {
    match &port.target {
        TargetPort::Number(number) => vec![*number],
        TargetPort::Name(name) => {
            let pods = inventory.pods.iter().filter(|pod| service.selects(pod.identity()));
            let ports = pods.flat_map(|pod| pod.ports());
            let named = ports.filter(|known| known.name == *name && known.protocol == port.protocol);
            named.map(|known| known.port).collect()
        }
    }
}

/// The Pods that peers select.
fn pods<'i>(peers: &PeerSelector, inventory: &'i Inventory) -> Vec<&'i InventoryPod> {
    let is_meant = |pod: &&InventoryPod| match peers {
        PeerSelector::Names(_) | PeerSelector::Unresolved => false,
        PeerSelector::Prefixes(prefixes) => prefixes.iter().any(|(zone, prefix)| {
            matches!(zone, Zone::Anywhere | Zone::Cluster)
                && (prefix.prefix_len() == 0 || pod.addresses().iter().any(|address| prefix.contains(address)))
        }),
        PeerSelector::Objects(selectors) => selectors.iter().any(|selector| match selector {
            ObjectSelector::Pods(labels) => labels.matches(pod.labels()),
            ObjectSelector::Services(selector) => {
                let mut services = inventory.services.iter();
                services.any(|service| selector.matches(service) && service.selects(pod.identity()))
            }
            _ => false,
        }),
    };
    inventory.pods.iter().map(Arc::as_ref).filter(is_meant).collect()
}

/// The path at which a rule's port is written as `port`; the rule's own path where it is not.
fn path_of_port(linted: &LintedSpec<'_>, rule: &PolicyRule, port: &str) -> String {
    let Some(written) = written_rule(&linted.node, rule) else {
        return rule.origin.clone();
    };
    let lists = ["toPorts", "ports", "protocols"].into_iter();
    let found = lists
        .filter_map(|list| written.get(list))
        .find_map(|list| find_scalar(&list, port));
    found.unwrap_or(written.path)
}

/// The path of the first scalar below a node that is written as `text`, depth first. Documents are
/// at most 64 levels deep.
fn find_scalar(node: &DocumentNode<'_>, text: &str) -> Option<String> {
    let is_it = match node.value {
        serde_json::Value::String(written) => written == text,
        serde_json::Value::Number(number) => number.to_string() == text,
        _ => false,
    };
    if is_it {
        return Some(node.path.clone());
    }
    let below = node.items().chain(node.fields().map(|(_, field)| field));
    below.into_iter().find_map(|below| find_scalar(&below, text))
}
