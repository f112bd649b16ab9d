//! ClusterNetworkPolicies whose order is not written.

use std::collections::{BTreeMap, HashMap};

use crate::diagnostic_report::DiagnosticReport;
use crate::policy::Tier;

use super::context::{LintContext, LintedSpec};

/// Policies of one tier and priority that are about the same Pods: the API does not say which comes
/// first.
pub(super) fn equal(context: &LintContext<'_>, reports: &mut [DiagnosticReport<'_>]) {
    let mut by_tier: BTreeMap<Tier, Vec<&LintedSpec<'_>>> = BTreeMap::new();
    for linted in context.specs.iter().filter(|linted| linted.spec.tier != Tier::Network) {
        by_tier.entry(linted.spec.tier).or_default().push(linted);
    }
    for mut linted in by_tier.into_values() {
        linted.sort_by_key(|linted| linted.id);
        // The first one about each Pod, by its place. Without Pods, any two may meet.
        let mut firsts: HashMap<usize, usize> = HashMap::new();
        for (index, later) in linted.iter().enumerate() {
            let earlier = match context.has_pods() {
                true => later.pods.iter().filter_map(|pod| firsts.get(pod)).min().copied(),
                false => (index > 0).then_some(0),
            };
            for pod in &later.pods {
                firsts.entry(*pod).or_insert(index);
            }
            let Some(earlier) = earlier else { continue };
            let reason = format!(
                "{} has the same tier and priority, and the API leaves it open which comes first; here the name decides",
                linted[earlier].label()
            );
            reports[later.policy]
                .warning("equal-priority", &format!("{}.priority", later.node.path), reason)
                .suggest("give each policy of a tier its own priority");
        }
    }
}
