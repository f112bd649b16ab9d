use ipnet::IpNet;
use proptest::prelude::*;

use crate::diagnostic::{Diagnostic, Severity};
use crate::document::{Document, parse};
use crate::endpoint;
use crate::labels::{LabelSelector, Labels};
use crate::peer_selector::{NamedPort, ObjectSelector, PeerSelector};
use crate::policy::{Policy, PolicyRule, PolicySpec, Tier};
use crate::ports::{PortRange, PortSet, Protocol};
use crate::validate::{StandIn, Validation, validate};
use crate::zone::Zone;

/// Five lines: the fields of `spec` that a test adds begin on line 6.
const HEAD: &str =
    "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: n}\n\nspec:\n";
const EGRESS: &str = "  podSelector: {}\n  policyTypes: [Egress]\n";

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

fn rule(rule: &str) -> PolicyRule {
    let mut spec = spec(&format!("{EGRESS}  egress:\n{rule}"));
    assert_eq!(spec.directions.egress.rules.len(), 1);
    spec.directions.egress.rules.remove(0)
}

/// `code path line` of each finding.
fn findings(fields: &str) -> Vec<String> {
    let (verdict, diagnostics) = read(fields);
    let refused = diagnostics.iter().any(|d| d.severity == Severity::Error);
    assert_eq!(verdict.accepted().is_none(), refused, "{diagnostics:?}");
    let shown = |d: &Diagnostic| format!("{} {} {}", d.code, d.path, d.position.map_or(0, |p| p.line));
    diagnostics.iter().map(shown).collect()
}

fn findings_in_rule(rule: &str) -> Vec<String> {
    findings(&format!("{EGRESS}  egress:\n{rule}"))
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

/// The only selector of Pods among the peers.
fn pods(peers: &str) -> LabelSelector {
    match rule(&format!("  - to:\n{peers}")).peers {
        PeerSelector::Objects(mut selectors) if selectors.len() == 1 => match selectors.remove(0) {
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
fn it_selects_pods_of_its_own_namespace() {
    let text = "  podSelector: {matchLabels: {role: db}}\n  policyTypes: [Egress]\n";
    assert_eq!(findings(text), none());
    let spec = spec(text);
    assert_eq!(spec.tier, Tier::Network);
    assert!(spec.subject.matches(&labels("n", &[("role", "db")], &[])));
    assert!(!spec.subject.matches(&labels("n", &[("role", "web")], &[])));
    assert!(!spec.subject.matches(&labels("other", &[("role", "db")], &[])));
    for every in [
        "  podSelector: {}\n  policyTypes: [Egress]\n",
        "  policyTypes: [Egress]\n",
    ] {
        let subject = self::spec(every).subject;
        assert!(subject.matches(&labels("n", &[], &[])) && !subject.matches(&labels("other", &[], &[])));
    }
}

#[test]
fn policy_types_say_what_is_governed_and_have_defaults() {
    // Egress, and ingress.
    let closes = |fields: &str| {
        let directions = spec(&format!("  podSelector: {{}}\n{fields}")).directions;
        (directions.egress.closes, directions.ingress.closes)
    };
    // Absent or empty: Ingress always, Egress if there are rules for it.
    assert_eq!(closes(""), (false, true));
    assert_eq!(closes("  policyTypes: []\n"), (false, true));
    assert_eq!(closes("  ingress: [{}]\n"), (false, true));
    assert_eq!(
        closes("  egress: []\n"),
        (false, true),
        "no rule, so only ingress is governed"
    );
    assert_eq!(closes("  egress: [{}]\n"), (true, true));
    assert_eq!(closes("  egress: [{to: [{podSelector: {}}]}]\n"), (true, true));
    // Present: exactly these.
    assert_eq!(closes("  policyTypes: [Egress]\n"), (true, false));
    assert_eq!(closes("  policyTypes: [Ingress, Egress]\n"), (true, true));
    assert_eq!(closes("  policyTypes: [Egress]\n  egress: []\n"), (true, false));
    assert_eq!(closes("  policyTypes: [Ingress]\n"), (false, true));
    assert_eq!(closes("  policyTypes: [Ingress]\n  egress: [{}]\n"), (false, true));
    assert_eq!(closes("  policyTypes: [Egress]\n  ingress: [{}]\n"), (true, false));
}

#[test]
fn rules_of_ingress_are_read_as_those_of_egress() {
    let peers = "{podSelector: {matchLabels: {a: b}}}, {namespaceSelector: {}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}";
    let ports = "{port: 80}, {port: 90, endPort: 99, protocol: UDP}, {port: web}";
    let directions = spec(&format!(
        "  policyTypes: [Ingress, Egress]\n  ingress: [{{from: [{peers}], ports: [{ports}]}}, {{}}]\n  egress: [{{to: [{peers}], ports: [{ports}]}}, {{}}]\n"
    ))
    .directions;
    let written = |rules: Vec<PolicyRule>| -> Vec<_> {
        let rules = rules.into_iter();
        rules
            .map(|rule| (rule.action, rule.peers, rule.ports, rule.named))
            .collect()
    };
    let origins: Vec<_> = directions
        .ingress
        .rules
        .iter()
        .map(|rule| rule.origin.clone())
        .collect();
    assert_eq!(origins, ["spec.ingress[0]", "spec.ingress[1]"]);
    let ingress = written(directions.ingress.rules);
    assert_eq!(ingress, written(directions.egress.rules));
    assert_eq!(
        ingress[1].1,
        anywhere(&["0.0.0.0/0", "::/0"]),
        "an empty rule allows everything"
    );
}

#[test]
fn rules_of_a_direction_that_is_not_governed_have_no_effect_and_that_is_said() {
    assert_eq!(
        findings("  podSelector: {}\n  policyTypes: [Ingress, Egress]\n"),
        none()
    );
    assert_eq!(findings("  podSelector: {}\n"), none());
    assert_eq!(
        findings("  podSelector: {}\n  ingress:\n  - from: [{}]\n"),
        ["missing-field spec.ingress[0].from[0] 8"]
    );
    assert_eq!(
        findings("  policyTypes: [Ingress]\n  egress: [{}]\n"),
        ["egress-not-governed spec.egress 7"]
    );
    assert_eq!(
        findings("  policyTypes: [Egress]\n  ingress: [{}]\n"),
        ["ingress-not-governed spec.ingress 7"]
    );
    assert_eq!(
        findings("  policyTypes: [Egress]\n  ingress:\n"),
        ["no-value spec.ingress 7"]
    );
    assert_eq!(
        findings("  policyTypes: [Ingress, Egress, Egress]\n"),
        ["too-many spec.policyTypes 6"]
    );
    assert_eq!(
        findings("  policyTypes: [egress]\n"),
        ["bad-value spec.policyTypes[0] 6"]
    );
}

#[test]
fn a_rule_without_peers_speaks_of_everything_and_without_ports_of_every_port() {
    for text in ["  - {}\n", "  - {to: [], ports: []}\n"] {
        let rule = rule(text);
        assert_eq!(
            (rule.peers, rule.ports),
            (anywhere(&["0.0.0.0/0", "::/0"]), PortSet::All),
            "{text}"
        );
        assert!(rule.dns.is_empty() && rule.named.is_empty());
    }
    let closed = spec(&format!("{EGRESS}  egress: []\n"));
    assert!(closed.directions.egress.closes && closed.directions.egress.rules.is_empty());
}

#[test]
fn ip_blocks_have_holes_and_mean_the_cluster_too() {
    assert_eq!(
        rule("  - to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.128.0.0/9]}}]\n").peers,
        anywhere(&["10.0.0.0/9"])
    );
    assert_eq!(
        rule("  - to: [{ipBlock: {cidr: '::/0'}}, {ipBlock: {cidr: 192.0.2.1/32}}]\n").peers,
        anywhere(&["::/0", "192.0.2.1/32"])
    );
    let to = "spec.egress[0].to[0].ipBlock";
    for (block, expected) in [
        ("cidr: 10.0.0.1", format!("bad-cidr {to}.cidr 9")),
        ("except: [10.0.0.0/8]", format!("missing-field {to} 9")),
        (
            "cidr: 10.0.0.0/8, except: [11.0.0.0/9]",
            format!("bad-except {to}.except[0] 9"),
        ),
        (
            "cidr: 10.0.0.0/8, except: [10.0.0.0/8]",
            format!("bad-except {to}.except 9"),
        ),
        (
            "cidr: 10.0.0.0/8, except: ['fd00::/8']",
            format!("bad-except {to}.except[0] 9"),
        ),
        ("cidr: 10.0.0.1/8", format!("host-bits {to}.cidr 9")),
    ] {
        assert_eq!(
            findings_in_rule(&format!("  - to: [{{ipBlock: {{{block}}}}}]\n")),
            [expected],
            "{block}"
        );
    }
}

#[test]
fn pods_are_selected_by_their_labels_and_by_those_of_their_namespaces() {
    let app = labels("n", &[("app", "db")], &[("team", "a")]);
    let elsewhere = labels("m", &[("app", "db")], &[("team", "a")]);
    let other_team = labels("m", &[("app", "db")], &[("team", "b")]);
    let other_app = labels("m", &[("app", "web")], &[("team", "a")]);
    let all = [&app, &elsewhere, &other_team, &other_app];
    for (peers, expected) in [
        (
            "    - podSelector: {matchLabels: {app: db}}\n",
            [true, false, false, false],
        ),
        ("    - podSelector: {}\n", [true, false, false, false]),
        ("    - namespaceSelector: {}\n", [true, true, true, true]),
        (
            "    - namespaceSelector: {matchLabels: {team: a}}\n",
            [true, true, false, true],
        ),
        (
            "    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: m}}\n      podSelector: {}\n",
            [false, true, true, true],
        ),
        (
            "    - namespaceSelector: {matchExpressions: [{key: team, operator: In, values: [a]}]}\n      podSelector: {matchLabels: {app: db}}\n",
            [true, true, false, false],
        ),
        (
            "    - namespaceSelector: {}\n      podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [db]}]}\n",
            [false, false, false, true],
        ),
    ] {
        let selector = pods(peers);
        assert_eq!(all.map(|labels| selector.matches(labels)), expected, "{peers}");
    }
}

#[test]
fn two_peers_are_either_and_one_peer_is_both() {
    let either =
        "  - to:\n    - namespaceSelector: {matchLabels: {team: a}}\n    - podSelector: {matchLabels: {app: db}}\n";
    assert!(matches!(rule(either).peers, PeerSelector::Objects(selectors) if selectors.len() == 2));
    let mixed = "  - to: [{ipBlock: {cidr: 192.0.2.0/24}}, {podSelector: {}}]\n";
    assert!(matches!(rule(mixed).peers, PeerSelector::Objects(selectors) if selectors.len() == 2));
}

#[test]
fn peers_that_kubernetes_refuses_are_refused() {
    let to = "spec.egress[0].to[0]";
    for (peer, expected) in [
        ("{}", format!("missing-field {to} 9")),
        (
            "{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}",
            format!("two-selectors {to} 9"),
        ),
        (
            "{ipBlock: {cidr: 10.0.0.0/8}, namespaceSelector: {}}",
            format!("two-selectors {to} 9"),
        ),
        (
            "{podSelector: {matchLabels: {'k8s:app': db}}}",
            format!("bad-selector {to}.podSelector.matchLabels.k8s:app 9"),
        ),
        (
            "{podSelector: {matchLabels: {app: 'a b'}}}",
            format!("bad-selector {to}.podSelector.matchLabels.app 9"),
        ),
        (
            "{podSelector: {matchExpressions: [{key: a, operator: In}]}}",
            format!("bad-selector {to}.podSelector.matchExpressions[0] 9"),
        ),
        ("{podSelectors: {}}", format!("unknown-field {to}.podSelectors 9")),
    ] {
        let found = findings_in_rule(&format!("  - to: [{peer}]\n"));
        assert!(found.contains(&expected), "{peer}: {found:?}");
    }
}

#[test]
fn ports_are_numbers_ranges_and_names_of_containers() {
    for (port, expected) in [
        ("port: 5978", range(Protocol::Tcp, 5978, 5978)),
        ("port: 53, protocol: UDP", range(Protocol::Udp, 53, 53)),
        ("port: 7, protocol: SCTP", range(Protocol::Sctp, 7, 7)),
        ("port: 32000, endPort: 32768", range(Protocol::Tcp, 32000, 32768)),
        ("port: 80, endPort: 80", range(Protocol::Tcp, 80, 80)),
        ("protocol: UDP", range(Protocol::Udp, 0, 65535)),
        ("", range(Protocol::Tcp, 0, 65535)),
    ] {
        let rule = rule(&format!("  - ports: [{{{port}}}]\n"));
        assert_eq!(rule.ports, expected, "{port}");
        assert_eq!(rule.named, []);
    }
    let named = rule("  - to: [{podSelector: {}}]\n    ports: [{port: web-1, protocol: UDP}, {port: 80}]\n");
    let web = NamedPort {
        name: "web-1".into(),
        protocols: vec![Protocol::Udp],
    };
    assert_eq!((named.named, named.ports), (vec![web], range(Protocol::Tcp, 80, 80)));
}

#[test]
fn ports_that_kubernetes_refuses_are_refused() {
    let port = "spec.egress[0].ports[0]";
    for (written, expected) in [
        ("port: 0", format!("bad-port {port}.port 9")),
        ("port: 65536", format!("bad-port {port}.port 9")),
        ("port: -1", format!("bad-port {port}.port 9")),
        ("port: '80'", format!("bad-port {port}.port 9")),
        ("port: Web", format!("bad-port {port}.port 9")),
        ("port: sixteen-letters-x", format!("bad-port {port}.port 9")),
        ("port: 90, endPort: 80", format!("bad-port {port}.endPort 9")),
        ("port: 90, endPort: 70000", format!("bad-port {port}.endPort 9")),
        ("port: web, endPort: 80", format!("bad-port {port}.endPort 9")),
        ("endPort: 80", format!("bad-port {port}.endPort 9")),
        ("port: 80, protocol: ICMP", format!("bad-protocol {port}.protocol 9")),
        ("port: 80, protocol: tcp", format!("bad-protocol {port}.protocol 9")),
        ("port: 8.5", format!("wrong-type {port}.port 9")),
    ] {
        assert_eq!(
            findings_in_rule(&format!("  - ports: [{{{written}}}]\n")),
            [expected],
            "{written}"
        );
    }
}

#[test]
fn a_policy_without_namespace_is_in_default() {
    let text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec: {podSelector: {}, policyTypes: [Egress]}\n";
    let policy = validate(&parse(text).0[0]).0.accepted().unwrap();
    assert_eq!(policy.id.to_string(), "default/p");
    assert!(policy.specs[0].subject.matches(&labels("default", &[], &[])));
}

#[test]
fn a_policy_without_spec_closes_ingress_of_its_namespace_as_the_api_server_fills_it_in() {
    let text = HEAD.strip_suffix("spec:\n").unwrap();
    let (verdict, diagnostics) = validate(&parse(text).0[0]);
    assert_eq!(verdict.accepted().unwrap().specs, [spec("  podSelector: {}\n")]);
    assert_eq!(diagnostics[0].code, "no-spec");
}

fn stand_in(fields: &str) -> StandIn {
    match read(fields).0 {
        Validation::Refused(stand_in) => stand_in,
        Validation::Accepted(policy) => panic!("{policy:?}"),
    }
}

/// `code path` of what is said, and which directions are closed.
fn stands_in(fields: &str) -> (Vec<String>, String) {
    let StandIn { policy, findings } = stand_in(fields);
    let said = findings
        .iter()
        .map(|finding| format!("{} {}", finding.code, finding.path));
    let specs = policy.map(|policy| policy.specs).unwrap_or_default();
    assert!(specs.iter().all(|spec| spec.rules().next().is_none()));
    let closed = specs.iter().flat_map(|spec| spec.directions.iter());
    let closed: Vec<&str> = closed
        .filter(|(_, spec)| spec.closes)
        .map(|(direction, _)| direction.as_str())
        .collect();
    (said.collect(), closed.join(" "))
}

#[test]
fn a_refused_policy_closes_whom_it_selects_in_the_directions_that_it_may_govern() {
    let bad = "  egress: [{to: [{ipBlock: {cidr: nowhere}}]}]\n";
    let closed = |place: &str, directions: &str| {
        let said = vec![format!("closed-until-mended {place}")];
        (said, directions.to_owned())
    };
    let selector = "  podSelector: {matchLabels: {app: db}}\n";
    assert_eq!(
        stands_in(&format!("{selector}{bad}")),
        closed("spec.podSelector", "egress ingress")
    );
    let subject = stand_in(&format!("{selector}{bad}"))
        .policy
        .unwrap()
        .specs
        .remove(0)
        .subject;
    assert!(subject.matches(&labels("n", &[("app", "db")], &[])) && !subject.matches(&labels("n", &[], &[])));
    assert_eq!(
        stands_in(bad),
        closed("spec", "egress ingress"),
        "every Pod of the namespace"
    );
    for (fields, directions) in [
        ("  policyTypes: [Egres]\n", "egress"),
        ("  policyTypes: Egress\n", "egress"),
        ("  policyTypes: [Egress]\n  ingress: 7\n", "egress"),
        ("  policyTypes: [Ingress]\n  egress: 7\n", "ingress"),
        ("  policyTypes: [ingress]\n", "ingress"),
        ("  policyTypes: [both]\n", "egress ingress"),
        ("  policyTypes: [7]\n", "egress ingress"),
        // Without `policyTypes` it governs ingress, whatever else it may have been meant to.
        ("  egresss: []\n", "egress ingress"),
        ("  policytypes: [Egress]\n", "egress ingress"),
        ("  egress: 7\n", "egress ingress"),
        ("  something: 1\n", "egress ingress"),
        ("  ingress: [{from: [{}]}]\n", "ingress"),
        ("  ingres: []\n", "ingress"),
    ] {
        assert_eq!(
            stands_in(&format!("{selector}{fields}")),
            closed("spec.podSelector", directions),
            "{fields}"
        );
    }
}

#[test]
fn a_selector_in_doubt_closes_nobody_and_that_is_said() {
    let bad = "  egress: [{to: [{ipBlock: {cidr: nowhere}}]}]\n";
    for selector in [
        "  podselector: {}\n",
        "  podSelector: []\n",
        "  podSelector: {matchLabel: {app: db}}\n",
        "  podSelector: {matchLabels: {app: 1}}\n",
        "  selectWhomever: {}\n",
    ] {
        let (said, closed) = stands_in(&format!("{selector}{bad}"));
        assert_eq!(
            (said, closed),
            (vec!["cannot-close spec".to_owned()], String::new()),
            "{selector}"
        );
    }
}

#[test]
fn annotations_are_read() {
    let text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, annotations: {namegate.io/mode: audit}}\nspec: {policyTypes: [Egress]}\n";
    assert!(validate(&parse(text).0[0]).0.accepted().unwrap().extensions.audit);
}

/// Any JSON that a reader of this kind may meet.
fn json() -> impl Strategy<Value = serde_json::Value> {
    crate::arbitrary_json::json(
        &[
            "podSelector",
            "namespaceSelector",
            "matchLabels",
            "matchExpressions",
            "key",
            "operator",
            "values",
            "policyTypes",
            "egress",
            "ingress",
            "to",
            "from",
            "ipBlock",
            "cidr",
            "except",
            "ports",
            "port",
            "endPort",
            "protocol",
            "x",
        ],
        &[
            "",
            "*",
            "10.0.0.0/8",
            "::/0",
            "53",
            "web",
            "TCP",
            "In",
            "Egress",
            "\u{0}",
            "ä",
        ],
    )
}

proptest! {
    #[test]
    fn validation_never_panics_and_refuses_exactly_by_errors(spec in json(), rule in json()) {
        for spec in [spec, serde_json::json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [rule]})] {
            let document = Document::from_value(serde_json::json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p"}, "spec": spec,
            })).unwrap();
            let (verdict, diagnostics) = validate(&document);
            let refused = diagnostics.iter().any(|d| d.severity == Severity::Error);
            prop_assert_eq!(matches!(&verdict, Validation::Refused(_)), refused);
        }
    }
}

#[test]
fn a_field_without_a_value_is_refused_where_it_would_open_more() {
    for (rule, path) in [
        ("  - to:\n", "to"),
        ("  - to:\n    ports: [{port: 443}]\n", "to"),
        ("  - ports:\n    to: [{podSelector: {}}]\n", "ports"),
        (
            "  - to: [{namespaceSelector: {}, podSelector: }]\n",
            "to[0].podSelector",
        ),
        (
            "  - to: [{ipBlock: {cidr: 10.0.0.0/8, except: }}]\n",
            "to[0].ipBlock.except",
        ),
        ("  - ports: [{protocol: TCP, port: }]\n", "ports[0].port"),
    ] {
        assert_eq!(
            findings_in_rule(rule),
            [format!("no-value spec.egress[0].{path} 9")],
            "{rule}"
        );
    }
    // Without `policyTypes` no rules mean that egress is open; where it is listed, that nothing is
    // let through, as `[]`.
    assert_eq!(findings("  podSelector: {}\n  egress:\n"), ["no-value spec.egress 7"]);
    let closed = spec(&format!("{EGRESS}  egress:\n"));
    assert!(closed.directions.egress.closes && closed.directions.egress.rules.is_empty());
}
