//! The L3 selectors of a rule → [`Peers`].

use std::net::IpAddr;

use ipnet::IpNet;

use crate::diagnostic::{Report, closest, quoted};
use crate::policy::{Peers, PolicyId, Zone};

use super::egress::Side;
use super::names::{self, Both};
use super::objects;
use super::shape::Node;

/// One kind stands in a rule.
const KINDS: [&str; 8] = [
    "toFQDNs",
    "toCIDR",
    "toCIDRSet",
    "toEntities",
    "toEndpoints",
    "toServices",
    "toNodes",
    "toGroups",
];

/// How many `except` one `toCIDRSet` entry may have: each may split its prefix 128 times.
const MAX_EXCEPT: usize = 1000;

/// `None` where the rule has no L3 selector: any destination.
pub(super) fn read(rule: &Node<'_>, side: Side, policy: &PolicyId, report: &mut Report<'_>) -> Option<Peers> {
    let present: Vec<_> = KINDS
        .iter()
        .filter_map(|kind| rule.get(kind).map(|node| (*kind, node)))
        .collect();
    if present.is_empty() {
        return None;
    }
    // An empty list selects nothing, and beside another selector it is nothing.
    let nothing = Peers::Prefixes(Vec::new());
    let mut chosen = present.into_iter().filter(|(_, node)| !node.is_empty_list());
    let Some((kind, node)) = chosen.next() else {
        return Some(nothing);
    };
    if let Some((other, _)) = chosen.next() {
        report
            .error(
                "two-selectors",
                &rule.path,
                format!("`{kind}` and `{other}` stand in one rule"),
            )
            .suggest("write one rule for each");
        return Some(nothing);
    }
    Some(match kind {
        "toFQDNs" => Peers::Names(
            node.items()
                .flat_map(|entry| names::patterns(&entry, Both::Refused, report))
                .collect(),
        ),
        "toCIDR" => Peers::Prefixes(
            node.items()
                .filter_map(|entry| cidr(&entry, report))
                .map(|prefix| (Zone::World, prefix))
                .collect(),
        ),
        "toCIDRSet" => Peers::Prefixes(node.items().flat_map(|entry| cidr_rule(&entry, side, report)).collect()),
        "toEntities" => entities(&node, side, report),
        "toGroups" => {
            report
                .error(
                    "to-groups",
                    &node.path,
                    "`toGroups` needs the API of a cloud provider and is not supported",
                )
                .suggest("list the group's addresses with `toCIDR`");
            nothing
        }
        "toEndpoints" => objects::endpoints(&node, side, policy, report),
        "toServices" => objects::services(&node, report),
        _ => unresolved(&node, side, Zone::Cluster, report),
    })
}

/// Every address of a zone, in both families.
pub(super) fn everything(zone: Zone) -> Vec<(Zone, IpNet)> {
    vec![(zone, all_v4()), (zone, all_v6())]
}

fn all_v4() -> IpNet {
    IpNet::V4(ipnet::Ipv4Net::default())
}

fn all_v6() -> IpNet {
    IpNet::V6(ipnet::Ipv6Net::default())
}

/// A selector that is not resolved to addresses yet.
fn unresolved(node: &Node<'_>, side: Side, widened: Zone, report: &mut Report<'_>) -> Peers {
    match side {
        Side::Allow => {
            report.unenforced(
                &node.path,
                "it is not resolved to addresses yet, so the rule opens nothing",
            );
            Peers::Unresolved
        }
        Side::Deny => {
            let reason = format!(
                "it is not resolved to addresses yet, so the rule denies {}",
                in_words(widened)
            );
            report.unenforced(&node.path, reason);
            Peers::Prefixes(widened_to(widened))
        }
    }
}

/// A node of the cluster may be this one, whose addresses may lie in either zone.
fn widened_to(zone: Zone) -> Vec<(Zone, IpNet)> {
    match zone {
        Zone::Cluster => [everything(Zone::Cluster), everything(Zone::Host)].concat(),
        zone => everything(zone),
    }
}

fn in_words(zone: Zone) -> &'static str {
    match zone {
        Zone::Anywhere => "every destination",
        Zone::World => "every destination outside the cluster",
        Zone::Cluster => "every destination inside the cluster",
        Zone::Host => "this node",
    }
}

fn entities(node: &Node<'_>, side: Side, report: &mut Report<'_>) -> Peers {
    let mut prefixes = Vec::new();
    let mut unresolved = false;
    for entry in node.items() {
        let Some(entity) = entry.value.as_str() else { continue };
        let widened = match entity {
            "world" => everything(Zone::World),
            "world-ipv4" => vec![(Zone::World, all_v4())],
            "world-ipv6" => vec![(Zone::World, all_v6())],
            "all" => everything(Zone::Anywhere),
            "cluster" => widened_to(Zone::Cluster),
            "host" => everything(Zone::Host),
            // Cilium's own inner workings; there is nothing of the kind here.
            "none" | "health" | "init" | "ingress" | "unmanaged" => Vec::new(),
            "remote-node" | "kube-apiserver" => {
                // The API server often stands outside the cluster.
                let zone = if entity == "remote-node" {
                    Zone::Cluster
                } else {
                    Zone::Anywhere
                };
                match side {
                    Side::Allow => {
                        unresolved = true;
                        report.unenforced(
                            &entry.path,
                            format!("`{entity}` is not resolved to addresses yet and opens nothing"),
                        );
                        Vec::new()
                    }
                    Side::Deny => {
                        let reason = format!(
                            "`{entity}` is not resolved to addresses yet, so the rule denies {}",
                            in_words(zone)
                        );
                        report.unenforced(&entry.path, reason);
                        widened_to(zone)
                    }
                }
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
        prefixes.extend(widened);
    }
    if prefixes.is_empty() && unresolved {
        Peers::Unresolved
    } else {
        Peers::Prefixes(prefixes)
    }
}

const ENTITIES: [&str; 13] = [
    "all",
    "cluster",
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

/// A prefix or, as Cilium allows in `toCIDR`, an address.
fn cidr(node: &Node<'_>, report: &mut Report<'_>) -> Option<IpNet> {
    let text = node.value.as_str()?;
    match text.parse::<IpAddr>() {
        Ok(address) => Some(address.into()),
        Err(_) => prefix(node, report),
    }
}

fn prefix(node: &Node<'_>, report: &mut Report<'_>) -> Option<IpNet> {
    let text = node.value.as_str()?;
    let Ok(prefix) = text.parse::<IpNet>() else {
        report
            .error("bad-cidr", &node.path, format!("{} is not a CIDR", quoted(text)))
            .suggest("write an address and a prefix length, like 192.0.2.0/24 or 2001:db8::/32");
        return None;
    };
    if prefix != prefix.trunc() {
        report
            .warning(
                "host-bits",
                &node.path,
                format!(
                    "{prefix} has bits set beyond its prefix length and means {}",
                    prefix.trunc()
                ),
            )
            .suggest(format!(
                "write {}, or {}/{}",
                prefix.trunc(),
                prefix.addr(),
                prefix.max_prefix_len()
            ));
    }
    Some(prefix.trunc())
}

/// One entry of `toCIDRSet`, with `except` taken out.
fn cidr_rule(entry: &Node<'_>, side: Side, report: &mut Report<'_>) -> Vec<(Zone, IpNet)> {
    if !entry.value.is_object() {
        return Vec::new();
    }
    let given: Vec<_> = ["cidr", "cidrGroupRef", "cidrGroupSelector"]
        .iter()
        .filter_map(|field| entry.get(field))
        .collect();
    let [node] = given.as_slice() else {
        report.error(
            "bad-cidr",
            &entry.path,
            "it needs exactly one of `cidr`, `cidrGroupRef` and `cidrGroupSelector`",
        );
        return Vec::new();
    };
    if entry.get("cidr").is_none() {
        let (effect, prefixes) = match side {
            Side::Allow => ("opens nothing", Vec::new()),
            Side::Deny => ("denies every destination outside the cluster", everything(Zone::World)),
        };
        report.unenforced(
            &node.path,
            format!("CIDR groups are not resolved yet, so this entry {effect}"),
        );
        return prefixes;
    }
    let Some(whole) = prefix(node, report) else {
        return Vec::new();
    };
    let except = entry.list("except");
    if except.len() > MAX_EXCEPT {
        let reason = format!("it has {} entries, and at most {MAX_EXCEPT} are read", except.len());
        report
            .error("too-many", &format!("{}.except", entry.path), reason)
            .suggest("write several `toCIDRSet` entries");
        return Vec::new();
    }
    let mut holes = Vec::new();
    for node in &except {
        let Some(hole) = prefix(node, report) else { continue };
        if !whole.contains(&hole) {
            report.error("bad-except", &node.path, format!("{hole} does not lie inside {whole}"));
        }
        holes.push(hole);
    }
    let mut left = Vec::new();
    subtract(whole, &holes, &mut left);
    left.into_iter().map(|prefix| (Zone::World, prefix)).collect()
}

/// The prefixes that make up `whole` without `holes`, from low to high. Halves while a hole lies inside, so at most as
/// deep as an address has bits.
fn subtract(whole: IpNet, holes: &[IpNet], left: &mut Vec<IpNet>) {
    if holes.iter().any(|hole| hole.contains(&whole)) {
        return;
    }
    let inside: Vec<IpNet> = holes.iter().copied().filter(|hole| whole.contains(hole)).collect();
    match whole.subnets(whole.prefix_len() + 1) {
        Ok(halves) if !inside.is_empty() => halves.for_each(|half| subtract(half, &inside, left)),
        _ => left.push(whole),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn small_prefix() -> impl Strategy<Value = IpNet> {
        (0u8..=255, 24u8..=32)
            .prop_map(|(last, length)| IpNet::new(IpAddr::from([10, 0, 0, last]), length).unwrap().trunc())
    }

    proptest! {
        #[test]
        fn a_prefix_without_holes_holds_what_is_in_it_and_in_no_hole(
            whole in small_prefix(),
            holes in prop::collection::vec(small_prefix(), 0..6),
        ) {
            let holes: Vec<_> = holes.into_iter().filter(|hole| whole.contains(hole)).collect();
            let mut left = Vec::new();
            subtract(whole, &holes, &mut left);
            for last in 0..=255u8 {
                let address = IpAddr::from([10, 0, 0, last]);
                let expected = whole.contains(&address) && !holes.iter().any(|hole| hole.contains(&address));
                let times = left.iter().filter(|prefix| prefix.contains(&address)).count();
                prop_assert_eq!(times, usize::from(expected), "{}", address);
            }
        }
    }
}
