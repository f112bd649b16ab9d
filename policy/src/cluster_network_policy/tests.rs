use ipnet::IpNet;
use proptest::prelude::*;

use crate::diagnostic::{Diagnostic, Severity};
use crate::document::{Document, parse};
use crate::endpoint;
use crate::labels::{LabelSelector, Labels};
use crate::name::Name;
use crate::policy::{Action, EgressRule, NamedPort, ObjectSelector, Peers, Policy, Spec, Tier, Zone};
use crate::ports::{PortRange, PortSet, Protocol};
use crate::validate::{StandIn, Verdict, validate};

/// Five lines: the fields of `spec` that a test adds begin on line 6.
const HEAD: &str =
    "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: p}\n\nspec:\n";
/// And with a place and a subject on line 7.
const ADMIN: &str = "  {tier: Admin, priority: 10, subject: {namespaces: {}}, egress: [\n";
const BASELINE: &str = "  {tier: Baseline, priority: 10, subject: {namespaces: {}}, egress: [\n";

fn read(fields: &str) -> (Verdict, Vec<Diagnostic>) {
    let (documents, errors) = parse(&format!("{HEAD}{fields}"));
    assert_eq!(errors, []);
    validate(&documents[0])
}

fn policy(fields: &str) -> Policy {
    let (verdict, diagnostics) = read(fields);
    verdict.accepted().unwrap_or_else(|| panic!("{diagnostics:?}"))
}

fn spec(fields: &str) -> Spec {
    policy(fields).specs.remove(0)
}

/// The rules of a policy in tier Admin.
fn rules(rules: &str) -> Vec<EgressRule> {
    spec(&format!("{ADMIN}    {rules}]}}\n")).rules
}

fn rule(rule: &str) -> EgressRule {
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
        Peers::Objects(mut selectors) => match selectors.remove(0) {
            ObjectSelector::Pods(selector) => selector,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

fn anywhere(prefixes: &[&str]) -> Peers {
    let prefix = |text: &&str| (Zone::Anywhere, text.parse::<IpNet>().unwrap());
    Peers::Prefixes(prefixes.iter().map(prefix).collect())
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
    assert!(!spec.closes_egress);
    let written: Vec<_> = spec
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
    assert_eq!(spec.rules[2].peers, anywhere(&["0.0.0.0/0", "::/0"]));
    let baseline = self::spec("  {tier: Baseline, priority: 0, subject: {namespaces: {}}}\n");
    assert_eq!(baseline.tier, Tier::Baseline { priority: 0 });
    assert_eq!(baseline.rules, []);
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
        ("priority: 1, subject: {namespaces: {}}", "missing-field spec 5"),
        ("tier: Admin, subject: {namespaces: {}}", "missing-field spec 5"),
        ("tier: Admin, priority: 1", "missing-field spec 5"),
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
        matches!(nodes.peers, Peers::Objects(selectors) if matches!(selectors.as_slice(), [ObjectSelector::Nodes(_)]))
    );
    assert_eq!(
        rule("to: [{networks: [10.0.0.0/8]}, {networks: ['fd00::/8']}]").peers,
        anywhere(&["10.0.0.0/8", "fd00::/8"])
    );
    let mixed = rules("{action: Accept, to: [{networks: [10.0.0.0/8]}, {domainNames: [a.example]}]}");
    assert!(matches!(&mixed[0].peers, Peers::Names(names) if names.len() == 1));
    assert_eq!(mixed[1].peers, anywhere(&["10.0.0.0/8"]));
    assert_eq!(mixed[0].origin, mixed[1].origin);
}

#[test]
fn a_star_is_one_or_more_whole_labels_and_never_the_apex() {
    let Peers::Names(names) = rule("to: [{domainNames: ['*.kubernetes.io', Blog.Example.com., _x.a_b.example]}]").peers
    else {
        panic!()
    };
    let matches = |text: &str| {
        let name = Name::parse(text).unwrap();
        names.iter().any(|pattern| pattern.matches(&name))
    };
    for name in [
        "www.kubernetes.io",
        "latest.blog.kubernetes.io",
        "blog.example.com",
        "_x.a_b.example",
    ] {
        assert!(matches(name), "{name}");
    }
    for name in [
        "kubernetes.io",
        "my-kubernetes.io",
        "wikipedia.org",
        "www.blog.example.com",
        "example.com",
    ] {
        assert!(!matches(name), "{name}");
    }
}

#[test]
fn other_names_are_refused() {
    for name in [
        "'*'",
        "'**'",
        "'*.'",
        "'*.com'",
        "com",
        "'**.example.com'",
        "'a.*.example.com'",
        "'*example.com'",
        "'a*.example.com'",
        "''",
        "'.'",
        "a..example",
        "-a.example",
        "a-.example",
        "'a b.example'",
        "'ä.example'",
        "a.example..",
        "https://a.example",
    ] {
        let found = findings_in_rules(&format!("{{action: Accept, to: [{{domainNames: [{name}]}}]}}"));
        assert_eq!(found, ["bad-name spec.egress[0].to[0].domainNames[0] 7"], "{name}");
    }
}

#[test]
fn names_stand_in_accept_rules_of_tier_admin_only() {
    let names = "to: [{domainNames: [a.example, b.example]}]";
    let path = "spec.egress[0].to[0].domainNames";
    for action in ["Deny", "Pass"] {
        assert_eq!(
            findings_in_rules(&format!("{{action: {action}, {names}}}")),
            [format!("domain-names {path} 7")]
        );
    }
    assert_eq!(
        findings(&format!("{BASELINE}    {{action: Accept, {names}}}]}}\n")),
        [format!("domain-names {path} 7")]
    );
    assert_eq!(findings_in_rules(&format!("{{action: Accept, {names}}}")), none());
}

#[test]
fn protocols_are_ports_ranges_and_names_of_containers() {
    let ports = |protocols: &str| rule(&format!("to: [{{namespaces: {{}}}}], protocols: [{protocols}]")).ports;
    assert_eq!(rule("to: [{namespaces: {}}]").ports, PortSet::All);
    assert_eq!(
        ports("{tcp: {destinationPort: {number: 443}}}"),
        range(Protocol::Tcp, 443, 443)
    );
    assert_eq!(
        ports("{udp: {destinationPort: {number: 53}}}"),
        range(Protocol::Udp, 53, 53)
    );
    assert_eq!(
        ports("{sctp: {destinationPort: {range: {start: 1, end: 65535}}}}"),
        range(Protocol::Sctp, 1, 65535)
    );
    let named = rule(
        "to: [{namespaces: {}}], protocols: [{destinationNamedPort: web}, {tcp: {destinationPort: {number: 80}}}]",
    );
    let web = NamedPort {
        name: "web".into(),
        protocols: Protocol::ANY.to_vec(),
    };
    assert_eq!((named.named, named.ports), (vec![web], range(Protocol::Tcp, 80, 80)));
}

#[test]
fn protocols_that_the_api_refuses_are_refused() {
    let entry = "spec.egress[0].protocols[0]";
    for (written, expected) in [
        ("{tcp: {}}", format!("missing-field {entry}.tcp 7")),
        (
            "{tcp: {destinationPort: {}}}",
            format!("missing-field {entry}.tcp.destinationPort 7"),
        ),
        (
            "{tcp: {destinationPort: {number: 0}}}",
            format!("bad-port {entry}.tcp.destinationPort.number 7"),
        ),
        (
            "{tcp: {destinationPort: {number: 65536}}}",
            format!("bad-port {entry}.tcp.destinationPort.number 7"),
        ),
        (
            "{tcp: {destinationPort: {number: '80'}}}",
            format!("wrong-type {entry}.tcp.destinationPort.number 7"),
        ),
        (
            "{tcp: {destinationPort: {range: {start: 80, end: 80}}}}",
            format!("bad-port {entry}.tcp.destinationPort.range 7"),
        ),
        (
            "{tcp: {destinationPort: {range: {start: 80}}}}",
            format!("missing-field {entry}.tcp.destinationPort.range 7"),
        ),
        (
            "{tcp: {destinationPort: {number: 80, range: {start: 1, end: 2}}}}",
            format!("two-selectors {entry}.tcp.destinationPort 7"),
        ),
        ("{tcp: {port: 80}}", format!("unknown-field {entry}.tcp.port 7")),
        (
            "{tcp: {destinationPort: {number: 80}}, udp: {destinationPort: {number: 80}}}",
            format!("two-selectors {entry} 7"),
        ),
        (
            "{destinationNamedPort: Web}",
            format!("bad-port {entry}.destinationNamedPort 7"),
        ),
        ("7", format!("wrong-type {entry} 7")),
    ] {
        let found = findings_in_rules(&format!(
            "{{action: Accept, to: [{{namespaces: {{}}}}], protocols: [{written}]}}"
        ));
        assert!(found.contains(&expected), "{written}: {found:?}");
    }
    assert_eq!(
        findings_in_rules("{action: Accept, to: [{namespaces: {}}], protocols: []}"),
        ["empty-list spec.egress[0].protocols 7"]
    );
}

#[test]
fn named_ports_are_for_pods_only() {
    for (peer, path) in [
        ("{networks: [10.0.0.0/8]}", "networks"),
        ("{nodes: {}}", "nodes"),
        ("{domainNames: [a.example]}", "domainNames"),
    ] {
        let rule = format!(
            "{{action: Accept, to: [{{namespaces: {{}}}}, {peer}], protocols: [{{destinationNamedPort: web}}]}}"
        );
        assert_eq!(
            findings_in_rules(&rule),
            [format!("named-port spec.egress[0].to[1].{path} 7")]
        );
    }
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
fn ingress_is_reported_and_has_no_effect() {
    let text = "  {tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}\n";
    assert_eq!(findings(text), ["not-enforced spec.ingress 6"]);
    assert_eq!(spec(text).rules, []);
    let bad = "  {tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: []}]}\n";
    assert_eq!(
        findings(bad),
        ["not-enforced spec.ingress 6", "empty-list spec.ingress[0].from 6"]
    );
}

fn stand_in(fields: &str) -> StandIn {
    match read(fields).0 {
        Verdict::Refused(stand_in) => stand_in,
        Verdict::Accepted(policy) => panic!("{policy:?}"),
    }
}

fn said(stand_in: &StandIn) -> Vec<String> {
    let findings = stand_in.findings.iter();
    findings
        .map(|finding| format!("{} {}", finding.code, finding.path))
        .collect()
}

#[test]
fn a_refused_policy_denies_everything_in_its_place() {
    let bad = "[{action: Accept, to: [{nodes: {}}]}, {action: Deny, to: [{networks: [nowhere]}]}]";
    for (place, expected) in [
        ("tier: Admin, priority: 7", Tier::Admin { priority: 7 }),
        ("tier: Baseline, priority: 7", Tier::Baseline { priority: 7 }),
        ("tier: Admin, priority: many", Tier::Admin { priority: 0 }),
        ("tier: Strict, priority: 7", Tier::Admin { priority: 7 }),
    ] {
        let stand_in = stand_in(&format!(
            "  {{{place}, subject: {{namespaces: {{matchLabels: {{team: a}}}}}}, egress: {bad}}}\n"
        ));
        assert_eq!(said(&stand_in), ["closed-until-mended spec.subject"]);
        let spec = stand_in.policy.unwrap().specs.remove(0);
        assert_eq!((spec.tier, spec.closes_egress), (expected, false));
        assert!(
            spec.subject.matches(&labels("n", &[], &[("team", "a")])) && !spec.subject.matches(&labels("n", &[], &[]))
        );
        let [rule] = spec.rules.as_slice() else {
            panic!("{spec:?}")
        };
        assert_eq!((rule.action, &rule.ports), (Action::Deny, &PortSet::All));
        assert_eq!(rule.peers, anywhere(&["0.0.0.0/0", "::/0"]));
    }
}

#[test]
fn a_refused_policy_that_only_accepts_closes_nothing() {
    let head = "  {tier: Admin, priority: 1, subject: {namespaces: {}}";
    for egress in [
        "egress: [{action: Accept, to: [{networks: [nowhere]}]}]",
        "egress: [{action: Allow, to: [{namespaces: {}}]}]",
        "ingress: 7",
        "ingres: []",
    ] {
        assert_eq!(
            stand_in(&format!("{head}, {egress}}}\n")),
            StandIn::default(),
            "{egress}"
        );
    }
    for egress in [
        "egress: 7",
        "egress: [{to: [{namespaces: {}}]}]",
        "egress: [{action: Pass, to: []}]",
        "eggress: []",
        "something: 1",
    ] {
        assert!(stand_in(&format!("{head}, {egress}}}\n")).policy.is_some(), "{egress}");
    }
}

#[test]
fn a_subject_in_doubt_closes_nobody_and_that_is_said() {
    for subject in [
        "{}",
        "7",
        "{namespace: {}}",
        "{namespaces: {matchLabel: {a: b}}}",
        "{pods: {}}",
    ] {
        let text = format!(
            "  {{tier: Admin, priority: 1, subject: {subject}, egress: [{{action: Deny, to: [{{namespaces: {{}}}}]}}]}}\n"
        );
        let stand_in = stand_in(&text);
        assert_eq!(
            (said(&stand_in), stand_in.policy),
            (vec!["cannot-close spec".to_owned()], None),
            "{subject}"
        );
    }
}

#[test]
fn a_refused_policy_in_mode_audit_stays_an_audited_one() {
    let text = "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: p, annotations: {namegate.io/mode: audit}}\nspec: {tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Deny, to: []}]}\n";
    match validate(&parse(text).0[0]).0 {
        Verdict::Refused(stand_in) => assert!(stand_in.policy.unwrap().extensions.audit),
        Verdict::Accepted(policy) => panic!("{policy:?}"),
    }
}

/// Any JSON under field names that mean something here, so that every reader meets every type.
fn json() -> impl Strategy<Value = serde_json::Value> {
    let names = [
        "tier",
        "priority",
        "subject",
        "namespaces",
        "pods",
        "namespaceSelector",
        "podSelector",
        "matchLabels",
        "matchExpressions",
        "key",
        "operator",
        "values",
        "egress",
        "ingress",
        "to",
        "from",
        "action",
        "name",
        "nodes",
        "networks",
        "domainNames",
        "protocols",
        "tcp",
        "udp",
        "destinationPort",
        "number",
        "range",
        "start",
        "end",
        "destinationNamedPort",
        "x",
    ];
    let texts = [
        "",
        "*",
        "*.a.example",
        "10.0.0.0/8",
        "web",
        "Accept",
        "Deny",
        "Admin",
        "In",
        "\u{0}",
        "ä",
    ];
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        prop::sample::select(texts.to_vec()).prop_map(Into::into),
    ];
    leaf.prop_recursive(8, 64, 4, move |inner| {
        let fields = prop::collection::btree_map(prop::sample::select(names.to_vec()), inner.clone(), 0..5);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Into::into),
            fields.prop_map(|fields| serde_json::to_value(fields).unwrap()),
        ]
    })
}

proptest! {
    #[test]
    fn validation_never_panics_and_refuses_exactly_by_errors(spec in json(), peers in json(), protocols in json()) {
        let rule = serde_json::json!({"action": "Deny", "to": [peers.clone()], "protocols": [protocols.clone()]});
        let whole = serde_json::json!({"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "egress": [rule]});
        for spec in [spec, whole] {
            let document = Document::from_value(serde_json::json!({
                "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": {"name": "p"}, "spec": spec,
            })).unwrap();
            let (verdict, diagnostics) = validate(&document);
            let refused = diagnostics.iter().any(|d| d.severity == Severity::Error);
            prop_assert_eq!(matches!(&verdict, Verdict::Refused(_)), refused);
        }
    }
}
