mod destinations;
mod l7;
mod nulls;
mod ports;
mod sources;
mod stand_in;
mod subjects;

use ipnet::IpNet;
use proptest::prelude::*;

use crate::diagnostic::Diagnostic;
use crate::dns_rules::DnsRule;
use crate::document::{Document, parse};
use crate::peer_selector::PeerSelector;
use crate::policy::{Action, Policy, PolicyRule, PolicySpec};
use crate::ports::{PortRange, PortSet, Protocol};
use crate::validate::{StandIn, Validation, is_policy, validate};
use crate::zone::Zone;

/// Six lines: the `spec` fields that a test adds begin on line 7.
const HEAD: &str = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata:\n  name: p\n  namespace: n\nspec:\n";
/// And with a selector they begin on line 8.
const SELECTOR: &str = "  endpointSelector: {}\n";

fn read(text: &str) -> (Option<Policy>, Vec<Diagnostic>) {
    let (documents, errors) = parse(text);
    assert_eq!(errors, []);
    let (verdict, diagnostics) = validate(&documents[0]);
    (verdict.accepted(), diagnostics)
}

/// `code path line` of each finding.
fn findings(text: &str) -> Vec<String> {
    let (policy, diagnostics) = read(text);
    let refused = diagnostics.iter().any(|d| d.severity == crate::Severity::Error);
    assert_eq!(policy.is_none(), refused, "{diagnostics:?}");
    diagnostics
        .iter()
        .map(|d| format!("{} {} {}", d.code, d.path, d.position.map_or(0, |p| p.line)))
        .collect()
}

fn findings_in_egress(rules: &str) -> Vec<String> {
    findings(&format!("{HEAD}{SELECTOR}  egress:\n{rules}"))
}

fn spec(fields: &str) -> PolicySpec {
    let (policy, diagnostics) = read(&format!("{HEAD}{SELECTOR}{fields}"));
    policy.unwrap_or_else(|| panic!("{diagnostics:?}")).specs.remove(0)
}

fn rule(rule: &str) -> PolicyRule {
    only_rule(spec(&format!("  egress:\n{rule}")), Action::Allow)
}

fn denial(rule: &str) -> PolicyRule {
    only_rule(spec(&format!("  egressDeny:\n{rule}")), Action::Deny)
}

fn only_rule(mut spec: PolicySpec, action: Action) -> PolicyRule {
    assert_eq!(spec.directions.egress.rules.len(), 1);
    let rule = spec.directions.egress.rules.remove(0);
    assert_eq!(rule.action, action);
    rule
}

fn prefixes(zone: Zone, prefixes: &[&str]) -> PeerSelector {
    PeerSelector::Prefixes(
        prefixes
            .iter()
            .map(|prefix| (zone, prefix.parse::<IpNet>().unwrap()))
            .collect(),
    )
}

fn everything(zone: Zone) -> PeerSelector {
    prefixes(zone, &["0.0.0.0/0", "::/0"])
}

fn range(protocol: Protocol, first: u16, last: u16) -> PortRange {
    PortRange { protocol, first, last }
}

fn none() -> [&'static str; 0] {
    []
}

#[test]
fn the_policy_that_everybody_writes_filters_questions_and_opens_the_name() {
    let text = format!(
        "{HEAD}  endpointSelector:
    matchLabels:
      app: web
  egress:
  - toEndpoints:
    - matchLabels:
        k8s:io.kubernetes.pod.namespace: kube-system
        k8s-app: kube-dns
    toPorts:
    - ports:
      - port: \"53\"
        protocol: ANY
      rules:
        dns:
        - matchPattern: \"*.example.com\"
        - matchName: example.com
  - toFQDNs:
    - matchName: example.com
    - matchPattern: \"*.example.com\"
    toPorts:
    - ports:
      - port: \"443\"
        protocol: TCP
"
    );
    assert_eq!(findings(&text), none());
    let policy = read(&text).0.unwrap();
    let [spec] = policy.specs.as_slice() else {
        panic!("{policy:?}")
    };
    assert!(spec.directions.egress.closes);
    let [dns, names] = spec.directions.egress.rules.as_slice() else {
        panic!("{spec:?}")
    };
    assert!(matches!(&dns.peers, PeerSelector::Objects(selectors) if selectors.len() == 1));
    assert!(dns.ports.is_empty(), "lookups are intercepted, the port is not opened");
    let [DnsRule { port: 53, patterns }] = dns.dns.as_slice() else {
        panic!("{dns:?}")
    };
    assert_eq!(patterns.len(), 2);
    assert!(matches!(&names.peers, PeerSelector::Names(patterns) if patterns.len() == 2));
    assert_eq!(names.ports, PortSet::Ranges(vec![range(Protocol::Tcp, 443, 443)]));
    assert_eq!(names.origin, "spec.egress[1]");
}

#[test]
fn unknown_fields_and_wrong_types_are_all_named_with_what_was_probably_meant() {
    let text = format!(
        "{HEAD}{SELECTOR}  egres: []\n  egress:\n  - toFqdns: []\n  - toFQDNs:\n    - matchname: a\n    - matchName: 5\n  - toCIDR: 10.0.0.0/8\n  - toPorts:\n    - ports:\n      - port: 443\n        endPort: '500'\n  ingress:\n  - fromEndpoint: []\nstatuss: 1\n"
    );
    assert_eq!(
        findings(&text),
        [
            "unknown-field spec.egres 8",
            "unknown-field spec.egress[0].toFqdns 10",
            "unknown-field spec.egress[1].toFQDNs[0].matchname 12",
            "wrong-type spec.egress[1].toFQDNs[1].matchName 13",
            "wrong-type spec.egress[2].toCIDR 14",
            "wrong-type spec.egress[3].toPorts[0].ports[0].port 17",
            "wrong-type spec.egress[3].toPorts[0].ports[0].endPort 18",
            "unknown-field spec.ingress[0].fromEndpoint 20",
            "unknown-field statuss 21",
        ]
    );
    let suggestions: Vec<_> = read(&text).1.into_iter().filter_map(|d| d.suggestion).collect();
    assert_eq!(
        suggestions,
        [
            "did you mean `egress`?",
            "did you mean `toFQDNs`?",
            "did you mean `matchName`?",
            "write it in quotes: \"5\"",
            "write `- ` before it",
            "write it in quotes: \"443\"",
            "did you mean `fromEndpoints`?",
            "did you mean `status`?",
        ]
    );
}

#[test]
fn annotations_are_read_and_misspelt_ones_named() {
    let annotated = |annotations: &str| {
        format!(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata:\n  name: p\n  annotations:\n{annotations}    other.io/x: y\nspec: {{endpointSelector: {{}}, egress: [{{}}]}}\n"
        )
    };
    let ignored = annotated("    namegate.io/mode: ignore\n").replace("endpointSelector", "endpointSelektor");
    let (policy, diagnostics) = read(&ignored);
    let codes: Vec<&str> = diagnostics.iter().map(|it| it.code).collect();
    assert!(
        policy.unwrap().specs.is_empty(),
        "it selects nobody, whatever else it says"
    );
    assert_eq!(codes, [crate::validate::IGNORED]);
    let text = annotated("    namegate.io/mode: audit\n    namegate.io/gracee: 5s\n");
    assert_eq!(
        findings(&text),
        ["unknown-annotation metadata.annotations.namegate.io/gracee 7"]
    );
    assert!(read(&text).0.unwrap().extensions.audit);
    assert_eq!(
        findings(&annotated("    namegate.io/mode: audits\n    namegate.io/grace: '5'\n")),
        [
            "bad-annotation metadata.annotations.namegate.io/mode 6",
            "bad-annotation metadata.annotations.namegate.io/grace 7",
        ]
    );
}

#[test]
fn other_kinds_are_no_policies() {
    let (documents, _) = parse("apiVersion: cilium.io/v2\nkind: CiliumNode\nmetadata: {name: n}\n");
    assert!(!is_policy(&documents[0]));
    assert_eq!(validate(&documents[0]).1[0].code, "wrong-kind");
}

#[test]
fn a_field_of_the_other_direction_is_refused_with_what_is_meant() {
    let rules = "  ingress:\n  - toFQDNs: [{matchName: a.example}]\n  - toEndpoints: [{}]\n  egress:\n  - fromCIDR: [192.0.2.1]\n";
    let (policy, diagnostics) = read(&format!("{HEAD}{SELECTOR}{rules}"));
    assert!(policy.is_none());
    for (path, meant) in [
        ("spec.ingress[0].toFQDNs", "names never select these"),
        ("spec.ingress[1].toEndpoints", "did you mean `fromEndpoints`?"),
        ("spec.egress[0].fromCIDR", "did you mean `toCIDR`?"),
    ] {
        let found = diagnostics
            .iter()
            .find(|it| it.code == "unknown-field" && it.path == path);
        let said = found.and_then(|it| it.suggestion.as_deref()).unwrap_or_default();
        assert!(said.contains(meant), "{path}: {diagnostics:?}");
    }
}

#[test]
fn findings_are_bounded_and_the_refusal_is_not_lost() {
    let fields: String = (0..1000).map(|n| format!("  unknown{n}: 1\n")).collect();
    let (policy, diagnostics) = read(&format!("{HEAD}{SELECTOR}{fields}"));
    assert!(policy.is_none());
    assert_eq!(diagnostics.len(), crate::diagnostic::MAX_FINDINGS + 1);
    assert_eq!(diagnostics.last().unwrap().code, "more-findings");
}

/// Any JSON that a reader of this kind may meet.
fn json() -> impl Strategy<Value = serde_json::Value> {
    crate::arbitrary_json::json(
        &[
            "endpointSelector",
            "matchLabels",
            "matchExpressions",
            "key",
            "operator",
            "values",
            "egress",
            "egressDeny",
            "toFQDNs",
            "matchName",
            "matchPattern",
            "toCIDR",
            "toCIDRSet",
            "cidr",
            "except",
            "toEntities",
            "toEndpoints",
            "toPorts",
            "ports",
            "port",
            "endPort",
            "protocol",
            "rules",
            "dns",
            "http",
            "icmps",
            "authentication",
            "mode",
            "specs",
            "x",
        ],
        &[
            "",
            "*",
            "a.example",
            "10.0.0.0/8",
            "::/0",
            "53",
            "ANY",
            "In",
            "world",
            "\u{0}",
            "ä",
        ],
    )
}

proptest! {
    #[test]
    fn validation_and_lint_never_panic_and_refuse_exactly_by_errors(spec in json(), rule in json()) {
        for spec in [spec, serde_json::json!({"endpointSelector": {}, "egress": [rule.clone()], "egressDeny": [rule]})] {
            let document = Document::from_value(serde_json::json!({
                "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": {"name": "p"}, "spec": spec,
            })).unwrap();
            let (verdict, diagnostics) = validate(&document);
            let refused = diagnostics.iter().any(|d| d.severity == crate::Severity::Error);
            prop_assert_eq!(matches!(&verdict, Validation::Refused(_)), refused);
            match verdict {
                Validation::Accepted(policy) => drop(crate::lint::lint(&document, &policy)),
                Validation::Refused(stand_in) => {
                    let specs = stand_in.policy.map(|policy| policy.specs).unwrap_or_default();
                    prop_assert!(specs.iter().all(|spec| spec.directions.egress.closes && spec.directions.egress.rules_that(Action::Allow).next().is_none()));
                }
            }
        }
    }
}
