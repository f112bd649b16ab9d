//! Rules that others make useless.

use super::*;

#[test]
fn a_rule_that_another_allows_wholly_is_found_once() {
    let found = in_spec(
        "  egress:\n  - toCIDR: [192.0.2.0/24]\n    toPorts: [{ports: [{port: '443', protocol: TCP}]}]\n  - toCIDR: [192.0.0.0/16]\n  - toCIDR: [192.0.0.0/16]\n  - toFQDNs: [{matchName: a.example.com}, {matchPattern: 'b-*.example.com'}]\n  - toFQDNs: [{matchPattern: '**.example.com'}, {matchName: example.com}]\n",
    );
    assert_eq!(
        found,
        [
            "shadowed-rule spec.egress[0]",
            "shadowed-rule spec.egress[2]",
            "shadowed-rule spec.egress[3]"
        ]
    );
}

#[test]
fn a_rule_that_adds_something_is_not_found() {
    for rules in [
        // Another port, another zone, another namespace, a name beside.
        "  egress:\n  - toCIDR: [192.0.2.0/24]\n    toPorts: [{ports: [{port: '443', protocol: TCP}]}]\n  - toCIDR: [192.0.0.0/16]\n    toPorts: [{ports: [{port: '80', protocol: TCP}]}]\n",
        "  egress:\n  - toEntities: [cluster]\n  - toEntities: [world]\n",
        "  egress:\n  - toEndpoints: [{matchLabels: {app: a}}]\n  - toEndpoints: [{matchLabels: {app: a, 'k8s:io.kubernetes.pod.namespace': other}}]\n",
        "  egress:\n  - toFQDNs: [{matchName: a.example.com}]\n  - toFQDNs: [{matchName: b.example.com}]\n",
        // What may be asked.
        "  egress:\n  - toCIDR: [192.0.2.53/32]\n    toPorts: [{ports: [{port: '53', protocol: ANY}], rules: {dns: [{matchPattern: '*'}]}}]\n  - toCIDR: [192.0.2.0/24]\n",
    ] {
        assert_eq!(in_spec(rules), NO_FINDINGS, "{rules}");
    }
}

#[test]
fn a_rule_that_a_denial_takes_back_wholly_is_found() {
    let found = in_spec(
        "  egress:\n  - toCIDR: [192.0.2.0/24]\n  - toCIDR: [198.51.100.0/24]\n  egressDeny:\n  - toCIDR: [192.0.0.0/16]\n",
    );
    assert_eq!(found, ["denied-rule spec.egress[0]"]);
}

#[test]
fn a_rule_after_one_that_decides_is_never_reached() {
    let rules = "  egress:\n  - {action: Deny, to: [{networks: [192.0.2.0/24]}]}\n  - {action: Accept, to: [{networks: [192.0.2.1/32]}]}\n  - {action: Accept, to: [{networks: [192.0.0.0/16]}]}\n";
    let found = findings(&admin("p", 1, "{namespaces: {matchLabels: {a: b}}}", rules));
    assert_eq!(found, ["shadowed-rule spec.egress[1]"]);
    let everything = "  egress:\n  - {action: Deny, to: [{networks: [0.0.0.0/0, '::/0']}]}\n  - {action: Accept, to: [{networks: [192.0.2.1/32]}, {domainNames: [a.example.com]}]}\n";
    let found = findings(&admin("p", 1, "{namespaces: {matchLabels: {a: b}}}", everything));
    assert_eq!(found, ["shadowed-rule spec.egress[1]"]);
}

#[test]
fn a_policy_before_another_may_decide_its_rules() {
    let deny = "  egress:\n  - {action: Deny, to: [{networks: [192.0.0.0/16]}]}\n";
    let accept = "  egress:\n  - {action: Accept, to: [{networks: [192.0.2.1/32]}]}\n";
    let all = admin("deny", 1, "{namespaces: {}}", deny);
    let some = admin("accept", 2, "{namespaces: {matchLabels: {a: b}}}", accept);
    let none = ClusterContext::default();
    assert_eq!(
        findings_across(&[&some, &all], &none),
        ["accept: shadowed-rule spec.egress[0]"]
    );
    let first = admin("accept", 0, "{namespaces: {matchLabels: {a: b}}}", accept);
    assert_eq!(findings_across(&[&first, &all], &none), NO_FINDINGS);
    let for_others = admin("deny", 1, "{namespaces: {matchLabels: {c: d}}}", deny);
    assert_eq!(findings_across(&[&some, &for_others], &none), NO_FINDINGS);
}

#[test]
fn equal_priorities_are_found_where_the_policies_meet() {
    let rules = "  egress: [{action: Pass, to: [{networks: [192.0.2.1/32]}]}]\n";
    let of = |name, priority, app| {
        let subject = format!("{{pods: {{podSelector: {{matchLabels: {{app: {app}}}}}}}}}");
        admin(name, priority, &subject, rules)
    };
    let (a, b) = (of("a", 5, "a"), of("b", 5, "b"));
    assert_eq!(
        findings_across(&[&a, &b], &ClusterContext::default()),
        ["b: equal-priority spec.priority"]
    );
    assert_eq!(findings_across(&[&a, &b], &cluster(pods(&["a", "b"]))), NO_FINDINGS);
    assert_eq!(
        findings_across(&[&a, &of("b", 6, "b")], &ClusterContext::default()),
        NO_FINDINGS
    );
}
