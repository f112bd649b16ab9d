//! Peers that are wider than they look, or nothing.

use crate::diagnostic_report::DiagnosticReport;
use crate::inventory::Inventory;
use crate::peer_selector::{CidrGroupSelector, ObjectSelector, PeerSelector, ServiceSelector};
use crate::policy::{Action, PolicyRule, PolicySpec};
use crate::policy_id::PolicyKind;
use crate::shape::DocumentNode;

use super::cluster_context::ClusterContext;
use super::context::LintedSpec;
use super::path_of;
use super::selection::Selection;
use super::subjects::{is_empty_selector, no_pods};

/// The lists of peers in Cilium's kinds.
const CILIUM_LISTS: [&str; 12] = [
    "toFQDNs",
    "toCIDR",
    "toCIDRSet",
    "toEntities",
    "toEndpoints",
    "toServices",
    "toNodes",
    "fromCIDR",
    "fromCIDRSet",
    "fromEntities",
    "fromEndpoints",
    "fromNodes",
];

/// The lists of rules in all kinds.
const RULE_LISTS: [&str; 4] = ["egress", "egressDeny", "ingress", "ingressDeny"];

/// The lists of peers in kinds other than Cilium's.
pub(super) const PEER_LISTS: [&str; 2] = ["to", "from"];

/// Lists without entries, and selectors that ask for nothing.
pub(super) fn empty(
    spec: &DocumentNode<'_>,
    kind: PolicyKind,
    meaning: &PolicySpec,
    report: &mut DiagnosticReport<'_>,
) {
    for list in RULE_LISTS {
        for rule in spec.list(list) {
            empty_lists(&rule, kind, report);
        }
    }
    for rule in meaning.rules().filter(|rule| rule.action == Action::Allow) {
        // With ports or DNS rules, that any Pod is meant is plausible: the cluster's DNS may be
        // anywhere.
        let is_open = rule.ports == crate::PortSet::All && rule.dns.is_empty();
        if let Some(written) = written_rule(spec, rule).filter(|_| is_open) {
            empty_selectors(&written, kind, report);
        }
    }
}

fn empty_lists(rule: &DocumentNode<'_>, kind: PolicyKind, report: &mut DiagnosticReport<'_>) {
    let lists = match kind {
        PolicyKind::NetworkPolicy => PEER_LISTS.as_slice(),
        PolicyKind::ClusterNetworkPolicy => return,
        _ => &CILIUM_LISTS,
    };
    let nodes = || lists.iter().filter_map(|list| rule.get(list));
    // As in Cilium, an empty list beside another selector is nothing.
    if nodes().any(|node| !node.is_empty_list()) {
        return;
    }
    for node in nodes() {
        let (reason, suggestion) = match kind {
            PolicyKind::NetworkPolicy if node.path.ends_with("from") => (
                "an empty list stands for every source, as if it were not there",
                "leave it out if that is meant; leave the rule out to close ingress",
            ),
            PolicyKind::NetworkPolicy => (
                "an empty list stands for every destination, as if it were not there",
                "leave it out if that is meant; write `policyTypes: [Egress]` without the rule to close egress",
            ),
            _ => (
                "an empty list selects nothing, so the rule has no effect",
                "leave the list out if every peer is meant",
            ),
        };
        report
            .warning("empty-peer-list", &node.path, reason)
            .suggest(suggestion);
    }
}

fn empty_selectors(rule: &DocumentNode<'_>, kind: PolicyKind, report: &mut DiagnosticReport<'_>) {
    let mut say = |node: &DocumentNode<'_>, whom: &str| {
        report
            .warning(
                "empty-peer-selector",
                &node.path,
                format!("it selects {whom}, on every port"),
            )
            .suggest("select by labels, or list the ports that are meant");
    };
    let (everyone, neighbours) = (
        "every Pod of every namespace",
        "every Pod of the policy's own namespace",
    );
    let endpoints = [rule.list("toEndpoints"), rule.list("fromEndpoints")].concat();
    for entry in endpoints.iter().filter(|entry| is_empty_selector(entry)) {
        let whom = match kind {
            PolicyKind::CiliumNetworkPolicy => neighbours,
            _ => everyone,
        };
        say(entry, whom);
    }
    let nodes = [rule.list("toNodes"), rule.list("fromNodes")].concat();
    for entry in nodes.iter().filter(|entry| is_empty_selector(entry)) {
        say(entry, "every Node");
    }
    for peer in PEER_LISTS.into_iter().flat_map(|list| rule.list(list)) {
        let empty = |field| peer.get(field).filter(is_empty_selector);
        let (pods, namespaces) = (peer.get("podSelector"), peer.get("namespaceSelector"));
        match (empty("podSelector"), empty("namespaceSelector")) {
            (Some(node), None) if namespaces.is_none() => say(&node, neighbours),
            (Some(_), Some(node)) => say(&node, everyone),
            (None, Some(node)) if pods.is_none() => say(&node, everyone),
            _ => {}
        }
        if let Some(node) = empty("namespaces") {
            say(&node, everyone);
        }
        if let Some(pods) = peer.get("pods") {
            let is_empty = |field| pods.get(field).is_none_or(|node| is_empty_selector(&node));
            if is_empty("podSelector") && is_empty("namespaceSelector") {
                say(&pods, everyone);
            }
        }
        if let Some(node) = empty("nodes") {
            say(&node, "every Node");
        }
    }
}

/// Peers that no object is.
pub(super) fn select_nothing(
    linted: &LintedSpec<'_>,
    cluster: &ClusterContext<'_>,
    selection: &Selection<'_>,
    report: &mut DiagnosticReport<'_>,
) {
    for rule in linted.spec.rules() {
        let PeerSelector::Objects(selectors) = &rule.peers else {
            continue;
        };
        let Some(written) = written_rule(&linted.node, rule) else {
            continue;
        };
        let paths = entries(&written);
        for (index, selector) in selectors.iter().enumerate() {
            let Some((reason, suggestion)) = nothing(selector, &cluster.inventory, selection) else {
                continue;
            };
            // Where selectors were made of each entry, they are in the order of these.
            let path = match paths.len() == selectors.len() {
                true => paths[index].as_str(),
                false => written.path.as_str(),
            };
            report
                .warning("selector-matches-nothing", path, reason)
                .suggest(suggestion);
        }
    }
}

/// Why a selector selects none of the objects, and what to do about it.
fn nothing(selector: &ObjectSelector, inventory: &Inventory, selection: &Selection<'_>) -> Option<(String, String)> {
    let labels = "compare it with their labels".to_owned();
    match selector {
        // These files are of one cluster.
        ObjectSelector::Pods(labels) | ObjectSelector::Nodes(labels) if labels.speaks_of_clusters() => None,
        ObjectSelector::Pods(labels) => {
            let suggestion = no_pods(labels, selection.pods())?;
            Some(("no Pod in these files is selected".to_owned(), suggestion))
        }
        ObjectSelector::Services(selector) => {
            let services = &inventory.services;
            let is_nothing = !services.is_empty() && !selection.has_service(selector);
            is_nothing.then(|| service(selector, inventory))
        }
        ObjectSelector::Nodes(selector) => {
            let nodes = &inventory.nodes;
            let is_nothing = !nodes.is_empty() && !nodes.values().any(|node| selector.matches(&node.labels));
            is_nothing.then(|| ("no Node in these files is selected".to_owned(), labels))
        }
        ObjectSelector::CidrGroups(selector) => {
            let groups = &inventory.cidr_groups;
            let is_nothing = !groups.is_empty() && !groups.iter().any(|group| selector.matches(group));
            is_nothing.then(|| group(selector, labels))
        }
        ObjectSelector::RemoteNodes | ObjectSelector::ApiServer | ObjectSelector::Prefix(..) => None,
    }
}

fn service(selector: &ServiceSelector, inventory: &Inventory) -> (String, String) {
    let mut elsewhere = inventory
        .services
        .iter()
        .filter(|service| Some(&service.name) == selector.name.as_ref());
    let suggestion = match elsewhere.next() {
        Some(service) => format!("there is one of this name in the namespace {:?}", service.namespace),
        None => "compare it with the names, labels and namespaces of the Services".to_owned(),
    };
    ("no Service in these files is selected".to_owned(), suggestion)
}

fn group(selector: &CidrGroupSelector, by_labels: String) -> (String, String) {
    match &selector.name {
        Some(name) => (
            format!("there is no CiliumCIDRGroup {name:?} in these files"),
            "add it, or write the name of another".to_owned(),
        ),
        None => ("no CiliumCIDRGroup in these files is selected".to_owned(), by_labels),
    }
}

/// A rule as it was written.
pub(super) fn written_rule<'a>(spec: &DocumentNode<'a>, rule: &PolicyRule) -> Option<DocumentNode<'a>> {
    let path = path_of(&rule.origin);
    let list = path.strip_prefix(&spec.path)?.strip_prefix('.')?;
    let (list, index) = list.strip_suffix(']')?.split_once('[')?;
    let value = spec.value.get(list)?.get(index.parse::<usize>().ok()?)?;
    Some(DocumentNode {
        value,
        path: path.to_owned(),
    })
}

/// The paths of the entries of a rule that select objects and prefixes.
fn entries(rule: &DocumentNode<'_>) -> Vec<String> {
    let lists = CILIUM_LISTS.iter().map(|list| rule.list(list));
    let mut paths: Vec<String> = lists.flatten().map(|entry| entry.path).collect();
    for peer in PEER_LISTS.into_iter().flat_map(|list| rule.list(list)) {
        if peer.get("domainNames").is_some() {
            continue;
        }
        match peer.get("networks") {
            Some(networks) => paths.extend(networks.items().map(|network| network.path)),
            None => paths.push(peer.path),
        }
    }
    paths
}
