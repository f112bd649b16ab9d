use super::*;
use crate::document::parse;
use crate::validate;

const HEAD: &str = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p, namespace: n}\nspec:\n  endpointSelector: {}\n";

/// `code path` of each finding.
fn findings(text: &str) -> Vec<String> {
    let (documents, errors) = parse(text);
    assert_eq!(errors, []);
    let (verdict, diagnostics) = validate::validate(&documents[0]);
    let Some(policy) = verdict.accepted() else {
        panic!("{diagnostics:?}")
    };
    let found = lint(&documents[0], &policy);
    assert!(
        found.iter().all(|d| d.suggestion.is_some() && d.position.is_some()),
        "{found:?}"
    );
    found.iter().map(|d| format!("{} {}", d.code, d.path)).collect()
}

fn in_spec(spec: &str) -> Vec<String> {
    findings(&format!("{HEAD}{spec}"))
}

#[test]
fn a_plain_policy_has_no_findings() {
    let found = in_spec(
        "  egress:\n  - toFQDNs:\n    - matchName: example.com\n    - matchPattern: '*.example.com'\n    toPorts: [{ports: [{port: '443', protocol: TCP}]}]\n",
    );
    assert_eq!(found, [] as [&str; 0]);
}

#[test]
fn entries_that_match_nothing_are_found_in_selectors_and_dns_rules() {
    let found = in_spec(
        "  egress:\n  - toFQDNs:\n    - {}\n  - toCIDR: [192.0.2.53/32]\n    toPorts:\n    - ports: [{port: '53'}]\n      rules: {dns: [{}]}\n",
    );
    assert_eq!(
        found,
        [
            "empty-fqdn-selector spec.egress[0].toFQDNs[0]",
            "empty-fqdn-selector spec.egress[1].toPorts[0].rules.dns[0]"
        ]
    );
}

#[test]
fn a_star_without_its_apex_is_found_unless_another_entry_matches_the_apex() {
    let found = in_spec(
        "  egress:\n  - toFQDNs:\n    - matchPattern: '*.example.com'\n    - matchPattern: '**.example.org'\n    - matchPattern: '*.net'\n  - toFQDNs:\n    - matchName: example.org\n",
    );
    assert_eq!(found, ["pattern-without-apex spec.egress[0].toFQDNs[0].matchPattern"]);
}

#[test]
fn double_stars_that_mean_a_single_star_are_found() {
    let found = in_spec(
        "  egress:\n  - toFQDNs:\n    - matchPattern: 'a.**.example.com'\n    - matchPattern: '**example.com'\n    - matchPattern: '***.com'\n    - matchPattern: 'a*b*.example.com'\n",
    );
    assert_eq!(
        found,
        [
            "mid-double-star spec.egress[0].toFQDNs[0].matchPattern",
            "mid-double-star spec.egress[0].toFQDNs[1].matchPattern",
        ]
    );
    assert!(!has_single_star_in_disguise("**"));
    assert!(!has_single_star_in_disguise("**."));
}

#[test]
fn a_name_that_the_dns_rules_hide_is_found() {
    let dns = "  - toEndpoints: [{}]\n    toPorts:\n    - ports: [{port: '53', protocol: ANY}]\n      rules:\n        dns:\n        - matchPattern: '*.example.com'\n        - matchName: example.com\n";
    let found = in_spec(&format!(
        "  egress:\n{dns}  - toFQDNs:\n    - matchName: a.example.com\n    - matchName: b.example.org\n    - matchPattern: '*.example.com'\n    - matchPattern: '**.example.com'\n    - matchName: example.com\n"
    ));
    assert_eq!(
        found,
        [
            "dns-rule-hides-fqdn spec.egress[1].toFQDNs[1].matchName",
            "dns-rule-hides-fqdn spec.egress[1].toFQDNs[3].matchPattern",
        ]
    );
}

#[test]
fn a_name_that_is_allowed_and_denied_is_found_and_an_exception_is_not() {
    let found = in_spec(
        "  egress:\n  - toFQDNs:\n    - matchName: example.com\n    - matchPattern: '*.example.com'\n    - matchName: a.example.org\n  egressDeny:\n  - toFQDNs:\n    - matchName: bad.example.com\n    - matchPattern: '*.example.org'\n",
    );
    assert_eq!(found, ["deny-meets-allow spec.egress[0].toFQDNs[2].matchName"]);
}

#[test]
fn rules_without_effect_are_found() {
    assert_eq!(
        in_spec("  egress: []\n  ingress: []\n"),
        ["empty-rule-list spec.egress"]
    );
    assert_eq!(in_spec("  egressDeny: [{}]\n"), ["empty-deny-rule spec.egressDeny[0]"]);
}

#[test]
fn selectors_of_every_name_and_of_the_clusters_own_names_are_found() {
    let found =
        in_spec("  egress:\n  - toFQDNs:\n    - matchPattern: '*'\n    - matchName: web.default.svc.cluster.local\n");
    assert_eq!(
        found,
        [
            "pattern-matches-all spec.egress[0].toFQDNs[0].matchPattern",
            "cluster-name spec.egress[0].toFQDNs[1].matchName",
        ]
    );
}

#[test]
fn a_clusterwide_policy_over_every_pod_is_found() {
    let head = "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: p}\nspec:\n";
    let found = findings(&format!("{head}  endpointSelector: {{}}\n  egress: [{{}}]\n"));
    assert_eq!(found, ["selector-selects-all spec.endpointSelector"]);
    let some = findings(&format!(
        "{head}  endpointSelector: {{matchLabels: {{app: a}}}}\n  egress: [{{}}]\n"
    ));
    assert_eq!(some, [] as [&str; 0]);
    assert_eq!(
        in_spec("  egress: [{}]\n"),
        [] as [&str; 0],
        "all of one namespace is how a namespace is closed"
    );
}
