//! What depends on the addresses of other nodes' pods.

use policy::{ObjectSelector, PeerSelector, Policy};

/// Whether `policy` means something else when other nodes' pods are not known: it selects pods as
/// destinations, or names ports that they number. (A Service's backends are known by its
/// EndpointSlices.)
pub(super) fn speaks_of_pods(policy: &Policy) -> bool {
    let rules = policy.specs.iter().flat_map(|spec| spec.rules());
    rules.into_iter().any(|rule| {
        let by_pods = match &rule.peers {
            PeerSelector::Objects(selectors) => selectors.iter().any(|it| matches!(it, ObjectSelector::Pods(_))),
            PeerSelector::Names(_) | PeerSelector::Prefixes(_) | PeerSelector::Unresolved => false,
        };
        by_pods || !rule.named.is_empty()
    })
}
