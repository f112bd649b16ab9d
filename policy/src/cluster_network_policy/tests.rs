mod domain_names;
mod hostile;
mod protocols;
mod stand_ins;

use ipnet::IpNet;
use names::Name;
use proptest::prelude::*;

use crate::diagnostic::{Diagnostic, Severity};
use crate::document::{Document, parse};
use crate::endpoint;
use crate::labels::{LabelSelector, Labels};
use crate::peer_selector::{NamedPort, ObjectSelector, PeerSelector};
use crate::policy::{Action, Policy, PolicyRule, PolicySpec, Tier};
use crate::ports::{PortRange, PortSet, Protocol};
use crate::validate::{StandIn, Validation, validate};
use crate::zone::Zone;

/// Five lines: the fields of `spec` that a test adds begin on line 6.
const HEAD: &str =
    "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: p}\n\nspec:\n";
/// And with a place and a subject on line 7.
const ADMIN: &str = "  {tier: Admin, priority: 10, subject: {namespaces: {}}, egress: [\n";
const BASELINE: &str = "  {tier: Baseline, priority: 10, subject: {namespaces: {}}, egress: [\n";

fn read(fields: &str) -> (Validation, Vec<Diagnostic>) {
    let (documents, errors) = parse(&format!("{HEAD}{fields}"));
    assert_eq!(errors, []);
    validate(&documents[0])
}

fn policy(fields: &str) -> Policy {
    let (verdict, diagnostics) = read(fields);
    verdict.accepted().unwrap_or_else(|| panic!("{diagnostics:?}"))
}

fn spec(fields: &str) -> PolicySpec {
    policy(fields).specs.remove(0)
}

/// The rules of a policy in tier Admin.
fn rules(rules: &str) -> Vec<PolicyRule> {
    spec(&format!("{ADMIN}    {rules}]}}\n")).directions.egress.rules
}

fn rule(rule: &str) -> PolicyRule {
    let mut rules = rules(&format!("{{action: Accept, {rule}}}"));
    assert_eq!(rules.len(), 1, "{rules:?}");
    rules.remove(0)
}

/// `code path line` of each finding.
fn findings(fields: &str) -> Vec<String> {
    let (verdict, diagnostics) = read(fields);
    let refused = diagnostics.iter().any(|d| d.severity == Severity::Error);
    assert_eq!(verdict.accepted().is_none(), refused, "{diagnostics:?}");
    let shown = |d: &Diagnostic| format!("{} {} {}", d.code, d.path, d.position.map_or(0, |p| p.line));
    diagnostics.iter().map(shown).collect()
}

fn findings_in_rules(rules: &str) -> Vec<String> {
    findings(&format!("{ADMIN}    {rules}]}}\n"))
}

fn labels(namespace: &str, pairs: &[(&str, &str)], of_namespace: &[(&str, &str)]) -> Labels {
    let owned = |pairs: &[(&str, &str)]| -> Labels {
        let owned = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        owned.collect()
    };
    endpoint::labels(&owned(pairs), namespace, &owned(of_namespace), "default", "default")
}

fn pods(peer: &str) -> LabelSelector {
    match rule(&format!("to: [{peer}]")).peers {
        PeerSelector::Objects(mut selectors) => match selectors.remove(0) {
            ObjectSelector::Pods(selector) => selector,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

fn anywhere(prefixes: &[&str]) -> PeerSelector {
    let prefix = |text: &&str| (Zone::Anywhere, text.parse::<IpNet>().unwrap());
    PeerSelector::Prefixes(prefixes.iter().map(prefix).collect())
}

fn range(protocol: Protocol, first: u16, last: u16) -> PortSet {
    PortSet::from_ranges([PortRange { protocol, first, last }])
}

fn none() -> [&'static str; 0] {
    []
}

#[test]
fn rules_stand_in_their_tier_and_order_and_close_nothing() {
    let text = "  tier: Admin
  priority: 1000
  subject: {namespaces: {matchLabels: {kind: tenant}}}
  egress:
  - {name: dns, action: Accept, to: [{pods: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}, podSelector: {}}}]}
  - {action: Pass, to: [{namespaces: {}}]}
  - {action: Deny, to: [{networks: [0.0.0.0/0, '::/0']}]}
";
    assert_eq!(findings(text), none());
    let spec = spec(text);
    assert_eq!(spec.tier, Tier::Admin { priority: 1000 });
    assert!(!spec.directions.egress.closes);
    let written: Vec<_> = spec
        .directions
        .egress
        .rules
        .iter()
        .map(|rule| (rule.action, rule.origin.as_str()))
        .collect();
    assert_eq!(
        written,
        [
            (Action::Allow, "spec.egress[0] \"dns\""),
            (Action::Pass, "spec.egress[1]"),
            (Action::Deny, "spec.egress[2]"),
        ]
    );
    assert_eq!(spec.directions.egress.rules[2].peers, anywhere(&["0.0.0.0/0", "::/0"]));
    let baseline = self::spec("  {tier: Baseline, priority: 0, subject: {namespaces: {}}}\n");
    assert_eq!(baseline.tier, Tier::Baseline { priority: 0 });
    assert_eq!(baseline.directions.egress.rules, []);
}

#[test]
fn subjects_are_pods_by_their_namespaces_and_labels() {
    let web = labels("n", &[("app", "web")], &[("team", "a")]);
    let other_team = labels("m", &[("app", "web")], &[("team", "b")]);
    let other_app = labels("n", &[("app", "db")], &[("team", "a")]);
    for (subject, expected) in [
        ("namespaces: {}", [true, true, true]),
        ("namespaces: {matchLabels: {team: a}}", [true, false, true]),
        (
            "namespaces: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: NotIn, values: [m]}]}",
            [true, false, true],
        ),
        (
            "pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}",
            [true, true, false],
        ),
        ("pods: {podSelector: {}}", [true, true, true]),
        (
            "pods: {namespaceSelector: {matchLabels: {team: a}}, podSelector: {matchLabels: {app: web}}}",
            [true, false, false],
        ),
    ] {
        let spec = spec(&format!("  {{tier: Admin, priority: 1, subject: {{{subject}}}}}\n"));
        let selects = [&web, &other_team, &other_app].map(|labels| spec.subject.matches(labels));
        assert_eq!(selects, expected, "{subject}");
    }
}

#[test]
fn place_and_subject_are_required_and_checked() {
    for (fields, expected) in [
        ("priority: 1, subject: {namespaces: {}}", "missing-field spec 6"),
        ("tier: Admin, subject: {namespaces: {}}", "missing-field spec 6"),
        ("tier: Admin, priority: 1", "missing-field spec 6"),
        (
            "tier: admin, priority: 1, subject: {namespaces: {}}",
            "bad-value spec.tier 6",
        ),
        (
            "tier: Admin, priority: 1001, subject: {namespaces: {}}",
            "bad-value spec.priority 6",
        ),
        (
            "tier: Admin, priority: -1, subject: {namespaces: {}}",
            "bad-value spec.priority 6",
        ),
        (
            "tier: Admin, priority: '1', subject: {namespaces: {}}",
            "wrong-type spec.priority 6",
        ),
        ("tier: Admin, priority: 1, subject: {}", "missing-field spec.subject 6"),
        (
            "tier: Admin, priority: 1, subject: {pods: {}}",
            "missing-field spec.subject.pods 6",
        ),
        (
            "tier: Admin, priority: 1, subject: {pods: {podSelector: {}}, namespaces: {}}",
            "two-selectors spec.subject 6",
        ),
    ] {
        assert_eq!(findings(&format!("  {{{fields}}}\n")), [expected], "{fields}");
    }
    let text = HEAD.strip_suffix("spec:\n").unwrap();
    assert_eq!(validate(&parse(text).0[0]).1[0].code, "missing-field");
}

#[test]
fn peers_are_namespaces_pods_nodes_networks_and_names() {
    let here = labels("n", &[("app", "db")], &[("team", "a")]);
    let there = labels("m", &[("app", "db")], &[("team", "b")]);
    let both = |selector: LabelSelector| [&here, &there].map(|labels| selector.matches(labels));
    assert_eq!(both(pods("{namespaces: {}}")), [true, true]);
    assert_eq!(both(pods("{namespaces: {matchLabels: {team: a}}}")), [true, false]);
    assert_eq!(
        both(pods("{pods: {podSelector: {matchLabels: {app: db}}}}")),
        [true, true]
    );
    assert_eq!(
        both(pods(
            "{pods: {namespaceSelector: {matchLabels: {team: b}}, podSelector: {matchLabels: {app: db}}}}"
        )),
        [false, true]
    );
    let nodes =
        rule("to: [{nodes: {matchExpressions: [{key: node-role.kubernetes.io/control-plane, operator: Exists}]}}]");
    assert!(
        matches!(nodes.peers, PeerSelector::Objects(selectors) if matches!(selectors.as_slice(), [ObjectSelector::Nodes(_)]))
    );
    assert_eq!(
        rule("to: [{networks: [10.0.0.0/8]}, {networks: ['fd00::/8']}]").peers,
        anywhere(&["10.0.0.0/8", "fd00::/8"])
    );
    let mixed = rules("{action: Accept, to: [{networks: [10.0.0.0/8]}, {domainNames: [a.example]}]}");
    assert!(matches!(&mixed[0].peers, PeerSelector::Names(names) if names.len() == 1));
    assert_eq!(mixed[1].peers, anywhere(&["10.0.0.0/8"]));
    assert_eq!(mixed[0].origin, mixed[1].origin);
}

#[test]
fn rules_that_the_api_refuses_are_refused() {
    let many = |item: &str| vec![item; 26].join(", ");
    let names: Vec<_> = (0..26).map(|n| format!("a{n}.example")).collect();
    let rule = "spec.egress[0]";
    for (written, expected) in [
        ("{to: [{namespaces: {}}]}".to_owned(), format!("missing-field {rule} 7")),
        (
            "{action: Allow, to: [{namespaces: {}}]}".to_owned(),
            format!("bad-value {rule}.action 7"),
        ),
        ("{action: Deny}".to_owned(), format!("missing-field {rule} 7")),
        ("{action: Deny, to: []}".to_owned(), format!("empty-list {rule}.to 7")),
        (
            format!("{{action: Deny, to: [{}]}}", many("{namespaces: {}}")),
            format!("too-many {rule}.to 7"),
        ),
        (
            "{action: Deny, to: [{namespaces: {}, nodes: {}}]}".to_owned(),
            format!("two-selectors {rule}.to[0] 7"),
        ),
        (
            "{action: Deny, to: [{networks: []}]}".to_owned(),
            format!("empty-list {rule}.to[0].networks 7"),
        ),
        (
            "{action: Deny, to: [{networks: [10.0.0.1]}]}".to_owned(),
            format!("bad-cidr {rule}.to[0].networks[0] 7"),
        ),
        (
            "{action: Deny, to: [{networks: [10.0.0.0/8, 10.0.0.0/8]}]}".to_owned(),
            format!("duplicate {rule}.to[0].networks[1] 7"),
        ),
        (
            format!("{{action: Accept, to: [{{domainNames: [{}]}}]}}", names.join(", ")),
            format!("too-many {rule}.to[0].domainNames 7"),
        ),
        (
            format!(
                "{{action: Deny, name: {}, to: [{{namespaces: {{}}}}]}}",
                "x".repeat(101)
            ),
            format!("too-long {rule}.name 7"),
        ),
        (
            "{action: Deny, to: [{pods: {namespaceSelector: {}}}]}".to_owned(),
            format!("missing-field {rule}.to[0].pods 7"),
        ),
        (
            many("{action: Deny, to: [{namespaces: {}}]}"),
            "too-many spec.egress 6".to_owned(),
        ),
        (
            "{action: Deny, to: [{namespaces: {}}], ports: []}".to_owned(),
            format!("unknown-field {rule}.ports 7"),
        ),
    ] {
        let found = findings_in_rules(&written);
        assert_eq!(found, [expected], "{written}");
    }
}

#[test]
fn an_unknown_or_empty_entry_makes_its_rule_fail_closed() {
    for (entries, path) in [
        ("to: [{}]", "to[0]"),
        ("to: [{namespaces: {}}, {}]", "to[1]"),
        ("to: [{services: {}}]", "to[0].services"),
        ("to: [{namespaces: {}, sameLabels: [a]}]", "to[0].sameLabels"),
        ("to: [{namespaces: {}}], protocols: [{}]", "protocols[0]"),
        (
            "to: [{namespaces: {}}], protocols: [{icmp: {type: 8}}]",
            "protocols[0].icmp",
        ),
    ] {
        let text = |action: &str| format!("{{action: {action}, {entries}}}, {{action: Accept, to: [{{nodes: {{}}}}]}}");
        assert_eq!(
            findings_in_rules(&text("Accept")),
            [format!("not-enforced spec.egress[0].{path} 7")]
        );
        let accepting = rules(&text("Accept"));
        assert_eq!(accepting.len(), 1, "the rule matches nothing: {accepting:?}");
        assert_eq!(accepting[0].origin, "spec.egress[1]");
        for action in ["Deny", "Pass"] {
            let rules = rules(&text(action));
            assert_eq!(rules.len(), 2);
            assert_eq!(
                (rules[0].action, &rules[0].peers, &rules[0].ports),
                (Action::Deny, &anywhere(&["0.0.0.0/0", "::/0"]), &PortSet::All),
                "{action} {entries}"
            );
        }
    }
    let misspelt = read(&format!("{ADMIN}    {{action: Deny, to: [{{namespace: {{}}}}]}}]}}\n"));
    assert_eq!(misspelt.1[0].suggestion.as_deref(), Some("did you mean `namespaces`?"));
}

#[test]
fn rules_of_ingress_select_pods_and_are_in_their_order() {
    let ingress =
        |rules: &str| format!("  {{tier: Admin, priority: 1, subject: {{namespaces: {{}}}}, ingress: [{rules}]}}\n");
    let text = ingress(
        "{action: Deny, from: [{namespaces: {matchLabels: {team: a}}}, {pods: {podSelector: {}}}]}, \
         {name: web, action: Pass, from: [{namespaces: {}}], protocols: [{destinationNamedPort: web}, {tcp: {destinationPort: {number: 443}}}]}",
    );
    assert_eq!(findings(&text), [""; 0]);
    let spec = spec(&text);
    assert_eq!(spec.directions.egress.rules, []);
    assert!(!spec.directions.ingress.closes);
    let [deny, pass] = spec.directions.ingress.rules.as_slice() else {
        panic!("{spec:?}")
    };
    assert_eq!((deny.action, pass.action), (Action::Deny, Action::Pass));
    assert_eq!(pass.origin, "spec.ingress[1] \"web\"");
    assert_eq!(pass.named.len(), 1);
    let same = rules("{action: Deny, to: [{namespaces: {matchLabels: {team: a}}}, {pods: {podSelector: {}}}]}");
    assert_eq!((&deny.peers, &deny.ports), (&same[0].peers, &same[0].ports));
    assert_eq!(
        findings(&ingress("{action: Deny, from: []}")),
        ["empty-list spec.ingress[0].from 6"]
    );
}

#[test]
fn what_ingress_rules_cannot_select_makes_them_fail_closed() {
    for peer in [
        "{networks: [192.0.2.0/24]}",
        "{nodes: {}}",
        "{domainNames: [a.example]}",
        "{}",
    ] {
        let ingress = |action: &str| {
            format!(
                "  {{tier: Baseline, priority: 1, subject: {{namespaces: {{}}}}, ingress: [{{action: {action}, from: [{{namespaces: {{}}}}, {peer}]}}]}}\n"
            )
        };
        assert_eq!(spec(&ingress("Accept")).directions.ingress.rules, [], "{peer}");
        for action in ["Deny", "Pass"] {
            assert_eq!(findings(&ingress(action)).len(), 1, "{peer}");
            let rules = spec(&ingress(action)).directions.ingress.rules;
            assert_eq!(
                (rules[0].action, &rules[0].peers, &rules[0].ports),
                (Action::Deny, &anywhere(&["0.0.0.0/0", "::/0"]), &PortSet::All),
                "{action} {peer}"
            );
        }
    }
}
