//! Policies that are refused, and what stands in for them (docs/policies.md, "When a policy is
//! refused"): nothing is known of an earlier version.

use serde_json::Value;

use crate::json::{list, text};

/// Whether a policy is refused: something in it is written, and nothing stands behind it; or a spec
/// of one of Cilium's kinds has no rule in any direction and does not say that it closes one.
pub fn is_refused(policy: &Value) -> bool {
    let is_cilium = text(policy, "kind").is_some_and(|kind| kind.starts_with("Cilium"));
    let one = Some(&policy["spec"]).filter(|spec| !spec.is_null());
    one.into_iter()
        .chain(list(policy, "specs"))
        .any(|spec| has_null(spec) || is_cilium && has_no_rule(spec))
}

fn has_no_rule(spec: &Value) -> bool {
    let lists = ["egress", "egressDeny", "ingress", "ingressDeny"];
    let closes = |direction: &&str| spec["enableDefaultDeny"][*direction] == true;
    lists.iter().all(|field| list(spec, field).is_empty()) && !["egress", "ingress"].iter().any(closes)
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.values().any(|field| field.is_null() || has_null(field)),
        Value::Array(items) => items.iter().any(has_null),
        _ => false,
    }
}

/// Whether a field is written, with something behind it or nothing; an empty list says nothing.
pub(crate) fn is_meant(spec: &Value, field: &str) -> bool {
    spec.get(field)
        .is_some_and(|rules| rules.is_null() || !list(spec, field).is_empty())
}
