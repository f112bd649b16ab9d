//! All policies together, and which of them select the same Pods.

use std::collections::BTreeSet;

use crate::document::Document;
use crate::policy::{Policy, PolicySpec};
use crate::policy_id::PolicyId;
use crate::shape::DocumentNode;

use super::cluster_context::ClusterContext;
use super::containment::selector_in;
use super::specs;
use super::written_names::WrittenNames;

/// Every spec of every policy, and which of them select the same Pods.
pub(super) struct LintContext<'a> {
    pub(super) specs: Vec<LintedSpec<'a>>,
    has_pods: bool,
    /// The groups of specs that select one Pod, as sorted indices. Pods that the same specs select
    /// share a group.
    groups: BTreeSet<Vec<usize>>,
}

/// A spec with the policy and the document that it stands in.
pub(super) struct LintedSpec<'a> {
    /// The index of its policy among all policies.
    pub(super) policy: usize,
    pub(super) id: &'a PolicyId,
    /// Whether its policy is in mode audit.
    pub(super) is_audited: bool,
    pub(super) node: DocumentNode<'a>,
    pub(super) spec: &'a PolicySpec,
    pub(super) names: WrittenNames<'a>,
    /// The indices of the Pods that it selects, sorted.
    pub(super) pods: Vec<usize>,
}

impl<'a> LintContext<'a> {
    pub(super) fn new(policies: &[(&'a Document, &'a Policy)], cluster: &ClusterContext<'_>) -> Self {
        let pods: Vec<_> = cluster.inventory.pods.iter().collect();
        let mut specs_of_pods = vec![Vec::new(); pods.len()];
        let mut linted = Vec::new();
        for (index, &(document, policy)) in policies.iter().enumerate() {
            for (node, spec) in specs(document, policy) {
                let selected = pods.iter().enumerate();
                let selected = selected.filter(|(_, pod)| spec.subject.matches(pod.labels()));
                let selected: Vec<usize> = selected.map(|(pod, _)| pod).collect();
                for pod in &selected {
                    specs_of_pods[*pod].push(linted.len());
                }
                linted.push(LintedSpec {
                    policy: index,
                    id: &policy.id,
                    is_audited: policy.extensions.audit,
                    names: WrittenNames::of(&node),
                    node,
                    spec,
                    pods: selected,
                });
            }
        }
        Self {
            specs: linted,
            has_pods: !pods.is_empty(),
            groups: specs_of_pods.into_iter().collect(),
        }
    }

    /// The groups of specs that decide together and that `of` is in: one group for each set of Pods
    /// that the same specs select. Without Pods, one group with the specs that certainly select
    /// whatever `of` selects.
    pub(super) fn groups_with(&self, of: usize) -> Vec<Vec<&LintedSpec<'a>>> {
        if self.has_pods {
            let groups = self.groups.iter().filter(|group| group.binary_search(&of).is_ok());
            return groups
                .map(|group| group.iter().filter_map(|index| self.specs.get(*index)).collect())
                .collect();
        }
        let Some(linted) = self.specs.get(of) else {
            return Vec::new();
        };
        let others = self.specs.iter();
        vec![
            others
                .filter(|other| selector_in(&linted.spec.subject, &other.spec.subject))
                .collect(),
        ]
    }

    /// Whether both select some Pod. Without Pods, true, because one might come.
    pub(super) fn select_a_common_pod(&self, a: &LintedSpec<'_>, b: &LintedSpec<'_>) -> bool {
        !self.has_pods || a.pods.iter().any(|pod| b.pods.binary_search(pod).is_ok())
    }
}

impl LintedSpec<'_> {
    /// The policy's kind and id, as messages name it.
    pub(super) fn label(&self) -> String {
        format!("{} {}", self.id.kind.as_str(), self.id)
    }
}
