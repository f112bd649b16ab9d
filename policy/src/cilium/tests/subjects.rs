//! Whom a policy selects, and which directions it closes.

use crate::endpoint::keys;

use super::*;

#[test]
fn a_namespaced_policy_selects_in_its_own_namespace_only() {
    let labels = |namespace: &str| crate::labels::Labels::from([(keys::NAMESPACE.to_owned(), namespace.to_owned())]);
    let own = spec("  egress: [{}]\n").subject;
    assert!(own.matches(&labels("n")) && !own.matches(&labels("other")));

    let foreign = format!(
        "{HEAD}  endpointSelector:\n    matchLabels:\n      k8s:io.kubernetes.pod.namespace: other\n  egress: [{{}}]\n"
    );
    assert_eq!(findings(&foreign), ["foreign-namespace spec.endpointSelector 7"]);
    assert_eq!(read(&foreign).0.unwrap().specs[0].subject, own);

    let nameless = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p}\nspec: {endpointSelector: {}, egress: [{}]}\n";
    assert_eq!(read(nameless).0.unwrap().id.namespace, "default");

    let clusterwide = "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: p, namespace: x}\nspec: {endpointSelector: {}, egress: [{}]}\n";
    let policy = read(clusterwide).0.unwrap();
    assert_eq!(policy.id.namespace, "");
    assert!(policy.specs[0].subject.matches(&labels("any")));
}

#[test]
fn a_direction_is_closed_by_its_rules_and_by_nothing_else() {
    for (fields, closes) in [
        ("  ingress: [{}]\n", false),
        ("  ingress: [{}]\n  egress: []\n", false),
        ("  egress: [{}]\n", true),
        ("  egressDeny: [{}]\n", true),
        ("  egress: [{}]\n  enableDefaultDeny: {egress: false}\n", false),
        ("  egress: [{}]\n  enableDefaultDeny: {ingress: false}\n", true),
        ("  enableDefaultDeny: {egress: true}\n", true),
    ] {
        let egress = spec(fields).directions.egress;
        assert_eq!(egress.closes, closes, "{fields}");
        assert!(egress.rules.is_empty(), "{fields}");
        // The other way round.
        let swapped = fields
            .replace("egress", "-")
            .replace("ingress", "egress")
            .replace('-', "ingress");
        let ingress = spec(&swapped).directions.ingress;
        assert_eq!(ingress.closes, closes, "{swapped}");
        assert!(ingress.rules.is_empty(), "{swapped}");
    }
}

#[test]
fn a_spec_without_any_rule_is_refused_and_closes_whom_it_may_have_been_meant_to_close() {
    for (fields, closes) in [
        ("", true),
        ("  egress: []\n", true),
        ("  egress: []\n  egressDeny: []\n  ingress: []\n", true),
        ("  description: nothing but words\n", true),
        ("  ingress: []\n", true),
        ("  enableDefaultDeny: {egress: false}\n", false),
        ("  enableDefaultDeny: {ingress: false}\n", false),
    ] {
        let text = format!("{HEAD}{SELECTOR}{fields}");
        assert_eq!(findings(&text), ["no-rules spec 6"], "{fields}");
        let (documents, _) = parse(&text);
        let Validation::Refused(stand_in) = validate(&documents[0]).0 else {
            panic!("{fields}")
        };
        assert_eq!(stand_in.policy.is_some(), closes, "{fields}");
    }
    let specs = format!("{HEAD}{SELECTOR}  egress: [{{}}]\nspecs:\n- endpointSelector: {{}}\n");
    assert_eq!(findings(&specs), ["no-rules specs[0] 10"]);
    // It closes, also without rules.
    assert_eq!(
        findings(&format!("{HEAD}{SELECTOR}  enableDefaultDeny: {{egress: true}}\n")),
        none()
    );
}

#[test]
fn labels_that_cannot_exist_are_refused() {
    let selecting = |labels: &str| format!("{HEAD}  endpointSelector: {{{labels}}}\n  egress: [{{}}]\n");
    for (labels, path) in [
        ("matchLabels: {app: 'web '}", "matchLabels.app"),
        ("matchLabels: {app: 'a b'}", "matchLabels.app"),
        ("matchLabels: {'ap p': web}", "matchLabels.ap p"),
        ("matchLabels: {'k8s:/app': web}", "matchLabels.k8s:/app"),
        (
            "matchExpressions: [{key: app, operator: NotIn, values: [a, '-b']}]",
            "matchExpressions[0]",
        ),
        (
            "matchLabels: {io.kubernetes.pod.namespace: 'shop,pay'}",
            "matchLabels.io.kubernetes.pod.namespace",
        ),
    ] {
        assert_eq!(
            findings(&selecting(labels)),
            [format!("bad-selector spec.endpointSelector.{path} 7")],
            "{labels}"
        );
    }
    let suggestion = read(&selecting("matchLabels: {app: 'web '}")).1.remove(0).suggestion;
    assert_eq!(suggestion.unwrap(), "did you mean \"web\"?");
    assert_eq!(
        findings_in_egress("  - toEndpoints: [{matchLabels: {app: 'web '}}]\n"),
        ["bad-selector spec.egress[0].toEndpoints[0].matchLabels.app 9"]
    );
    for labels in [
        "matchLabels: {app: ''}",
        "matchLabels: {'io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name': shop}",
        "matchLabels: {'k8s:io.cilium.k8s.namespace.labels.team': a}",
    ] {
        assert_eq!(findings(&selecting(labels)), none(), "{labels}");
    }
}

#[test]
fn endpoints_of_ciliums_own_are_no_pods() {
    let selecting = |labels: &str| format!("{HEAD}  endpointSelector: {{{labels}}}\n  egress: [{{}}]\n");
    let none_at_all = crate::labels::Labels::new();
    let pod = crate::endpoint::labels(&none_at_all, "n", &none_at_all, "default", "default");
    for source in ["health", "init", "ingress"] {
        let text = selecting(&format!("matchLabels: {{'reserved:{source}': ''}}"));
        assert_eq!(findings(&text), ["not-enforced spec.endpointSelector 7"]);
        let spec = read(&text).0.unwrap().specs.remove(0);
        assert!(!spec.subject.matches(&pod));
    }
    let others = selecting("matchExpressions: [{key: 'reserved:init', operator: DoesNotExist}]");
    assert_eq!(findings(&others), none());
    assert!(read(&others).0.unwrap().specs[0].subject.matches(&pod));
}

/// A clusterwide policy of nodes.
fn of_nodes(spec: &str) -> String {
    format!("apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {{name: p}}\nspec:\n{spec}")
}

#[test]
fn a_node_selector_selects_nodes_and_no_pods() {
    let none_at_all = crate::labels::Labels::new();
    let workers = of_nodes("  nodeSelector: {matchLabels: {role: worker}}\n  ingress: [{fromEntities: [cluster]}]\n");
    assert_eq!(
        findings(&workers),
        ["host-policy spec.nodeSelector 5"],
        "agents may be told not to"
    );
    let endpoint = |id, labels| crate::Endpoint {
        id,
        labels,
        addresses: Default::default(),
        ports: Vec::new(),
    };
    let own = crate::labels::Labels::from([("role".to_owned(), "worker".to_owned())]);
    let pod = crate::EndpointId {
        namespace: "n".into(),
        name: "p".into(),
    };
    let labels = crate::endpoint::labels(&own, "n", &none_at_all, "default", "default");
    let pod = endpoint(pod, labels);
    let worker = endpoint(
        crate::EndpointId::of_node("a"),
        crate::endpoint::node_labels(&own, "default"),
    );
    let other = endpoint(crate::EndpointId::of_node("b"), none_at_all);
    let spec = read(&workers).0.unwrap().specs.remove(0);
    assert_eq!([&worker, &other, &pod].map(|it| spec.selects(it)), [true, false, false]);

    let of_pods = of_nodes("  endpointSelector: {}\n  ingress: [{}]\n");
    let spec = read(&of_pods).0.unwrap().specs.remove(0);
    assert_eq!([&worker, &other, &pod].map(|it| spec.selects(it)), [false, false, true]);
}

#[test]
fn a_spec_selects_nodes_or_pods_and_never_both() {
    assert_eq!(
        findings(&of_nodes(
            "  nodeSelector: {}\n  endpointSelector: {}\n  egress: [{}]\n"
        )),
        ["node-selector spec.nodeSelector 5"]
    );
    assert_eq!(
        findings(&of_nodes(
            "  nodeSelector: {matchLabels: {'reserved:host': ''}}\n  egress: [{}]\n"
        )),
        ["bad-selector spec.nodeSelector 5"]
    );
}

#[test]
fn spec_and_specs_add_up_and_one_must_stand() {
    let text = format!(
        "{HEAD}  endpointSelector: {{}}\n  egress: [{{}}]\nspecs:\n- endpointSelector: {{}}\n  egress:\n  - toCIDR: [192.0.2.1]\n"
    );
    let policy = read(&text).0.unwrap();
    assert_eq!(policy.specs.len(), 2);
    assert_eq!(policy.specs[1].directions.egress.rules[0].origin, "specs[0].egress[0]");
    let neither = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p}\n";
    assert_eq!(findings(neither), ["missing-field  1"]);
}

#[test]
fn subjects_that_cannot_be_told_are_refused() {
    assert_eq!(findings(&format!("{HEAD}  egress: [{{}}]\n")), ["missing-field spec 6"]);
    assert_eq!(
        findings(&format!("{HEAD}  nodeSelector: {{}}\n  egress: [{{}}]\n")),
        ["node-selector spec.nodeSelector 7"],
        "nodes are in no namespace"
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
