//! Whatever the API hands over is judged.

use super::*;

/// Any JSON that a reader of this kind may meet.
fn json() -> impl Strategy<Value = serde_json::Value> {
    crate::arbitrary_json::json(
        &[
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
        ],
        &[
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
        ],
    )
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
            prop_assert_eq!(matches!(&verdict, Validation::Refused(_)), refused);
        }
    }
}
