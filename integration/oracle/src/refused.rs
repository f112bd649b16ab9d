//! Policies that are refused, and what stands in for them (docs/policies.md, "When a policy is refused"): nothing is known of an
//! earlier version.

use serde_json::Value;

use crate::json::list;

/// Whether a policy is refused: something in it is written, and nothing stands behind it.
pub fn is_refused(policy: &Value) -> bool {
    has_null(&policy["spec"]) || list(policy, "specs").iter().any(has_null)
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
    spec.get(field).is_some_and(|rules| rules.is_null() || !list(spec, field).is_empty())
}
