//! All policies at once, and which of them are about the same Pods.

use std::collections::BTreeSet;

use crate::document::Document;
use crate::policy::{Policy, PolicySpec, SubjectKind};
use crate::policy_id::PolicyId;
use crate::shape::DocumentNode;

use super::cluster_context::ClusterContext;
use super::selection::Selection;
use super::selector_index::SelectorIndex;
use super::specs;
use super::written_names::WrittenNames;

/// Every spec of every policy that is about Pods, and what there is beside them.
pub(super) struct LintContext<'a> {
    pub(super) specs: Vec<LintedSpec<'a>>,
    pub(super) selection: Selection<'a>,
    /// For each Pod the specs that select it, each such group once.
    groups: Vec<Vec<usize>>,
    /// For each spec the groups that it is in.
    groups_of_spec: Vec<Vec<usize>>,
    subjects: SelectorIndex<'a>,
}

/// A spec and where it stands.
pub(super) struct LintedSpec<'a> {
    /// The index of its policy.
    pub(super) policy: usize,
    pub(super) id: &'a PolicyId,
    /// Whether its policy is in mode audit.
    pub(super) is_audited: bool,
    pub(super) node: DocumentNode<'a>,
    pub(super) spec: &'a PolicySpec,
    pub(super) names: WrittenNames<'a>,
    /// The indices of the Pods that it selects.
    pub(super) pods: Vec<usize>,
}

impl<'a> LintContext<'a> {
    pub(super) fn new(policies: &[(&'a Document, &'a Policy)], cluster: &'a ClusterContext<'_>) -> Self {
        let selection = Selection::new(cluster);
        let mut specs_of_pods = vec![Vec::new(); selection.pods().len()];
        let mut linted = Vec::new();
        for (index, &(document, policy)) in policies.iter().enumerate() {
            let of_pods = |(_, spec): &(_, &PolicySpec)| spec.subject_kind == SubjectKind::Pods;
            for (node, spec) in specs(document, policy).filter(of_pods) {
                let selected = selection.pods().matching(&spec.subject);
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
        let groups: BTreeSet<Vec<usize>> = specs_of_pods.into_iter().collect();
        let groups: Vec<Vec<usize>> = groups.into_iter().collect();
        let mut groups_of_spec = vec![Vec::new(); linted.len()];
        for (index, group) in groups.iter().enumerate() {
            group.iter().for_each(|spec| groups_of_spec[*spec].push(index));
        }
        Self {
            subjects: SelectorIndex::new(linted.iter().map(|linted| &linted.spec.subject)),
            specs: linted,
            selection,
            groups,
            groups_of_spec,
        }
    }

    /// The sets of specs that decide together, `of` among them. Without Pods, only what holds for
    /// whichever Pods there will be.
    pub(super) fn groups_with(&self, of: usize) -> Vec<Vec<&LintedSpec<'a>>> {
        let specs = |group: &[usize]| group.iter().filter_map(|index| self.specs.get(*index)).collect();
        if self.has_pods() {
            let groups = self.groups_of_spec.get(of).into_iter().flatten();
            return groups.map(|group| specs(&self.groups[*group])).collect();
        }
        match self.specs.get(of) {
            Some(linted) => vec![specs(&self.subjects.containing(&linted.spec.subject))],
            None => Vec::new(),
        }
    }

    /// Whether there are Pods at all.
    pub(super) fn has_pods(&self) -> bool {
        !self.selection.pods().is_empty()
    }
}

impl LintedSpec<'_> {
    /// The policy as messages name it.
    pub(super) fn label(&self) -> String {
        format!("{} {}", self.id.kind.as_str(), self.id)
    }
}
