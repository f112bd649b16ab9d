//! What depends on the addresses of other nodes' pods.

use policy::{Direction, ObjectSelector, PeerSelector, Policy};

/// Whether `policy` means something else when other nodes' pods are not known: it selects pods as
/// peers, or, at egress, names ports that they number. (A Service's backends are known by its
/// EndpointSlices. At ingress the ports are those of the pods that the policy selects.)
pub(super) fn speaks_of_pods(policy: &Policy) -> bool {
    let directions = policy.specs.iter().flat_map(|spec| spec.directions.iter());
    let mut rules = directions.flat_map(|(direction, spec)| spec.rules.iter().map(move |rule| (direction, rule)));
    rules.any(|(direction, rule)| {
        let by_pods = match &rule.peers {
            PeerSelector::Objects(selectors) => selectors.iter().any(|it| matches!(it, ObjectSelector::Pods(_))),
            PeerSelector::Names(_) | PeerSelector::Prefixes(_) | PeerSelector::Unresolved => false,
        };
        by_pods || (direction == Direction::Egress && !rule.named.is_empty())
    })
}
