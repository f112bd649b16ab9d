//! Whatever the API hands over is judged.

use super::*;

/// Any JSON under field names that mean something here, so that every reader meets every type.
fn json() -> impl Strategy<Value = serde_json::Value> {
    let names = [
        "tier",
        "priority",
        "subject",
        "namespaces",
        "pods",
        "namespaceSelector",
        "podSelector",
        "matchLabels",
        "matchExpressions",
        "key",
        "operator",
        "values",
        "egress",
        "ingress",
        "to",
        "from",
        "action",
        "name",
        "nodes",
        "networks",
        "domainNames",
        "protocols",
        "tcp",
        "udp",
        "destinationPort",
        "number",
        "range",
        "start",
        "end",
        "destinationNamedPort",
        "x",
    ];
    let texts = [
        "",
        "*",
        "*.a.example",
        "10.0.0.0/8",
        "web",
        "Accept",
        "Deny",
        "Admin",
        "In",
        "\u{0}",
        "ä",
    ];
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        prop::sample::select(texts.to_vec()).prop_map(Into::into),
    ];
    leaf.prop_recursive(8, 64, 4, move |inner| {
        let fields = prop::collection::btree_map(prop::sample::select(names.to_vec()), inner.clone(), 0..5);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Into::into),
            fields.prop_map(|fields| serde_json::to_value(fields).unwrap()),
        ]
    })
}

proptest! {
    #[test]
    fn validation_never_panics_and_refuses_exactly_by_errors(spec in json(), peers in json(), protocols in json()) {
        let rule = serde_json::json!({"action": "Deny", "to": [peers.clone()], "protocols": [protocols.clone()]});
        let whole = serde_json::json!({"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "egress": [rule]});
        for spec in [spec, whole] {
            let document = Document::from_value(serde_json::json!({
                "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": {"name": "p"}, "spec": spec,
            })).unwrap();
            let (verdict, diagnostics) = validate(&document);
            let refused = diagnostics.iter().any(|d| d.severity == Severity::Error);
            prop_assert_eq!(matches!(&verdict, Verdict::Refused(_)), refused);
        }
    }
}
