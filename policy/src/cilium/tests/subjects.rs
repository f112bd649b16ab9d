//! Whom a policy selects, and when it closes egress.

use crate::endpoint::keys;

use super::*;

#[test]
fn a_namespaced_policy_selects_in_its_own_namespace_only() {
    let labels = |namespace: &str| crate::labels::Labels::from([(keys::NAMESPACE.to_owned(), namespace.to_owned())]);
    let own = spec("").subject;
    assert!(own.matches(&labels("n")) && !own.matches(&labels("other")));

    let foreign =
        format!("{HEAD}  endpointSelector:\n    matchLabels:\n      k8s:io.kubernetes.pod.namespace: other\n");
    assert_eq!(findings(&foreign), ["foreign-namespace spec.endpointSelector 7"]);
    assert_eq!(read(&foreign).0.unwrap().specs[0].subject, own);

    let nameless =
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p}\nspec: {endpointSelector: {}}\n";
    assert_eq!(read(nameless).0.unwrap().id.namespace, "default");

    let clusterwide = "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: p, namespace: x}\nspec: {endpointSelector: {}}\n";
    let policy = read(clusterwide).0.unwrap();
    assert_eq!(policy.id.namespace, "");
    assert!(policy.specs[0].subject.matches(&labels("any")));
}

#[test]
fn egress_is_closed_by_rules_and_by_nothing_else() {
    for (fields, closes) in [
        ("", false),
        ("  ingress: [{}]\n", false),
        ("  egress: []\n", false),
        ("  egress: [{}]\n", true),
        ("  egressDeny: [{}]\n", true),
        ("  egress: [{}]\n  enableDefaultDeny: {egress: false}\n", false),
        ("  egress: [{}]\n  enableDefaultDeny: {ingress: false}\n", true),
        ("  enableDefaultDeny: {egress: true}\n", true),
    ] {
        let spec = spec(fields);
        assert_eq!(spec.closes_egress, closes, "{fields}");
        assert!(spec.rules.is_empty(), "{fields}");
    }
}

#[test]
fn spec_and_specs_add_up_and_one_must_stand() {
    let text = format!(
        "{HEAD}  endpointSelector: {{}}\nspecs:\n- endpointSelector: {{}}\n  egress:\n  - toCIDR: [192.0.2.1]\n"
    );
    let policy = read(&text).0.unwrap();
    assert_eq!(policy.specs.len(), 2);
    assert_eq!(policy.specs[1].rules[0].origin, "specs[0].egress[0]");
    let neither = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p}\n";
    assert_eq!(findings(neither), ["missing-field  1"]);
}

#[test]
fn subjects_that_cannot_be_told_are_refused() {
    assert_eq!(findings(&format!("{HEAD}  egress: [{{}}]\n")), ["missing-field spec 6"]);
    assert_eq!(
        findings(&format!("{HEAD}  nodeSelector: {{}}\n")),
        ["node-selector spec.nodeSelector 7"]
    );
    assert_eq!(
        findings(&format!(
            "{HEAD}  endpointSelector:\n    matchLabels:\n      container:a: b\n    matchExpressions:\n    - key: a\n      operator: Is\n    - key: b\n      operator: In\n"
        )),
        [
            "bad-selector spec.endpointSelector.matchLabels.container:a 9",
            "bad-selector spec.endpointSelector.matchExpressions[0] 11",
            "bad-selector spec.endpointSelector.matchExpressions[1] 13",
        ]
    );
    assert_eq!(
        findings(&format!(
            "{HEAD}  endpointSelector:\n    matchExpressions:\n    - key: a\n"
        )),
        ["missing-field spec.endpointSelector.matchExpressions[0] 9"]
    );
}
