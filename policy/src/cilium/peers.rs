//! The L3 selectors of a rule → a [`PeerSelector`].

use crate::diagnostic::{closest, quoted};
use crate::diagnostic_report::DiagnosticReport;
use crate::direction::{Direction, PerDirection};
use crate::labels::LabelSelector;
use crate::peer_selector::{CidrGroupSelector, ObjectSelector, PeerSelector};
use crate::policy_id::PolicyId;
use crate::prefix;
use crate::selector;
use crate::shape::DocumentNode;
use crate::zone::Zone;

use super::names::{self, NameWithPattern};
use super::objects;
use super::written_list::WrittenList;

/// What an L3 selector selects by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SelectorKind {
    Names,
    Cidr,
    CidrSet,
    Entities,
    Endpoints,
    Services,
    Nodes,
    Groups,
}

/// The L3 selectors of each direction. A rule may have one kind of them.
const KINDS: PerDirection<&[(&str, SelectorKind)]> = PerDirection {
    egress: &[
        ("toFQDNs", SelectorKind::Names),
        ("toCIDR", SelectorKind::Cidr),
        ("toCIDRSet", SelectorKind::CidrSet),
        ("toEntities", SelectorKind::Entities),
        ("toEndpoints", SelectorKind::Endpoints),
        ("toServices", SelectorKind::Services),
        ("toNodes", SelectorKind::Nodes),
        ("toGroups", SelectorKind::Groups),
    ],
    ingress: &[
        ("fromCIDR", SelectorKind::Cidr),
        ("fromCIDRSet", SelectorKind::CidrSet),
        ("fromEntities", SelectorKind::Entities),
        ("fromEndpoints", SelectorKind::Endpoints),
        ("fromNodes", SelectorKind::Nodes),
        ("fromGroups", SelectorKind::Groups),
    ],
};

/// Reads the L3 selector of a rule; `None` where it has none, so that any peer is meant.
pub(super) fn read(
    rule: &DocumentNode<'_>,
    list: WrittenList,
    policy: &PolicyId,
    report: &mut DiagnosticReport<'_>,
) -> Option<PeerSelector> {
    let present: Vec<_> = KINDS[list.direction]
        .iter()
        .filter_map(|(field, kind)| rule.get(field).map(|node| (*field, *kind, node)))
        .collect();
    if present.is_empty() {
        return None;
    }
    // An empty list selects nothing. Beside another selector it is ignored.
    let nothing = PeerSelector::Prefixes(Vec::new());
    let mut chosen = present.into_iter().filter(|(.., node)| !node.is_empty_list());
    let Some((field, kind, node)) = chosen.next() else {
        return Some(nothing);
    };
    let peers = read_kind(kind, &node, list, policy, report);
    let others: Vec<_> = chosen.collect();
    if let Some((other, ..)) = others.first() {
        report
            .error(
                "two-selectors",
                &rule.path,
                format!("`{field}` and `{other}` stand in one rule"),
            )
            .suggest("write one rule for each");
    }
    for (_, other, node) in &others {
        // Read for its findings only.
        read_kind(*other, node, list, policy, report);
    }
    Some(if others.is_empty() { peers } else { nothing })
}

fn read_kind(
    kind: SelectorKind,
    node: &DocumentNode<'_>,
    list: WrittenList,
    policy: &PolicyId,
    report: &mut DiagnosticReport<'_>,
) -> PeerSelector {
    match kind {
        SelectorKind::Names => PeerSelector::Names(
            node.items()
                .flat_map(|entry| names::patterns(&entry, NameWithPattern::Refused, report))
                .collect(),
        ),
        SelectorKind::Cidr => PeerSelector::Prefixes(
            node.items()
                .filter_map(|entry| prefix::read_or_address(&entry, report))
                .map(|prefix| (Zone::World, prefix))
                .collect(),
        ),
        SelectorKind::CidrSet => node
            .items()
            .flat_map(|entry| cidr_rule(&entry, report))
            .collect::<Vec<_>>()
            .into(),
        SelectorKind::Entities => entities(node, report),
        SelectorKind::Groups => {
            let (field, instead) = match list.direction {
                Direction::Egress => ("toGroups", "toCIDR"),
                Direction::Ingress => ("fromGroups", "fromCIDR"),
            };
            report
                .error(
                    "to-groups",
                    &node.path,
                    format!("`{field}` needs the API of a cloud provider and is not supported"),
                )
                .suggest(format!("list the group's addresses with `{instead}`"));
            PeerSelector::Prefixes(Vec::new())
        }
        SelectorKind::Endpoints => objects::endpoints(node, list, policy, report),
        SelectorKind::Services => objects::services(node, report),
        SelectorKind::Nodes => objects::nodes(node, report),
    }
}

fn entities(node: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> PeerSelector {
    let mut selectors = Vec::new();
    for entry in node.items() {
        let Some(entity) = entry.value.as_str() else { continue };
        let prefixes = match entity {
            "world" => prefix::everything(Zone::World),
            "world-ipv4" => vec![(Zone::World, prefix::all_v4())],
            "world-ipv6" => vec![(Zone::World, prefix::all_v6())],
            "all" => prefix::everything(Zone::Anywhere),
            // Nodes are part of their clusters, and this node's addresses lie in the zone `host`.
            "cluster" => [prefix::everything(Zone::Cluster), prefix::everything(Zone::Host)].concat(),
            "cluster-mesh" => [prefix::everything(Zone::Mesh), prefix::everything(Zone::Host)].concat(),
            "host" => prefix::everything(Zone::Host),
            // Identities inside Cilium, which no address here has.
            "none" | "health" | "init" | "ingress" | "unmanaged" => Vec::new(),
            "remote-node" => {
                selectors.push(ObjectSelector::RemoteNodes);
                continue;
            }
            "kube-apiserver" => {
                selectors.push(ObjectSelector::ApiServer);
                continue;
            }
            other => {
                let finding = report.error(
                    "unknown-entity",
                    &entry.path,
                    format!("{} is not an entity", quoted(other)),
                );
                if let Some(meant) = closest(other, ENTITIES) {
                    finding.suggest(format!("did you mean `{meant}`?"));
                }
                Vec::new()
            }
        };
        selectors.extend(prefixes.into_iter().map(ObjectSelector::from));
    }
    selectors.into()
}

/// Every entity that may be written, whether it means anything here or not.
pub(crate) const ENTITIES: [&str; 14] = [
    "all",
    "cluster",
    "cluster-mesh",
    "health",
    "host",
    "ingress",
    "init",
    "kube-apiserver",
    "none",
    "remote-node",
    "unmanaged",
    "world",
    "world-ipv4",
    "world-ipv6",
];

/// Reads one entry of `toCIDRSet`, with `except` taken out.
fn cidr_rule(entry: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> Vec<ObjectSelector> {
    if !entry.value.is_object() {
        return Vec::new();
    }
    let given: Vec<_> = ["cidr", "cidrGroupRef", "cidrGroupSelector"]
        .iter()
        .filter_map(|field| entry.get(field).map(|node| (*field, node)))
        .collect();
    let [(field, node)] = given.as_slice() else {
        report.error(
            "bad-cidr",
            &entry.path,
            "it needs exactly one of `cidr`, `cidrGroupRef` and `cidrGroupSelector`",
        );
        return Vec::new();
    };
    if *field == "cidr" {
        let Some(whole) = prefix::read(node, report) else {
            return Vec::new();
        };
        let holes = prefix::exceptions(entry, Some(whole), report);
        let left = prefix::without(whole, &holes);
        return left
            .into_iter()
            .map(|prefix| ObjectSelector::Prefix(Zone::World, prefix))
            .collect();
    }
    let except = prefix::exceptions(entry, None, report);
    let (name, labels) = match *field {
        "cidrGroupRef" => (node.value.as_str().map(str::to_owned), LabelSelector::default()),
        _ => match selector::read(node, report) {
            Some(labels) => (None, labels),
            None => return Vec::new(),
        },
    };
    vec![ObjectSelector::CidrGroups(CidrGroupSelector { name, labels, except })]
}
