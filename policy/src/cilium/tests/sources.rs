//! Rules of ingress: what differs from those of egress, and what must not.

use super::*;
use crate::peer_selector::{CidrGroupSelector, NamedPort, ObjectSelector};

fn allowing(rule: &str) -> PolicyRule {
    let mut rules = spec(&format!("  ingress:\n{rule}")).directions.ingress.rules;
    assert_eq!(rules.len(), 1, "{rules:?}");
    rules.remove(0)
}

fn denying(rule: &str) -> PolicyRule {
    let mut rules = spec(&format!("  ingressDeny:\n{rule}")).directions.ingress.rules;
    assert_eq!(rules.len(), 1, "{rules:?}");
    rules.remove(0)
}

fn findings_in_ingress(rules: &str) -> Vec<String> {
    findings(&format!("{HEAD}{SELECTOR}  ingress:\n{rules}"))
}

#[test]
fn each_selector_of_sources_means_what_its_counterpart_means_of_destinations() {
    for (kind, entries) in [
        ("CIDR", "[192.0.2.1, 10.0.0.0/8]"),
        ("CIDRSet", "[{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}]"),
        ("CIDRSet", "[{cidrGroupRef: partners, except: [10.1.0.0/16]}]"),
        ("CIDRSet", "[{cidrGroupSelector: {matchLabels: {a: b}}}]"),
        ("Entities", "[world, cluster, host, remote-node, kube-apiserver]"),
        ("Entities", "[all]"),
        ("Entities", "[none, health, init, ingress, unmanaged]"),
        ("Endpoints", "[{}]"),
        (
            "Endpoints",
            "[{matchLabels: {app: a}}, {matchLabels: {'k8s:io.kubernetes.pod.namespace': other}}]",
        ),
        ("Nodes", "[{matchLabels: {role: worker}}]"),
        ("CIDR", "[]"),
    ] {
        let ports = "toPorts: [{ports: [{port: '443', protocol: TCP}]}]";
        let to = rule(&format!("  - to{kind}: {entries}\n    {ports}\n"));
        let from = allowing(&format!("  - from{kind}: {entries}\n    {ports}\n"));
        let denied = denying(&format!("  - from{kind}: {entries}\n    {ports}\n"));
        assert_eq!((&from.peers, &from.ports), (&to.peers, &to.ports), "{kind} {entries}");
        assert_eq!(
            (denied.action, &denied.peers, &denied.ports),
            (Action::Deny, &to.peers, &to.ports),
            "{kind} {entries}"
        );
        assert_eq!(from.origin, "spec.ingress[0]");
        assert_eq!(denied.origin, "spec.ingressDeny[0]");
    }
    let group = CidrGroupSelector {
        name: Some("partners".into()),
        labels: Default::default(),
        except: Vec::new(),
    };
    assert_eq!(
        allowing("  - fromCIDRSet: [{cidrGroupRef: partners}]\n").peers,
        PeerSelector::Objects(vec![ObjectSelector::CidrGroups(group)])
    );
}

#[test]
fn rules_of_one_direction_leave_the_other_alone() {
    let ingress = spec("  ingress: [{fromEndpoints: [{}]}]\n");
    assert!(!ingress.directions.egress.says_anything());
    assert!(ingress.directions.ingress.closes);
    let both = spec("  ingress: [{fromEndpoints: [{}]}]\n  egressDeny: [{toCIDR: [192.0.2.1]}]\n");
    assert!(both.directions.egress.closes && both.directions.ingress.closes);
    let actions = |rules: &[PolicyRule]| -> Vec<Action> { rules.iter().map(|rule| rule.action).collect() };
    assert_eq!(actions(&both.directions.egress.rules), [Action::Deny]);
    assert_eq!(actions(&both.directions.ingress.rules), [Action::Allow]);
}

#[test]
fn a_rule_without_sources_speaks_of_all_and_one_without_anything_of_none() {
    assert_eq!(
        allowing("  - toPorts: [{ports: [{port: '443'}]}]\n").peers,
        everything(Zone::Anywhere)
    );
    assert!(spec("  ingress: [{}]\n").directions.ingress.rules.is_empty());
}

#[test]
fn a_ports_name_is_the_selected_pods_own_also_for_sources_outside() {
    for sources in ["fromCIDR: [192.0.2.1]", "fromEntities: [world]", "fromEndpoints: [{}]"] {
        let rule = allowing(&format!(
            "  - {sources}\n    toPorts: [{{ports: [{{port: http, protocol: TCP}}]}}]\n"
        ));
        assert!(rule.ports.is_empty(), "{sources}");
        let named = NamedPort {
            name: "http".into(),
            protocols: vec![Protocol::Tcp],
        };
        assert_eq!(rule.named, [named], "{sources}");
    }
}

#[test]
fn what_cannot_be_enforced_opens_nothing_and_denies_more() {
    let http = "  - fromEndpoints: [{}]\n    toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{}]}}]\n";
    assert_eq!(
        findings_in_ingress(http),
        ["not-enforced spec.ingress[0].toPorts[0].rules.http 10"]
    );
    assert!(allowing(http).ports.is_empty());
    for condition in [
        "fromRequires: [{matchLabels: {a: b}}]",
        "authentication: {mode: required}",
    ] {
        let rule = format!("  - fromEndpoints: [{{}}]\n    {condition}\n");
        let field = condition.split(':').next().unwrap();
        assert_eq!(
            findings_in_ingress(&rule),
            [format!("not-enforced spec.ingress[0].{field} 10")]
        );
        assert_eq!(allowing(&rule).peers, PeerSelector::Unresolved);
    }
    let alone = findings_in_ingress("  - fromRequires: [{matchLabels: {a: b}}]\n");
    assert_eq!(alone, ["not-enforced spec.ingress[0].fromRequires 9"]);
    assert_eq!(findings_in_ingress("  - fromRequires: []\n"), none());
    let reserved = "  - fromEndpoints: [{matchLabels: {'reserved:host': ''}}]\n";
    assert_eq!(allowing(reserved).peers, PeerSelector::Objects(vec![]));
    assert_eq!(
        denying(reserved).peers,
        PeerSelector::Objects(vec![
            ObjectSelector::Prefix(Zone::Anywhere, "0.0.0.0/0".parse().unwrap()),
            ObjectSelector::Prefix(Zone::Anywhere, "::/0".parse().unwrap()),
        ])
    );
}

#[test]
fn what_ingress_does_not_have_is_refused() {
    for (rule, finding) in [
        (
            "fromGroups: [{aws: {region: x}}]",
            "to-groups spec.ingress[0].fromGroups 9",
        ),
        (
            "toPorts: [{ports: [{port: '53'}], rules: {dns: [{matchName: a.example}]}}]",
            "dns-at-ingress spec.ingress[0].toPorts[0].rules.dns 9",
        ),
        (
            "toFQDNs: [{matchName: a.example}]",
            "unknown-field spec.ingress[0].toFQDNs 9",
        ),
        (
            "fromFQDNs: [{matchName: a.example}]",
            "unknown-field spec.ingress[0].fromFQDNs 9",
        ),
        ("toEndpoints: [{}]", "unknown-field spec.ingress[0].toEndpoints 9"),
        (
            "fromEntities: [everybody]",
            "unknown-entity spec.ingress[0].fromEntities[0] 9",
        ),
        (
            "{fromCIDR: [192.0.2.1], fromEndpoints: [{}]}",
            "two-selectors spec.ingress[0] 9",
        ),
    ] {
        assert_eq!(findings_in_ingress(&format!("  - {rule}\n")), [finding], "{rule}");
    }
}
