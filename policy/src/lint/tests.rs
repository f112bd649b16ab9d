mod encrypted_dns;
mod l7;
mod shadows;
mod sources;
mod surroundings;

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::names::has_inner_double_star;
use super::*;
use crate::document::parse;
use crate::inventory::{ContainerPort, InventoryPod, InventoryService};
use crate::labels::Labels;
use crate::validate::validate;
use crate::{CidrGroup, Inventory, Protocol, endpoint};

const HEAD: &str = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p, namespace: n}\nspec:\n  endpointSelector: {}\n";

/// `code path` of each finding about one policy.
fn findings(text: &str) -> Vec<String> {
    let (documents, policies) = read(text);
    codes(lint(&documents[0], &policies[0]))
}

fn read(text: &str) -> (Vec<Document>, Vec<Policy>) {
    let (documents, errors) = parse(text);
    assert_eq!(errors, []);
    let policies = documents.iter().map(|document| {
        let (verdict, diagnostics) = validate(document);
        verdict.accepted().unwrap_or_else(|| panic!("{diagnostics:?}"))
    });
    let policies = policies.collect();
    (documents, policies)
}

fn codes(found: Vec<Diagnostic>) -> Vec<String> {
    assert!(
        found.iter().all(|d| d.suggestion.is_some() && d.position.is_some()),
        "{found:?}"
    );
    found.iter().map(|d| format!("{} {}", d.code, d.path)).collect()
}

/// `code path: reason; suggestion` of each finding that policies have together, with `policy`
/// before those of others than the first.
fn findings_across(texts: &[&str], cluster: &ClusterContext<'_>) -> Vec<String> {
    let (documents, policies) = read(&texts.join("---\n"));
    let pairs: Vec<_> = documents.iter().zip(&policies).collect();
    let found = across(&pairs, cluster);
    assert_eq!(found.len(), pairs.len());
    let mut lines = Vec::new();
    for ((document, _), found) in pairs.into_iter().zip(found) {
        lines.extend(
            codes(found)
                .into_iter()
                .map(|line| format!("{}: {line}", document.name)),
        );
    }
    lines
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
fn a_pattern_that_does_not_reach_what_may_be_asked_is_found_unless_another_entry_does() {
    let asking = |questions: &str| {
        in_spec(&format!(
            "  egress:\n  - toEndpoints: [{{}}]\n    toPorts:\n    - ports: [{{port: '53', protocol: ANY}}]\n      rules: {{dns: [{questions}]}}\n\
             \x20 - toFQDNs:\n    - matchPattern: '*.example.com'\n    - matchPattern: '*.example.org'\n  - toFQDNs:\n    - matchName: example.org\n"
        ))
    };
    let every = "{matchPattern: '*'}";
    assert_eq!(asking(every), [""; 0], "nothing says that the apex is meant");
    assert_eq!(
        asking(&format!(
            "{every}, {{matchName: example.com}}, {{matchName: example.org}}"
        )),
        ["pattern-without-apex spec.egress[1].toFQDNs[0].matchPattern"]
    );
    assert_eq!(
        asking(&format!(
            "{every}, {{matchName: a.b.example.com}}, {{matchPattern: '**.example.org'}}"
        )),
        [
            "pattern-too-shallow spec.egress[1].toFQDNs[0].matchPattern",
            "pattern-too-shallow spec.egress[1].toFQDNs[1].matchPattern"
        ]
    );
}

#[test]
fn names_that_open_what_anybody_may_register_and_addresses_are_found() {
    let found = in_spec(
        "  egress:\n  - toFQDNs:\n    - matchPattern: '*.com'\n    - matchPattern: '**.net'\n    - matchPattern: '*.internal'\n    - matchPattern: '*example.com'\n    - matchPattern: '*-api.example.com'\n    - matchName: 192.0.2.1\n",
    );
    assert_eq!(
        found,
        [
            "pattern-of-everybody spec.egress[0].toFQDNs[0].matchPattern",
            "pattern-of-everybody spec.egress[0].toFQDNs[1].matchPattern",
            "pattern-without-dot spec.egress[0].toFQDNs[3].matchPattern",
            "address-as-name spec.egress[0].toFQDNs[5].matchName",
        ]
    );
}

#[test]
fn findings_are_suppressed_by_an_annotation_with_a_reason() {
    let policy = |annotation: &str| {
        findings(&format!(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata:\n  name: p\n  annotations: {{namegate.io/ignore: {annotation:?}}}\n\
             spec:\n  endpointSelector: {{}}\n  egress:\n  - toFQDNs: [{{matchPattern: '*.com'}}, {{}}]\n"
        ))
    };
    let (wide, empty) = (
        "pattern-of-everybody spec.egress[0].toFQDNs[0].matchPattern",
        "empty-fqdn-selector spec.egress[0].toFQDNs[1]",
    );
    assert_eq!(policy("pattern-of-everybody: a crawler"), [empty]);
    assert_eq!(
        policy("pattern-of-everybody: a crawler; empty-fqdn-selector: see above"),
        [""; 0]
    );
    assert_eq!(
        policy("pattern-of-everybody"),
        [wide, empty],
        "without a reason it counts for nothing"
    );
}

#[test]
fn double_stars_that_mean_a_single_star_are_found() {
    let found = in_spec(
        "  egress:\n  - toFQDNs:\n    - matchPattern: 'a.**.example.com'\n    - matchPattern: '**example.com'\n    - matchPattern: '***.internal'\n    - matchPattern: 'a*b*.example.com'\n",
    );
    assert_eq!(
        found,
        [
            "mid-double-star spec.egress[0].toFQDNs[0].matchPattern",
            "mid-double-star spec.egress[0].toFQDNs[1].matchPattern",
            "pattern-without-dot spec.egress[0].toFQDNs[1].matchPattern",
        ]
    );
    assert!(!has_inner_double_star("**"));
    assert!(!has_inner_double_star("**."));
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
fn ports_without_destinations_are_found_except_those_of_lookups() {
    let rule = |ports: &str| in_spec(&format!("  egress:\n  - toPorts: [{{ports: [{ports}]}}]\n"));
    assert_eq!(rule("{port: '443'}"), ["port-to-anywhere spec.egress[0].toPorts"]);
    assert_eq!(
        rule("{port: '53'}, {port: '443'}"),
        ["port-to-anywhere spec.egress[0].toPorts"]
    );
    assert_eq!(
        rule("{port: '53', protocol: UDP}, {port: '53', protocol: TCP}"),
        [""; 0]
    );
    let everywhere = "  egress:\n  - toEntities: [all]\n    toPorts: [{ports: [{port: '443'}]}]\n";
    assert_eq!(in_spec(everywhere), [""; 0], "it says so");
    let network_policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: n}\n\
                          spec:\n  podSelector: {}\n  policyTypes: [Egress]\n  egress:\n";
    assert_eq!(
        findings(&format!(
            "{network_policy}  - ports: [{{port: 443}}]\n  - ports: [{{port: 53, protocol: UDP}}]\n"
        )),
        ["port-to-anywhere spec.egress[0].ports"]
    );
}

#[test]
fn a_policy_that_does_nothing_is_found() {
    assert_eq!(
        in_spec("  enableDefaultDeny: {egress: false}\n  egress: [{}]\n"),
        ["no-effect spec"]
    );
    assert_eq!(in_spec("  ingress: [{}]\n"), [""; 0], "it closes");
    assert_eq!(
        in_spec("  enableDefaultDeny: {ingress: false}\n  ingress: [{}]\n"),
        ["no-effect spec"]
    );
    assert_eq!(in_spec("  egress: [{}]\n"), [""; 0], "it closes");
}

#[test]
fn rules_without_effect_are_found() {
    assert_eq!(
        in_spec("  egress: []\n  ingress: [{}]\n"),
        ["empty-rule-list spec.egress"]
    );
    assert_eq!(in_spec("  egressDeny: [{}]\n"), ["empty-deny-rule spec.egressDeny[0]"]);
    assert_eq!(
        in_spec("  ingress: []\n  ingressDeny: [{}]\n"),
        ["empty-rule-list spec.ingress", "empty-deny-rule spec.ingressDeny[0]"]
    );
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

const NETWORK_POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: n}\nspec:\n  podSelector: {}\n";
const NO_FINDINGS: [&str; 0] = [];

/// A ClusterNetworkPolicy of tier Admin.
fn admin(name: &str, priority: u16, subject: &str, rules: &str) -> String {
    format!(
        "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: {name}}}\nspec:\n  tier: Admin\n  priority: {priority}\n  subject: {subject}\n{rules}"
    )
}

/// A CiliumNetworkPolicy of the namespace `n`.
fn cilium(name: &str, app: &str, rules: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {name}, namespace: n}}\nspec:\n  endpointSelector: {{matchLabels: {{app: {app}}}}}\n{rules}"
    )
}

/// Pods of the namespace `n` with a label `app`, each listening on TCP 8080 as `http`.
fn pods(apps: &[&str]) -> Inventory {
    let pod = |(index, app): (usize, &&str)| {
        let labels = endpoint::labels(
            &Labels::from([("app".to_owned(), (*app).to_owned())]),
            "n",
            &Labels::new(),
            "default",
            "default",
        );
        let port = ContainerPort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: 8080,
        };
        InventoryPod::new(labels, [format!("10.0.0.{}", index + 1).parse().unwrap()], vec![port])
    };
    Inventory {
        pods: apps.iter().enumerate().map(pod).collect(),
        ..Inventory::default()
    }
}

fn cluster(inventory: Inventory) -> ClusterContext<'static> {
    ClusterContext {
        inventory: Cow::Owned(inventory),
        ..ClusterContext::default()
    }
}

#[test]
fn an_audit_is_found() {
    let of = |mode| {
        let text = format!(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p, annotations: {{namegate.io/mode: {mode}}}}}\nspec: {{endpointSelector: {{}}, egress: [{{}}]}}\n"
        );
        findings_across(&[&text], &ClusterContext::default())
    };
    assert_eq!(of("audit"), ["p: audit-mode metadata.annotations.namegate.io/mode"]);
    assert_eq!(of("enforce"), NO_FINDINGS);
}

#[test]
fn empty_lists_of_destinations_are_found() {
    assert_eq!(
        in_spec("  egress:\n  - toEndpoints: []\n  - toCIDR: []\n    toEntities: [world]\n"),
        ["empty-peer-list spec.egress[0].toEndpoints"]
    );
    let found = findings(&format!("{NETWORK_POLICY}  egress: [{{to: []}}]\n"));
    assert_eq!(found, ["empty-peer-list spec.egress[0].to"]);
    let found = findings(&format!("{NETWORK_POLICY}  policyTypes: [Egress]\n  egress: []\n"));
    assert_eq!(found, NO_FINDINGS, "that is how a namespace is closed");
}

#[test]
fn selectors_of_destinations_that_ask_for_nothing_are_found_unless_ports_are_listed() {
    assert_eq!(
        in_spec("  egress:\n  - toEndpoints: [{}]\n"),
        ["empty-peer-selector spec.egress[0].toEndpoints[0]"]
    );
    let ports = "toPorts: [{ports: [{port: '53', protocol: ANY}]}]";
    assert_eq!(
        in_spec(&format!("  egress:\n  - toEndpoints: [{{}}]\n    {ports}\n")),
        NO_FINDINGS
    );
    let found = findings(&format!(
        "{NETWORK_POLICY}  policyTypes: [Egress]\n  egress: [{{to: [{{podSelector: {{}}}}, {{podSelector: {{matchLabels: {{a: b}}}}, namespaceSelector: {{}}}}]}}]\n"
    ));
    assert_eq!(found, ["empty-peer-selector spec.egress[0].to[0].podSelector"]);
    let rules = "  egress: [{action: Accept, to: [{namespaces: {}}, {pods: {podSelector: {matchLabels: {a: b}}}}]}]\n";
    let found = findings(&admin("p", 1, "{namespaces: {matchLabels: {a: b}}}", rules));
    assert_eq!(found, ["empty-peer-selector spec.egress[0].to[0].namespaces"]);
}

#[test]
fn a_cluster_policy_that_closes_every_pod_is_found() {
    let of = |subject, networks| {
        let rules = format!("  egress: [{{action: Deny, to: [{{networks: [{networks}]}}]}}]\n");
        findings(&admin("p", 1, subject, &rules))
    };
    let everything = "0.0.0.0/0, '::/0'";
    assert_eq!(
        of("{namespaces: {}}", everything),
        ["selector-selects-all spec.subject.namespaces"]
    );
    assert_eq!(
        of("{pods: {podSelector: {}}}", everything),
        ["selector-selects-all spec.subject.pods"]
    );
    assert_eq!(
        of("{pods: {podSelector: {matchLabels: {a: b}}}}", everything),
        NO_FINDINGS
    );
    assert_eq!(
        of("{namespaces: {}}", "10.0.0.0/8"),
        NO_FINDINGS,
        "what all are to keep is what the kind is for"
    );
}

#[test]
fn domain_names_are_linted_too() {
    let rules = "  egress: [{action: Accept, to: [{domainNames: ['*.example.com', web.default.svc.cluster.local]}]}]\n";
    let found = findings(&admin("p", 1, "{namespaces: {matchLabels: {a: b}}}", rules));
    assert_eq!(found, ["cluster-name spec.egress[0].to[0].domainNames[1]"]);
}

#[test]
fn policies_with_many_rules_are_linted_in_bounded_time() {
    let entries: String = (0..20_000)
        .map(|n| format!("    - matchName: n{n}.example.com\n"))
        .collect();
    let found = in_spec(&format!("  egress:\n  - toFQDNs:\n{entries}  - toFQDNs:\n{entries}"));
    assert_eq!(found, NO_FINDINGS, "too many to be compared");
}

#[test]
fn every_code_of_a_lint_is_explained() {
    let page = include_str!("../../../docs/lints.md");
    let explained: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("## `")?.strip_suffix('`'))
        .collect();
    let code = regex::Regex::new(r#"\.warning\(\s*"([a-z0-9-]+)""#).unwrap();
    let sources = [
        include_str!("audit.rs"),
        include_str!("encrypted_dns.rs"),
        include_str!("l7.rs"),
        include_str!("names.rs"),
        include_str!("networks.rs"),
        include_str!("nodes.rs"),
        include_str!("peers.rs"),
        include_str!("ports.rs"),
        include_str!("priorities.rs"),
        include_str!("shadows.rs"),
        include_str!("sources.rs"),
        include_str!("subjects.rs"),
    ];
    let in_source = sources.iter().flat_map(|source| code.captures_iter(source));
    let in_source: BTreeSet<&str> = in_source.map(|found| found.get(1).unwrap().as_str()).collect();
    assert!(in_source.len() >= 20, "{in_source:?}");
    assert_eq!(explained, in_source);
}
