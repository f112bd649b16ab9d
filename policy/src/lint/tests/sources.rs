//! What is said of rules of ingress, and of both directions together.

use super::*;
use crate::ports::Protocol;

#[test]
fn rules_of_ingress_are_compared_with_each_other_and_never_with_those_of_egress() {
    let ingress = "  ingress:\n  - fromEndpoints: [{matchLabels: {app: a}}]\n    toPorts: [{ports: [{port: '443', protocol: TCP}]}]\n  - fromEndpoints: [{matchLabels: {app: a}}]\n";
    assert_eq!(in_spec(ingress), ["shadowed-rule spec.ingress[0]"]);
    let denied = "  ingress:\n  - fromEndpoints: [{matchLabels: {app: a}}]\n  ingressDeny:\n  - fromEndpoints: [{matchExpressions: [{key: app, operator: Exists}]}]\n";
    assert_eq!(in_spec(denied), ["denied-rule spec.ingress[0]"]);
    let both = "  ingress:\n  - fromEndpoints: [{matchLabels: {app: a}}]\n  egress:\n  - toEndpoints: [{matchLabels: {app: a}}]\n  egressDeny:\n  - toEndpoints: [{matchLabels: {app: b}}]\n";
    assert_eq!(in_spec(both), NO_FINDINGS);
    let ordered = "  ingress:\n  - {action: Deny, from: [{namespaces: {}}]}\n  - {action: Accept, from: [{pods: {podSelector: {matchLabels: {app: a}}}}]}\n  egress:\n  - {action: Accept, to: [{pods: {podSelector: {matchLabels: {app: a}}}}]}\n";
    let found = findings(&admin("p", 1, "{namespaces: {matchLabels: {a: b}}}", ordered));
    assert_eq!(found, ["shadowed-rule spec.ingress[1]"]);
    let deny = admin(
        "deny",
        1,
        "{namespaces: {}}",
        "  ingress: [{action: Deny, from: [{namespaces: {}}]}]\n",
    );
    let accept = |rules: &str| admin("accept", 2, "{namespaces: {matchLabels: {a: b}}}", rules);
    let none = ClusterContext::default();
    let ingress = accept("  ingress: [{action: Accept, from: [{namespaces: {matchLabels: {c: d}}}]}]\n");
    assert_eq!(
        findings_across(&[&deny, &ingress], &none),
        ["accept: shadowed-rule spec.ingress[0]"]
    );
    let egress = accept("  egress: [{action: Accept, to: [{namespaces: {matchLabels: {c: d}}}]}]\n");
    assert_eq!(findings_across(&[&deny, &egress], &none), NO_FINDINGS);
}

#[test]
fn sources_that_are_everybody_or_nobody_are_found() {
    assert_eq!(
        in_spec("  ingress:\n  - fromEndpoints: [{}]\n  - fromNodes: [{}]\n"),
        [
            "empty-peer-selector spec.ingress[0].fromEndpoints[0]",
            "empty-peer-selector spec.ingress[1].fromNodes[0]"
        ]
    );
    assert_eq!(
        in_spec("  ingress:\n  - fromCIDR: []\n"),
        ["empty-peer-list spec.ingress[0].fromCIDR"]
    );
    let network_policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: n}\nspec:\n  podSelector: {}\n  ingress:\n  - from: []\n    ports: [{port: 80}]\n  - from: [{podSelector: {}}]\n";
    assert_eq!(
        findings(network_policy),
        [
            "empty-peer-list spec.ingress[0].from",
            "empty-peer-selector spec.ingress[1].from[0].podSelector"
        ]
    );
    let policy = cilium(
        "p",
        "web",
        "  ingress: [{fromEndpoints: [{matchLabels: {app: api}}, {matchLabels: {app: wbe}}]}]\n",
    );
    assert_eq!(
        findings_across(&[&policy], &cluster(pods(&["web", "api"]))),
        ["p: selector-matches-nothing spec.ingress[0].fromEndpoints[1]"]
    );
}

#[test]
fn names_of_ports_are_looked_up_at_the_pods_that_the_policy_selects() {
    let policy = |name: &str| {
        cilium(
            "p",
            "web",
            &format!(
                "  ingress: [{{fromEndpoints: [{{matchLabels: {{app: api}}}}], toPorts: [{{ports: [{{port: {name}, protocol: TCP}}]}}]}}]\n"
            ),
        )
    };
    let mut inventory = pods(&["web", "api"]);
    let mut named = |app: &str, port: &str| {
        let pod = inventory
            .pods
            .iter()
            .find(|pod| pod.labels().get("app").is_some_and(|it| it == app))
            .unwrap();
        let port = ContainerPort {
            name: port.into(),
            protocol: Protocol::Tcp,
            port: 8080,
        };
        let pod = InventoryPod::new(pod.labels().clone(), pod.addresses().to_vec(), vec![port]);
        inventory.pods.insert(pod);
    };
    named("web", "http");
    named("api", "grpc");
    let cluster = cluster(inventory);
    assert_eq!(findings_across(&[&policy("http")], &cluster), NO_FINDINGS);
    assert_eq!(
        findings_across(&[&policy("grpc")], &cluster),
        ["p: named-port-unknown spec.ingress[0].toPorts[0].ports[0].port"]
    );
}

#[test]
fn a_denial_of_the_own_node_has_no_effect() {
    let found = ["own-node-passes spec.ingressDeny[0]"];
    assert_eq!(in_spec("  ingressDeny: [{fromEntities: [host]}]\n"), found);
    assert_eq!(in_spec("  ingressDeny: [{fromEntities: [remote-node, host]}]\n"), found);
    assert_eq!(
        in_spec("  ingressDeny: [{fromEntities: [all]}]\n"),
        NO_FINDINGS,
        "others are meant too"
    );
    assert_eq!(in_spec("  egressDeny: [{toEntities: [host]}]\n"), NO_FINDINGS);
}

#[test]
fn prefixes_of_sources_behind_services_that_other_nodes_forward_to_are_found() {
    let policy = cilium(
        "p",
        "web",
        "  ingress: [{fromCIDR: [203.0.113.0/24]}, {fromEntities: [world]}]\n",
    );
    let mut inventory = pods(&["web", "api"]);
    inventory.services.insert(surroundings::service("web", "n"));
    let mut context = cluster(inventory);
    assert_eq!(findings_across(&[&policy], &context), NO_FINDINGS);
    context.masquerading.insert(("n".into(), "web".into()));
    assert_eq!(
        findings_across(&[&policy], &context),
        ["p: source-may-be-node spec.ingress[0].fromCIDR[0]"]
    );
    let other = cilium("p", "api", "  ingress: [{fromCIDR: [203.0.113.0/24]}]\n");
    assert_eq!(findings_across(&[&other], &context), NO_FINDINGS);
}
