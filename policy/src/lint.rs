//! What is valid but probably not meant.
//!
//! Every finding is a warning with a stable code, which `docs/lints.md` explains. [`lint()`] looks
//! at one policy by itself, [`across`] at all of them together and at the objects around them.

mod audit;
mod cluster_context;
mod containment;
mod context;
mod encrypted_dns;
mod l7;
mod names;
mod networks;
mod nodes;
mod peers;
mod ports;
mod priorities;
mod selection;
mod selector_index;
mod shadows;
mod sources;
mod subjects;
mod written_names;

#[cfg(test)]
mod tests;

use crate::diagnostic::Diagnostic;
use crate::diagnostic_report::DiagnosticReport;
use crate::document::Document;
use crate::policy::{Policy, PolicySpec};
use crate::shape::DocumentNode;

pub use cluster_context::{ClusterContext, ServicePortMapping, TargetPort};
use context::LintContext;

/// Findings about one valid policy by itself.
///
/// Rules are compared within one `spec` only, because another may select other endpoints.
pub fn lint(document: &Document, policy: &Policy) -> Vec<Diagnostic> {
    let mut report = DiagnosticReport::new(document);
    let mut budget = shadows::ComparisonBudget::of_one();
    for (node, spec) in specs(document, policy) {
        subjects::selects_all(&node, policy.id.kind, spec, &mut report);
        subjects::empty_rules(&node, &mut report);
        peers::empty(&node, policy.id.kind, spec, &mut report);
        names::of_one(&node, &mut report);
        ports::to_anywhere(&node, policy.id.kind, &mut report);
        encrypted_dns::left_open(spec, &mut report);
        sources::own_node_denied(spec, &mut report);
        nodes::of_one(&node, spec, &mut report);
        shadows::of_one(spec, &mut budget, &mut report);
        l7::of_one(spec, &mut budget, &mut report);
    }
    subjects::without_effect(policy, &mut report);
    report.finish()
}

/// Findings about valid policies as parts of one cluster: a list for each policy, in their order.
/// What [`lint()`] finds is not among them.
///
/// A kind of object of which `cluster` holds none gives no findings, because policies may be kept
/// apart from the objects that they select.
pub fn across(policies: &[(&Document, &Policy)], cluster: &ClusterContext<'_>) -> Vec<Vec<Diagnostic>> {
    let mut reports: Vec<_> = policies
        .iter()
        .map(|(document, _)| DiagnosticReport::new(document))
        .collect();
    let context = LintContext::new(policies, cluster);
    names::of_many(&context, &mut reports);
    shadows::of_many(&context, &mut reports);
    priorities::equal(&context, &mut reports);
    for ((document, policy), report) in policies.iter().zip(&mut reports) {
        audit::left_on(policy, report);
        for (node, spec) in specs(document, policy) {
            nodes::selects_none(&node, spec, cluster, report);
        }
    }
    let networks = networks::IndexedNetworks::of(cluster);
    for linted in &context.specs {
        let report = &mut reports[linted.policy];
        subjects::selects_none(linted, &context.selection, report);
        peers::select_nothing(linted, cluster, &context.selection, report);
        ports::unknown_names(linted, &context.selection, report);
        ports::of_services(linted, &context.selection, report);
        networks.are_met_by(linted, report);
        sources::behind_services(linted, cluster, &context.selection, report);
    }
    reports.into_iter().map(DiagnosticReport::finish).collect()
}

/// The specs of a policy, each with the node that it was read from.
fn specs<'a>(document: &'a Document, policy: &'a Policy) -> impl Iterator<Item = (DocumentNode<'a>, &'a PolicySpec)> {
    let root = DocumentNode::root(&document.value);
    let nodes: Vec<_> = root.get("spec").into_iter().chain(root.list("specs")).collect();
    nodes.into_iter().zip(&policy.specs)
}

/// The path of the rule that an [`origin`](crate::PolicyRule::origin) names. The origins of some
/// rules hold the rule's own name behind the path.
fn path_of(origin: &str) -> &str {
    origin.split(' ').next().unwrap_or_default()
}
