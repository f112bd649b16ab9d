//! `networking.k8s.io/v1` NetworkPolicy, its egress side.
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
use crate::direction::PerDirection;
use crate::endpoint::keys;
use crate::labels::{LabelSelector, Requirement};
use crate::policy::{DirectionSpec, PolicySpec, Tier};
use crate::policy_id::PolicyId;
use crate::selector;
use crate::shape::{self, DocumentNode};

pub(crate) use schema::POLICY as POLICY_SHAPE;
pub(crate) use stand_in::read as stand_in;

/// The only spec of a policy object.
pub(crate) fn read(root: &DocumentNode<'_>, id: &PolicyId, report: &mut DiagnosticReport<'_>) -> Vec<PolicySpec> {
    shape::check(root, &schema::POLICY, report);
    let Some(spec) = root.get("spec") else {
        report.warning("no-spec", "", "it has no `spec`, and says nothing of egress");
        return Vec::new();
    };
    let subject = subject(&spec, id, report);
    let governs = Governs::read(&spec, report);
    if spec.is_null("egress") && !governs.egress {
        spec.nulls()
            .filter(|(name, _)| *name == "egress")
            .for_each(|(name, node)| shape::no_value(name, &node, report));
    }
    for rule in spec.list("ingress") {
        // Read for what is wrong with it only.
        rule::read(&rule, "from", id, report);
    }
    let rules: Vec<_> = spec
        .list("egress")
        .iter()
        .map(|node| rule::read(node, "to", id, report))
        .collect();
    if governs.ingress {
        report_ingress(&spec, report);
    }
    if !governs.egress && !rules.is_empty() {
        report
            .warning(
                "egress-not-governed",
                &format!("{}.egress", spec.path),
                "`policyTypes` does not list Egress, so these rules have no effect",
            )
            .suggest("add `Egress` to `policyTypes`");
    }
    let subject = subject.filter(|_| governs.egress);
    let spec = subject.map(|subject| PolicySpec {
        subject,
        tier: Tier::Network,
        directions: PerDirection::of_egress(DirectionSpec { closes: true, rules }),
    });
    spec.into_iter().collect()
}

/// Which directions a policy governs.
struct Governs {
    ingress: bool,
    egress: bool,
}

impl Governs {
    /// As the API server fills `policyTypes` in: Ingress always, and Egress if there are rules for
    /// it. Where it lists something, it is exactly that.
    fn read(spec: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> Self {
        const MAX_TYPES: usize = 2;
        let types = spec.list("policyTypes");
        if types.is_empty() {
            return Self {
                ingress: true,
                egress: !spec.list("egress").is_empty(),
            };
        }
        let path = format!("{}.policyTypes", spec.path);
        if types.len() > MAX_TYPES {
            let reason = format!("it has {} entries, and at most {MAX_TYPES} are allowed", types.len());
            report.error("too-many", &path, reason);
        }
        let mut governs = Self {
            ingress: false,
            egress: false,
        };
        for node in &types {
            match node.value.as_str() {
                Some("Ingress") => governs.ingress = true,
                Some("Egress") => governs.egress = true,
                Some(other) => {
                    let reason = format!("{} is not Ingress or Egress", quoted(other));
                    report.error("bad-value", &node.path, reason);
                }
                None => {}
            }
        }
        governs
    }
}

/// Says so at the place that closes ingress.
fn report_ingress(spec: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) {
    let place = ["ingress", "policyTypes"].iter().find_map(|field| spec.get(field));
    let path = place.map_or(spec.path.clone(), |node| node.path);
    report
        .unenforced(
            &path,
            "this policy governs ingress, which is not enforced yet; egress is not affected by that",
        )
        .suggest("write `policyTypes: [Egress]` if ingress is not meant");
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
