//! Fields that stand without a value, as where every entry of a list is commented out.

use super::stand_in::said;
use super::*;

/// Each with its path below `spec`.
const RULES: [(&str, &str); 24] = [
    (
        "egress: [{toFQDNs: , toPorts: [{ports: [{port: '443'}]}]}]",
        "egress[0].toFQDNs",
    ),
    ("egress: [{toFQDNs: }]", "egress[0].toFQDNs"),
    (
        "egress: [{toCIDR: , toPorts: [{ports: [{port: '443'}]}]}]",
        "egress[0].toCIDR",
    ),
    (
        "egress: [{toCIDRSet: , icmps: [{fields: [{type: 8}]}]}]",
        "egress[0].toCIDRSet",
    ),
    (
        "egress: [{toEndpoints: , toPorts: [{ports: [{port: '443'}]}]}]",
        "egress[0].toEndpoints",
    ),
    (
        "egress: [{toEntities: , toPorts: [{ports: [{port: '443'}]}]}]",
        "egress[0].toEntities",
    ),
    (
        "egress: [{toServices: , toPorts: [{ports: [{port: '443'}]}]}]",
        "egress[0].toServices",
    ),
    (
        "egress: [{toNodes: , toPorts: [{ports: [{port: '443'}]}]}]",
        "egress[0].toNodes",
    ),
    ("egress: [{toEntities: [world], toPorts: }]", "egress[0].toPorts"),
    ("egress: [{toEntities: [world], icmps: }]", "egress[0].icmps"),
    ("egress: [{toEntities: [world], toRequires: }]", "egress[0].toRequires"),
    (
        "egress: [{toEndpoints: [{matchLabels: }]}]",
        "egress[0].toEndpoints[0].matchLabels",
    ),
    (
        "egress: [{toEndpoints: [{matchLabels: {app: }}]}]",
        "egress[0].toEndpoints[0].matchLabels.app",
    ),
    (
        "egress: [{toCIDRSet: [{cidr: 10.0.0.0/8, except: }]}]",
        "egress[0].toCIDRSet[0].except",
    ),
    (
        "egress: [{toPorts: [{ports: [{port: '53'}], rules: }]}]",
        "egress[0].toPorts[0].rules",
    ),
    (
        "egress: [{toPorts: [{ports: [{port: '53'}], rules: {dns: }}]}]",
        "egress[0].toPorts[0].rules.dns",
    ),
    (
        "egress: [{toPorts: [{ports: [{port: '53', protocol: }]}]}]",
        "egress[0].toPorts[0].ports[0].protocol",
    ),
    (
        "egressDeny: [{toEntities: , toPorts: [{ports: [{port: '443'}]}]}]",
        "egressDeny[0].toEntities",
    ),
    ("egress: ", "egress"),
    ("egressDeny: ", "egressDeny"),
    ("ingress: ", "ingress"),
    ("ingressDeny: ", "ingressDeny"),
    (
        "ingress: [{fromEndpoints: , toPorts: [{ports: [{port: '443'}]}]}]",
        "ingress[0].fromEndpoints",
    ),
    ("ingressDeny: [{fromCIDR: }]", "ingressDeny[0].fromCIDR"),
];

#[test]
fn a_field_without_a_value_refuses_the_policy_and_closes_whom_it_selects() {
    for (fields, path) in RULES {
        let text = format!("{HEAD}{SELECTOR}  {}\n", fields.replace(": ,", ": null,"));
        let path = format!("spec.{path}");
        let (policy, diagnostics) = read(&text);
        assert!(policy.is_none(), "{fields}");
        let [finding] = diagnostics.as_slice() else {
            panic!("{fields}: {diagnostics:?}")
        };
        assert_eq!((finding.code, &finding.path), ("no-value", &path), "{fields}");
        assert!(said(&text)[0].starts_with("closed-until-mended"), "{fields}");
    }
}

#[test]
fn the_finding_stands_at_the_key_and_says_what_would_be_opened() {
    let text = format!(
        "{HEAD}{SELECTOR}  egress:\n  - toFQDNs:\n    # - matchName: a.example\n    toPorts: [{{ports: [{{port: '443'}}]}}]\n"
    );
    assert_eq!(findings(&text), ["no-value spec.egress[0].toFQDNs 9"]);
    let finding = read(&text).1.remove(0);
    assert_eq!(
        finding.reason,
        "nothing stands behind it, which Kubernetes and Cilium read as if the field were left out: \
         the rule then speaks of its ports at every destination"
    );
    assert_eq!(
        finding.suggestion.unwrap(),
        "write what is meant, `toFQDNs: []` for nothing, or take the line out"
    );
}

#[test]
fn an_unknown_key_without_a_value_is_reported_like_any_other() {
    assert_eq!(
        findings_in_egress("  - toFQDN:\n    toPorts: [{ports: [{port: '443'}]}]\n"),
        ["unknown-field spec.egress[0].toFQDN 9"]
    );
    let astray = format!("{HEAD}{SELECTOR}  egres:\n");
    assert_eq!(findings(&astray), ["unknown-field spec.egres 8"]);
    assert_eq!(said(&astray), ["closed-until-mended spec.endpointSelector egress"]);
}

#[test]
fn what_has_no_effect_may_stand_without_a_value() {
    let text = format!("{HEAD}{SELECTOR}  egress: [{{}}]\n  description:\n  labels:\n  log:\nstatus:\n");
    assert_eq!(findings(&text), none());
}
