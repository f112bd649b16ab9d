//! ClusterNetworkPolicies with the same priority.

use std::collections::BTreeMap;

use crate::diagnostic_report::DiagnosticReport;
use crate::policy::Tier;

use super::context::{LintContext, LintedSpec};

/// Warns of policies of one tier and priority that select the same Pods, because the API does not
/// say which comes first.
pub(super) fn equal(context: &LintContext<'_>, reports: &mut [DiagnosticReport<'_>]) {
    let mut by_tier: BTreeMap<Tier, Vec<&LintedSpec<'_>>> = BTreeMap::new();
    for linted in context.specs.iter().filter(|linted| linted.spec.tier != Tier::Network) {
        by_tier.entry(linted.spec.tier).or_default().push(linted);
    }
    for mut linted in by_tier.into_values() {
        linted.sort_by_key(|linted| linted.id);
        for (index, later) in linted.iter().enumerate() {
            let Some(earlier) = linted[..index]
                .iter()
                .find(|earlier| context.select_a_common_pod(earlier, later))
            else {
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
