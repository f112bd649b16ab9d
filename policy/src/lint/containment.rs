//! Whether one rule or selector holds everything that another holds.
//!
//! `true` is certain; `false` may mean that it cannot be told.

use crate::labels::{LabelSelector, Operator, Requirement};
use crate::peer_selector::{NamedPort, ObjectSelector, PeerSelector, ServiceSelector};
use crate::policy::PolicyRule;
use crate::ports::PortSet;
use crate::prefix;
use crate::program::Peer;
use crate::zone::Zone;

/// Whether `whole` matches all traffic that `part` matches.
pub(super) fn rule_in(part: &PolicyRule, whole: &PolicyRule) -> bool {
    let is_everywhere = everywhere(&whole.peers);
    ports_in(part, whole)
        && match &part.peers {
            PeerSelector::Unresolved => false,
            _ if is_everywhere => true,
            peers => {
                let wholes = peers_of(&whole.peers);
                let parts = peers_of(peers);
                parts.iter().all(|part| wholes.iter().any(|whole| peer_in(part, whole)))
            }
        }
}

/// An upper bound of the comparisons that [`rule_in`] makes.
pub(super) fn cost(part: &PolicyRule, whole: &PolicyRule) -> usize {
    let count = |peers: &PeerSelector| match peers {
        PeerSelector::Names(names) => names.len(),
        PeerSelector::Prefixes(prefixes) => prefixes.len(),
        PeerSelector::Objects(objects) => objects.len(),
        PeerSelector::Unresolved => 0,
    };
    1 + count(&part.peers).saturating_mul(count(&whole.peers))
}

/// Whether `whole` selects every object that `part` selects.
pub(super) fn selector_in(part: &LabelSelector, whole: &LabelSelector) -> bool {
    let implied = |wanted: &Requirement| part.requirements.iter().any(|given| implies(given, wanted));
    whole.requirements.iter().all(implied)
}

fn ports_in(part: &PolicyRule, whole: &PolicyRule) -> bool {
    let named_in = |name: &NamedPort| {
        let is_there =
            |known: &NamedPort| known.name == name.name && name.protocols.iter().all(|it| known.protocols.contains(it));
        whole.named.iter().any(is_there)
    };
    whole.ports == PortSet::All || part.ports.subtract(&whole.ports).is_empty() && part.named.iter().all(named_in)
}

/// Whether peers are every address, inside and outside the cluster.
pub(super) fn everywhere(peers: &PeerSelector) -> bool {
    let PeerSelector::Prefixes(prefixes) = peers else {
        return false;
    };
    prefix::everything(Zone::Anywhere)
        .iter()
        .all(|all| prefixes.contains(all))
}

/// As [`Inventory::peers`](crate::Inventory), but CiliumCIDRGroups stay selectors.
fn peers_of(peers: &PeerSelector) -> Vec<Peer> {
    let prefix = |(zone, prefix): &_| Peer::Prefix(*zone, *prefix);
    match peers {
        PeerSelector::Unresolved => Vec::new(),
        PeerSelector::Names(patterns) => patterns.iter().cloned().map(Peer::Name).collect(),
        PeerSelector::Prefixes(prefixes) => prefixes.iter().map(prefix).collect(),
        PeerSelector::Objects(selectors) => {
            let each = selectors.iter().map(|selector| match selector {
                ObjectSelector::Prefix(zone, prefix) => Peer::Prefix(*zone, *prefix),
                other => Peer::Object(other.clone()),
            });
            each.collect()
        }
    }
}

fn peer_in(part: &Peer, whole: &Peer) -> bool {
    match (part, whole) {
        (Peer::Prefix(part_zone, part), Peer::Prefix(zone, whole)) => {
            whole.contains(part) && is_zone_in(*part_zone, *zone)
        }
        (Peer::Name(part), Peer::Name(whole)) => whole.covers(part),
        (Peer::Object(part), Peer::Object(whole)) => object_in(part, whole),
        _ => false,
    }
}

/// Whether every address of one zone lies in the other, whatever clusters there are.
fn is_zone_in(part: Zone, whole: Zone) -> bool {
    part == whole || whole == Zone::Anywhere || (part, whole) == (Zone::Cluster, Zone::Mesh)
}

fn object_in(part: &ObjectSelector, whole: &ObjectSelector) -> bool {
    match (part, whole) {
        (ObjectSelector::Pods(part), ObjectSelector::Pods(whole))
        | (ObjectSelector::Nodes(part), ObjectSelector::Nodes(whole)) => selector_in(part, whole),
        (ObjectSelector::RemoteNodes, ObjectSelector::Nodes(whole)) => whole.requirements.is_empty(),
        (ObjectSelector::Services(part), ObjectSelector::Services(whole)) => service_in(part, whole),
        (part, whole) => part == whole,
    }
}

fn service_in(part: &ServiceSelector, whole: &ServiceSelector) -> bool {
    let same = |part: &Option<String>, whole: &Option<String>| whole.is_none() || part == whole;
    same(&part.namespace, &whole.namespace) && same(&part.name, &whole.name) && selector_in(&part.labels, &whole.labels)
}

/// Whether every object that meets `given` meets `wanted`.
fn implies(given: &Requirement, wanted: &Requirement) -> bool {
    given.key == wanted.key
        && match (&given.operator, &wanted.operator) {
            (Operator::In(given), Operator::In(wanted)) => given.iter().all(|value| wanted.contains(value)),
            (Operator::In(given), Operator::NotIn(wanted)) => !given.iter().any(|value| wanted.contains(value)),
            (Operator::In(_), Operator::Exists) => true,
            (Operator::NotIn(given), Operator::NotIn(wanted)) => wanted.iter().all(|value| given.contains(value)),
            (Operator::DoesNotExist, Operator::NotIn(_)) => true,
            (given, wanted) => given == wanted,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_in_another_that_asks_for_no_more() {
        let of = |labels: &[(&str, &str)], expressions: &[(&str, &str, &[&str])]| {
            let labels = labels.iter().map(|(key, value)| ((*key).into(), (*value).into()));
            let expressions = expressions.iter().map(|(key, operator, values)| {
                let values = values.iter().map(|value| (*value).into()).collect();
                ((*key).into(), (*operator).into(), values)
            });
            LabelSelector::new(labels, expressions).unwrap()
        };
        let web = of(&[("app", "web")], &[]);
        let blue_web = of(&[("app", "web"), ("colour", "blue")], &[]);
        assert!(selector_in(&blue_web, &web) && !selector_in(&web, &blue_web));
        assert!(selector_in(&web, &of(&[], &[])) && !selector_in(&of(&[], &[]), &web));
        assert!(selector_in(&web, &of(&[], &[("app", "In", &["web", "api"])])));
        assert!(selector_in(&web, &of(&[], &[("app", "NotIn", &["api"])])));
        assert!(selector_in(&web, &of(&[], &[("app", "Exists", &[])])));
        assert!(!selector_in(&of(&[], &[("app", "Exists", &[])]), &web));
        assert!(selector_in(
            &of(&[], &[("app", "DoesNotExist", &[])]),
            &of(&[], &[("app", "NotIn", &["api"])])
        ));
    }
}
