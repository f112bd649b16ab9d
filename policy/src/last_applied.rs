//! What `kubectl apply` remembers of an object as its author wrote it.
//!
//! Fields without a value are dropped by `kubectl apply` itself, and fields that a definition does
//! not know by the API server. Either can make a policy say more than was written, and nothing in
//! the object tells. The annotation that `kubectl apply` leaves still does.

use serde_json::Value;

use crate::policy_id::PolicyKind;
use crate::shape::FieldShape;
use crate::validate::shape_of;

/// The annotation; its value is the object as it was applied, as JSON.
pub const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Puts fields that were lost on the way back into a policy of `kind`, so that reading it finds
/// them. `applied` is the value of the [`ANNOTATION`].
///
/// Nothing is put back where the object was changed since by something that does not keep the
/// annotation: what it says is then not known to be what the author wants. Gives whether something
/// was put back.
pub fn restore(kind: PolicyKind, object: &mut Value, applied: &str) -> bool {
    // Most policies have lost nothing, and what is lost is seldom found in an annotation that is
    // not JSON.
    let Ok(applied) = serde_json::from_str::<Value>(applied) else {
        return false;
    };
    let mut lost = Vec::new();
    let is_current = ["spec", "specs"].iter().all(|field| {
        let shape = match shape_of(kind) {
            FieldShape::Object(known) => known.iter().find(|(name, _)| name == field).map(|(_, shape)| shape),
            _ => None,
        };
        match (applied.get(field), object.get(field), shape) {
            (None | Some(Value::Null), _, _) => true,
            (Some(applied), Some(stored), Some(shape)) => collect(applied, stored, shape, field, &mut lost),
            _ => false,
        }
    });
    if !is_current {
        return false;
    }
    for (pointer, name, value) in &lost {
        if let Some(Value::Object(fields)) = object.pointer_mut(pointer) {
            fields.insert((*name).clone(), (*value).clone());
        }
    }
    !lost.is_empty()
}

/// Where a field is missing (a JSON pointer), its name, and its value.
type LostFields<'a> = (String, &'a String, &'a Value);

/// Collects what `applied` has and `stored` lacks. `false` where they differ in something that does
/// not vanish by itself.
///
/// `stored` may have more: the API server fills defaults in.
fn collect<'a>(
    applied: &'a Value,
    stored: &Value,
    shape: &FieldShape,
    at: &str,
    lost: &mut Vec<LostFields<'a>>,
) -> bool {
    let pointer = if at.starts_with('/') {
        at.to_owned()
    } else {
        format!("/{at}")
    };
    match (applied, stored, shape) {
        (_, _, FieldShape::Inert(shape)) => collect(applied, stored, shape, at, lost),
        (Value::Object(applied), Value::Object(stored), _) => applied.iter().all(|(name, value)| {
            let below = match shape {
                FieldShape::Object(known) => known.iter().find(|(known, _)| known == name).map(|(_, shape)| shape),
                FieldShape::Map(values) => Some(*values),
                _ => Some(&FieldShape::Any),
            };
            match (stored.get(name), below) {
                (None, below) if value.is_null() || below.is_none() => {
                    lost.push((pointer.clone(), name, value));
                    true
                }
                (None, _) => false,
                (Some(stored), below) => {
                    let escaped = name.replace('~', "~0").replace('/', "~1");
                    let below = below.unwrap_or(&FieldShape::Any);
                    collect(value, stored, below, &format!("{pointer}/{escaped}"), lost)
                }
            }
        }),
        (Value::Array(applied), Value::Array(stored), _) => {
            let below = match shape {
                FieldShape::List(items) => items,
                _ => &FieldShape::Any,
            };
            let mut pairs = applied.iter().zip(stored).enumerate();
            applied.len() == stored.len()
                && pairs.all(|(index, (applied, stored))| {
                    collect(applied, stored, below, &format!("{pointer}/{index}"), lost)
                })
        }
        (applied, stored, _) => applied == stored,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(spec: &Value) -> Value {
        json!({"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": {"name": "p"}, "spec": spec})
    }

    fn restored(stored: &Value, applied: &Value) -> Option<Value> {
        let mut object = policy(stored);
        let is_restored = restore(
            PolicyKind::CiliumNetworkPolicy,
            &mut object,
            &policy(applied).to_string(),
        );
        assert!(is_restored || object == policy(stored));
        is_restored.then(|| object["spec"].take())
    }

    #[test]
    fn nulls_and_unknown_fields_come_back() {
        let ports = json!([{"ports": [{"port": "443"}]}]);
        for lost in [
            json!({"endpointSelector": {}, "egress": [{"toFQDNs": null, "toPorts": ports}]}),
            json!({"endpointSelector": {}, "egress": [{"toFQDN": [{"matchName": "a.example"}], "toPorts": ports}]}),
            json!({"endpointSelector": {"matchLabel": {"app": "web"}}, "egress": [{"toPorts": ports}]}),
            json!({"endpointSelector": {"matchLabels": {"a/b": null}}, "egress": [{"toPorts": ports}]}),
        ] {
            let mut stored = lost.clone();
            for (at, field) in [
                ("/egress/0", "toFQDNs"),
                ("/egress/0", "toFQDN"),
                ("/endpointSelector", "matchLabel"),
                ("/endpointSelector/matchLabels", "a/b"),
            ] {
                if let Some(Value::Object(fields)) = stored.pointer_mut(at) {
                    fields.remove(field);
                }
            }
            assert_eq!(restored(&stored, &lost), Some(lost));
        }
    }

    #[test]
    fn what_was_changed_since_is_not_put_back() {
        let applied = json!({"endpointSelector": {}, "egress": [{"toFQDNs": null, "toCIDR": ["192.0.2.1"]}, {}]});
        for stored in [
            json!({"endpointSelector": {}, "egress": [{"toCIDR": ["192.0.2.2"]}, {}]}),
            json!({"endpointSelector": {}, "egress": [{"toCIDR": ["192.0.2.1"]}]}),
            json!({"endpointSelector": {}, "egress": [{}, {}]}),
            json!({"egress": [{"toCIDR": ["192.0.2.1"]}, {}]}),
        ] {
            assert_eq!(restored(&stored, &applied), None, "{stored}");
        }
        // Nothing is lost, and what is filled in is no change.
        let whole = json!({"endpointSelector": {}, "egress": [{}]});
        assert_eq!(restored(&whole, &whole), None);
        let mut filled = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "egress": [{"ports": [{"port": 443, "protocol": "TCP"}]}]},
        });
        let applied = json!({"spec": {"podSelector": {}, "egress": [{"to": null, "ports": [{"port": 443}]}]}});
        assert!(restore(PolicyKind::NetworkPolicy, &mut filled, &applied.to_string()));
        assert_eq!(filled["spec"]["egress"][0]["to"], Value::Null);
        assert!(filled["spec"]["egress"][0].get("to").is_some());
        assert!(!restore(
            PolicyKind::CiliumNetworkPolicy,
            &mut policy(&whole),
            "no JSON"
        ));
    }
}
