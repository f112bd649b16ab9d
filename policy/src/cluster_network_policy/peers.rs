//! `to` or `from` of a rule → names, and selectors of everything else.

use std::collections::BTreeSet;

use names::Pattern;

use crate::diagnostic_report::DiagnosticReport;
use crate::peer_selector::ObjectSelector;
use crate::prefix;
use crate::selector;
use crate::shape::DocumentNode;
use crate::zone::Zone;

use super::one_of::{OneOf, Unknown};
use super::{domain_names, schema, some_items, subject};
use crate::direction::Direction;

/// How many of the known peers may stand in an ingress rule: `namespaces` and `pods`.
const INGRESS_PEERS: usize = 2;

/// What the peers of a rule select.
#[derive(Default)]
pub(super) struct RulePeers {
    pub(super) objects: Vec<ObjectSelector>,
    /// Each entry of `domainNames` with its path; no pattern for one that is refused.
    pub(super) names: Vec<(String, Option<Pattern>)>,
    /// The first peer that has no named ports.
    pub(super) without_named_ports: Option<String>,
    pub(super) unknown: Vec<Unknown>,
}

pub(super) fn read(rule: &DocumentNode<'_>, direction: Direction, report: &mut DiagnosticReport<'_>) -> RulePeers {
    let (field, known) = match direction {
        Direction::Egress => ("to", schema::PEERS.as_slice()),
        Direction::Ingress => ("from", &schema::PEERS[..INGRESS_PEERS]),
    };
    let mut peers = RulePeers::default();
    if rule.get(field).is_none() {
        let suggestion = match direction {
            Direction::Egress => {
                "write `- namespaces: {}` for every Pod, `- networks: [0.0.0.0/0, \"::/0\"]` for everything"
            }
            Direction::Ingress => "write `- namespaces: {}` for every Pod",
        };
        super::missing(rule, field, suggestion, report);
    }
    for peer in some_items(rule, field, report) {
        match OneOf::read(&peer, known, report) {
            OneOf::Known(kind, node) => add(kind, &peer, &node, &mut peers, report),
            OneOf::Unknown(unknown) => peers.unknown.push(unknown),
            OneOf::Refused => {}
        }
    }
    peers
}

fn add(
    kind: &str,
    peer: &DocumentNode<'_>,
    node: &DocumentNode<'_>,
    into: &mut RulePeers,
    report: &mut DiagnosticReport<'_>,
) {
    let objects = &mut into.objects;
    match kind {
        "namespaces" => objects.extend(subject::namespaces(node, report).map(ObjectSelector::Pods)),
        "pods" => objects.extend(subject::pods(node, report).map(ObjectSelector::Pods)),
        "nodes" => objects.extend(selector::read_bare(node, "", report).map(ObjectSelector::Nodes)),
        "networks" => {
            for entry in distinct(peer, kind, report) {
                // What lies inside the cluster is meant too.
                let prefix = prefix::read(&entry, report);
                objects.extend(prefix.map(|prefix| ObjectSelector::Prefix(Zone::Anywhere, prefix)));
            }
        }
        _ => {
            for entry in distinct(peer, kind, report) {
                let pattern = domain_names::read(&entry, report);
                into.names.push((entry.path, pattern));
            }
        }
    }
    if !matches!(kind, "namespaces" | "pods") && into.without_named_ports.is_none() {
        into.without_named_ports = Some(node.path.clone());
    }
}

/// The entries of a list that is a set.
fn distinct<'a>(peer: &DocumentNode<'a>, field: &str, report: &mut DiagnosticReport<'_>) -> Vec<DocumentNode<'a>> {
    let mut seen = BTreeSet::new();
    let mut entries = some_items(peer, field, report);
    entries.retain(|entry| {
        let is_new = entry.value.as_str().is_some_and(|text| seen.insert(text));
        if !is_new && entry.value.is_string() {
            report.error("duplicate", &entry.path, "it stands in the list twice");
        }
        is_new
    });
    entries
}
