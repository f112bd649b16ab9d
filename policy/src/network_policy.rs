//! `networking.k8s.io/v1` NetworkPolicy.
//!
//! It never filters DNS questions: it knows no names.

mod peers;
mod ports;
mod rule;
mod schema;
mod stand_in;

#[cfg(test)]
mod tests;

use crate::diagnostic::quoted;
use crate::diagnostic_report::DiagnosticReport;
use crate::direction::{Direction, PerDirection};
use crate::endpoint::keys;
use crate::labels::{LabelSelector, Requirement};
use crate::policy::{DirectionSpec, PolicyRule, PolicySpec, SubjectKind, Tier};
use crate::policy_id::PolicyId;
use crate::selector;
use crate::shape::{self, DocumentNode};

pub(crate) use schema::POLICY as POLICY_SHAPE;
pub(crate) use stand_in::read as stand_in;

/// The only spec of a policy object.
pub(crate) fn read(root: &DocumentNode<'_>, id: &PolicyId, report: &mut DiagnosticReport<'_>) -> Vec<PolicySpec> {
    shape::check(root, &schema::POLICY, report);
    let Some(spec) = root.get("spec") else {
        report
            .warning(
                "no-spec",
                "",
                "it has no `spec`: as the API server fills it in, it closes ingress of every Pod of its namespace",
            )
            .suggest("write `spec` with a `podSelector` and what is to be let through");
        let subject = LabelSelector {
            requirements: vec![own_namespace(id)],
        };
        let is_governed = PerDirection {
            egress: false,
            ingress: true,
        };
        return vec![policy_spec(subject, is_governed, PerDirection::default())];
    };
    let subject = subject(&spec, id, report);
    let is_governed = governed_directions(&spec, report);
    let rules = PerDirection::from_fn(|direction| rules(&spec, direction, is_governed[direction], id, report));
    let spec = subject.map(|subject| policy_spec(subject, is_governed, rules));
    spec.into_iter().collect()
}

/// A direction that is governed is closed, and the others are not spoken of, whatever rules stand
/// there.
fn policy_spec(
    subject: LabelSelector,
    is_governed: PerDirection<bool>,
    mut rules: PerDirection<Vec<PolicyRule>>,
) -> PolicySpec {
    PolicySpec {
        subject_kind: SubjectKind::Pods,
        subject,
        tier: Tier::Network,
        directions: is_governed.map(|direction, closes| DirectionSpec {
            closes,
            rules: match closes {
                true => std::mem::take(&mut rules[direction]),
                false => Vec::new(),
            },
        }),
    }
}

/// The rules of a direction. Those of one that is not governed are read for what is wrong with them
/// only.
fn rules(
    spec: &DocumentNode<'_>,
    direction: Direction,
    is_governed: bool,
    id: &PolicyId,
    report: &mut DiagnosticReport<'_>,
) -> Vec<PolicyRule> {
    let field = direction.as_str();
    if !is_governed {
        spec.nulls()
            .filter(|(name, _)| *name == field)
            .for_each(|(name, node)| shape::no_value(name, &node, report));
    }
    let written = spec.list(field);
    if !is_governed && !written.is_empty() {
        let (code, kind) = match direction {
            Direction::Egress => ("egress-not-governed", EGRESS),
            Direction::Ingress => ("ingress-not-governed", INGRESS),
        };
        report
            .warning(
                code,
                &format!("{}.{field}", spec.path),
                format!("`policyTypes` does not list {kind}, so these rules have no effect"),
            )
            .suggest(format!("add `{kind}` to `policyTypes`"));
    }
    let peers = match direction {
        Direction::Egress => "to",
        Direction::Ingress => "from",
    };
    written.iter().map(|node| rule::read(node, peers, id, report)).collect()
}

/// The entries of `policyTypes`.
const EGRESS: &str = "Egress";
const INGRESS: &str = "Ingress";

/// Which directions a policy governs, as the API server fills `policyTypes` in: Ingress always, and
/// Egress if there are rules for it. Where it lists something, it is exactly that.
fn governed_directions(spec: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> PerDirection<bool> {
    const MAX_TYPES: usize = 2;
    let types = spec.list("policyTypes");
    if types.is_empty() {
        return PerDirection {
            egress: !spec.list("egress").is_empty(),
            ingress: true,
        };
    }
    let path = format!("{}.policyTypes", spec.path);
    if types.len() > MAX_TYPES {
        let reason = format!("it has {} entries, and at most {MAX_TYPES} are allowed", types.len());
        report.error("too-many", &path, reason);
    }
    let mut is_governed = PerDirection::default();
    for node in &types {
        match node.value.as_str() {
            Some(INGRESS) => is_governed.ingress = true,
            Some(EGRESS) => is_governed.egress = true,
            Some(other) => {
                let reason = format!("{} is not Ingress or Egress", quoted(other));
                report.error("bad-value", &node.path, reason);
            }
            None => {}
        }
    }
    is_governed
}

/// The Pods of the policy's namespace that `podSelector` matches; every one where there is none.
fn subject(spec: &DocumentNode<'_>, id: &PolicyId, report: &mut DiagnosticReport<'_>) -> Option<LabelSelector> {
    let mut selector = match spec.get("podSelector") {
        Some(node) => selector::read_bare(&node, "", report)?,
        None => LabelSelector::default(),
    };
    selector.requirements.push(own_namespace(id));
    Some(selector)
}

fn own_namespace(id: &PolicyId) -> Requirement {
    Requirement::equals(keys::NAMESPACE, &id.namespace)
}
