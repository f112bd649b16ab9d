//! ClusterNetworkPolicies whose order is not written.

use std::collections::BTreeMap;

use crate::diagnostic::Report;
use crate::policy::Tier;

use super::together::{Placed, Together};

/// Policies of one tier and priority that are about the same Pods: the API does not say which comes
/// first.
pub(super) fn equal(together: &Together<'_>, reports: &mut [Report<'_>]) {
    let mut by_tier: BTreeMap<Tier, Vec<&Placed<'_>>> = BTreeMap::new();
    for placed in together.specs.iter().filter(|placed| placed.spec.tier != Tier::Network) {
        by_tier.entry(placed.spec.tier).or_default().push(placed);
    }
    for mut placed in by_tier.into_values() {
        placed.sort_by_key(|placed| placed.id);
        for (index, later) in placed.iter().enumerate() {
            let Some(earlier) = placed[..index].iter().find(|earlier| together.meet(earlier, later)) else {
                continue;
            };
            let reason = format!(
                "{} has the same tier and priority, and the API leaves it open which comes first; here the name decides",
                earlier.label()
            );
            reports[later.policy]
                .warning("equal-priority", &format!("{}.priority", later.node.path), reason)
                .suggest("give each policy of a tier its own priority");
        }
    }
}
