//! Fields that belong to the other direction, and what is meant by them: under `ingress` peers are
//! sources, under `egress` destinations.

use crate::direction::Direction;

/// What to write in place of a field that is not known where it stands, but is in the other
/// direction. `path` leads to the field.
pub(crate) fn meant(name: &str, path: &str) -> Option<String> {
    let direction = direction_of(path)?;
    let other = match direction {
        Direction::Egress => Direction::Ingress,
        Direction::Ingress => Direction::Egress,
    };
    let here = format!("under `{direction}` {}s are selected", direction.peer());
    let there = format!("what is to be said of {}s stands under `{other}`", other.peer());
    match (direction, name) {
        (Direction::Ingress, "toFQDNs" | "domainNames") => Some(format!(
            "{here}, and names never select these: write their addresses; {there}"
        )),
        (Direction::Ingress, "toServices") => Some(format!(
            "{here}, and connections come from Pods: write `fromEndpoints` with the labels of the Pods behind the Service; {there}"
        )),
        // Of ClusterNetworkPolicies.
        (Direction::Ingress, "networks" | "nodes") => Some(format!(
            "{here}, and ClusterNetworkPolicies select these by `namespaces` and `pods` alone; {there}"
        )),
        (_, "networks" | "nodes" | "domainNames") => None,
        _ => counterpart(direction, name).map(|meant| format!("did you mean `{meant}`? {here}; {there}")),
    }
}

/// The field of this direction that is to it what `name` is to the other.
fn counterpart(direction: Direction, name: &str) -> Option<String> {
    const KINDS: [&str; 8] = [
        "",
        "CIDR",
        "CIDRSet",
        "Entities",
        "Endpoints",
        "Nodes",
        "Groups",
        "Requires",
    ];
    let (own, other) = match direction {
        Direction::Egress => ("to", "from"),
        Direction::Ingress => ("from", "to"),
    };
    let kind = name.strip_prefix(other)?;
    KINDS.contains(&kind).then(|| format!("{own}{kind}"))
}

/// The direction whose rules a path leads into: the last that it names.
fn direction_of(path: &str) -> Option<Direction> {
    let lists = path.rsplit('.').filter_map(|step| step.split_once('['));
    let direction = |list: &str| match list {
        "egress" | "egressDeny" => Some(Direction::Egress),
        "ingress" | "ingressDeny" => Some(Direction::Ingress),
        _ => None,
    };
    lists.into_iter().find_map(|(list, _)| direction(list))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_the_other_direction_is_told_with_what_stands_for_it_here() {
        for (name, path, expected) in [
            ("toCIDR", "spec.ingress[0].toCIDR", "did you mean `fromCIDR`?"),
            (
                "toEndpoints",
                "specs[1].ingressDeny[2].toEndpoints",
                "did you mean `fromEndpoints`?",
            ),
            (
                "fromEntities",
                "spec.egress[0].fromEntities",
                "did you mean `toEntities`? under `egress` destinations are selected",
            ),
            ("from", "spec.egress[0].from", "did you mean `to`?"),
            ("toFQDNs", "spec.ingress[0].toFQDNs", "names never select these"),
            ("toServices", "spec.ingress[0].toServices", "`fromEndpoints`"),
            (
                "networks",
                "spec.ingress[0].from[0].networks",
                "by `namespaces` and `pods` alone",
            ),
        ] {
            let told = meant(name, path).unwrap_or_default();
            assert!(told.contains(expected), "{path}: {told}");
        }
        for (name, path) in [
            ("toPort", "spec.ingress[0].toPort"),
            ("fromFQDNs", "spec.egress[0].fromFQDNs"),
            ("toCIDR", "spec.toCIDR"),
            ("networks", "spec.egress[0].to[0].networks"),
        ] {
            assert_eq!(meant(name, path), None, "{path}");
        }
    }
}
