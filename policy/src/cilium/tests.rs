use ipnet::IpNet;
use proptest::prelude::*;

use super::*;
use crate::document::parse;
use crate::policy::{DnsRule, EgressRule, Peers, Spec, Zone};
use crate::ports::{PortRange, PortSet, Protocol};

/// Six lines: the `spec` fields that a test adds begin on line 7.
const HEAD: &str = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata:\n  name: p\n  namespace: n\nspec:\n";
/// And with a selector they begin on line 8.
const SELECTOR: &str = "  endpointSelector: {}\n";

fn read(text: &str) -> (Option<Policy>, Vec<Diagnostic>) {
    let (documents, errors) = parse(text);
    assert_eq!(errors, []);
    validate(&documents[0])
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

fn spec(fields: &str) -> Spec {
    let (policy, diagnostics) = read(&format!("{HEAD}{SELECTOR}{fields}"));
    policy.unwrap_or_else(|| panic!("{diagnostics:?}")).specs.remove(0)
}

fn rule(rule: &str) -> EgressRule {
    spec(&format!("  egress:\n{rule}")).allow.remove(0)
}

fn denial(rule: &str) -> EgressRule {
    spec(&format!("  egressDeny:\n{rule}")).deny.remove(0)
}

fn prefixes(zone: Zone, prefixes: &[&str]) -> Peers {
    Peers::Prefixes(
        prefixes
            .iter()
            .map(|prefix| (zone, prefix.parse::<IpNet>().unwrap()))
            .collect(),
    )
}

fn everything(zone: Zone) -> Peers {
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
    assert_eq!(findings(&text), ["not-enforced spec.egress[0].toEndpoints 11"]);
    let policy = read(&text).0.unwrap();
    let [spec] = policy.specs.as_slice() else {
        panic!("{policy:?}")
    };
    assert!(spec.closes_egress);
    let [dns, names] = spec.allow.as_slice() else {
        panic!("{spec:?}")
    };
    assert_eq!(dns.peers, Peers::Unresolved);
    assert!(dns.ports.is_empty(), "lookups are intercepted, the port is not opened");
    let [DnsRule { port: 53, patterns }] = dns.dns.as_slice() else {
        panic!("{dns:?}")
    };
    assert_eq!(patterns.len(), 2);
    assert!(matches!(&names.peers, Peers::Names(patterns) if patterns.len() == 2));
    assert_eq!(names.ports, PortSet::Ranges(vec![range(Protocol::Tcp, 443, 443)]));
    assert_eq!(names.origin, "spec.egress[1]");
}

#[test]
fn a_namespaced_policy_selects_in_its_own_namespace_only() {
    let labels = |namespace: &str| crate::labels::Labels::from([(keys::NAMESPACE.to_owned(), namespace.to_owned())]);
    use crate::endpoint::keys;
    let own = spec("").subject;
    assert!(own.matches(&labels("n")) && !own.matches(&labels("other")));

    let foreign =
        format!("{HEAD}  endpointSelector:\n    matchLabels:\n      k8s:io.kubernetes.pod.namespace: other\n");
    assert_eq!(findings(&foreign), ["foreign-namespace spec.endpointSelector 7"]);
    assert_eq!(read(&foreign).0.unwrap().specs[0].subject, own);

    let nameless =
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p}\nspec: {endpointSelector: {}}\n";
    assert_eq!(read(nameless).0.unwrap().id.namespace, "default");

    let clusterwide = "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: p, namespace: x}\nspec: {endpointSelector: {}}\n";
    let policy = read(clusterwide).0.unwrap();
    assert_eq!(policy.id.namespace, "");
    assert!(policy.specs[0].subject.matches(&labels("any")));
}

#[test]
fn egress_is_closed_by_rules_and_by_nothing_else() {
    for (fields, closes) in [
        ("", false),
        ("  ingress: [{}]\n", false),
        ("  egress: []\n", false),
        ("  egress:\n", false),
        ("  egress: [{}]\n", true),
        ("  egressDeny: [{}]\n", true),
        ("  egress: [{}]\n  enableDefaultDeny: {egress: false}\n", false),
        ("  egress: [{}]\n  enableDefaultDeny: {ingress: false}\n", true),
        ("  enableDefaultDeny: {egress: true}\n", true),
    ] {
        let spec = spec(fields);
        assert_eq!(spec.closes_egress, closes, "{fields}");
        assert!(spec.allow.is_empty() && spec.deny.is_empty(), "{fields}");
    }
}

#[test]
fn spec_and_specs_add_up_and_one_must_stand() {
    let text = format!(
        "{HEAD}  endpointSelector: {{}}\nspecs:\n- endpointSelector: {{}}\n  egress:\n  - toCIDR: [192.0.2.1]\n"
    );
    let policy = read(&text).0.unwrap();
    assert_eq!(policy.specs.len(), 2);
    assert_eq!(policy.specs[1].allow[0].origin, "specs[0].egress[0]");
    let neither = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p}\n";
    assert_eq!(findings(neither), ["missing-field  1"]);
}

#[test]
fn subjects_that_cannot_be_told_are_refused() {
    assert_eq!(findings(&format!("{HEAD}  egress: [{{}}]\n")), ["missing-field spec 6"]);
    assert_eq!(
        findings(&format!("{HEAD}  nodeSelector: {{}}\n")),
        ["node-selector spec.nodeSelector 7"]
    );
    assert_eq!(
        findings(&format!(
            "{HEAD}  endpointSelector:\n    matchLabels:\n      container:a: b\n    matchExpressions:\n    - key: a\n      operator: Is\n    - key: b\n      operator: In\n"
        )),
        [
            "bad-selector spec.endpointSelector.matchLabels.container:a 9",
            "bad-selector spec.endpointSelector.matchExpressions[0] 11",
            "bad-selector spec.endpointSelector.matchExpressions[1] 13",
        ]
    );
    assert_eq!(
        findings(&format!(
            "{HEAD}  endpointSelector:\n    matchExpressions:\n    - key: a\n"
        )),
        ["missing-field spec.endpointSelector.matchExpressions[0] 9"]
    );
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
            "not-enforced spec.ingress 19",
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
fn two_kinds_of_destinations_in_one_rule_are_refused() {
    let found = findings_in_egress("  - toFQDNs: [{matchName: a.example}]\n    toCIDR: [192.0.2.1]\n");
    assert_eq!(found, ["two-selectors spec.egress[0] 9"]);
}

#[test]
fn rules_without_destinations_speak_of_any_and_empty_lists_of_none() {
    let port = "toPorts: [{ports: [{port: '443'}]}]";
    assert_eq!(rule(&format!("  - {port}\n")).peers, everything(Zone::Anywhere));
    for kind in [
        "toFQDNs",
        "toCIDR",
        "toCIDRSet",
        "toEndpoints",
        "toEntities",
        "toServices",
        "toNodes",
    ] {
        assert_eq!(
            rule(&format!("  - {kind}: []\n    {port}\n")).peers,
            Peers::Prefixes(vec![]),
            "{kind}"
        );
    }
    let beside = rule("  - toEndpoints: []\n    toCIDR: [192.0.2.1]\n");
    assert_eq!(beside.peers, prefixes(Zone::World, &["192.0.2.1/32"]));
}

#[test]
fn names_that_are_none_are_refused_with_the_reason() {
    let found = findings_in_egress(
        "  - toFQDNs:\n    - matchName: '*.example.com'\n    - matchPattern: 'a..b'\n    - matchName: ''\n    - matchName: a.example\n      matchPattern: b.example\n    - {}\n",
    );
    assert_eq!(
        found,
        [
            "bad-name spec.egress[0].toFQDNs[0].matchName 10",
            "bad-pattern spec.egress[0].toFQDNs[1].matchPattern 11",
            "bad-name spec.egress[0].toFQDNs[2].matchName 12",
            "name-and-pattern spec.egress[0].toFQDNs[3] 13",
        ]
    );
    assert_eq!(rule("  - toFQDNs: [{}]\n").peers, Peers::Names(vec![]));
}

#[test]
fn cidrs_speak_of_the_world_and_exceptions_are_taken_out() {
    assert_eq!(
        rule("  - toCIDR: [192.0.2.1, '2001:db8::/32', 10.1.2.3/8]\n").peers,
        prefixes(Zone::World, &["192.0.2.1/32", "2001:db8::/32", "10.0.0.0/8"])
    );
    assert_eq!(
        rule("  - toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.64.0.0/10, 10.65.0.0/16]}]\n").peers,
        prefixes(Zone::World, &["10.0.0.0/10", "10.128.0.0/9"])
    );
    let found = findings_in_egress(
        "  - toCIDR: [10.1.2.3/8]\n  - toCIDR: [10.0.0.0/33]\n  - toCIDRSet:\n    - cidr: 10.0.0.1\n    - cidr: 10.0.0.0/8\n      except: [11.0.0.0/16]\n    - except: []\n    - cidrGroupRef: g\n",
    );
    assert_eq!(
        found,
        [
            "host-bits spec.egress[0].toCIDR[0] 9",
            "bad-cidr spec.egress[1].toCIDR[0] 10",
            "bad-cidr spec.egress[2].toCIDRSet[0].cidr 12",
            "bad-except spec.egress[2].toCIDRSet[1].except[0] 14",
            "bad-cidr spec.egress[2].toCIDRSet[2] 15",
            "not-enforced spec.egress[2].toCIDRSet[3].cidrGroupRef 16",
        ]
    );
}

#[test]
fn entities_are_zones() {
    for (entity, peers) in [
        ("world", everything(Zone::World)),
        ("world-ipv4", prefixes(Zone::World, &["0.0.0.0/0"])),
        ("world-ipv6", prefixes(Zone::World, &["::/0"])),
        ("all", everything(Zone::Anywhere)),
        ("host", everything(Zone::Host)),
        ("none", Peers::Prefixes(vec![])),
        ("unmanaged", Peers::Prefixes(vec![])),
        ("kube-apiserver", Peers::Unresolved),
        ("remote-node", Peers::Unresolved),
    ] {
        assert_eq!(rule(&format!("  - toEntities: [{entity}]\n")).peers, peers, "{entity}");
    }
    assert!(matches!(rule("  - toEntities: [cluster]\n").peers, Peers::Prefixes(p) if p.len() == 4));
    let mixed = rule("  - toEntities: [kube-apiserver, world]\n");
    assert_eq!(mixed.peers, everything(Zone::World), "what is resolved is opened");
    assert_eq!(
        findings_in_egress("  - toEntities: [worlds]\n"),
        ["unknown-entity spec.egress[0].toEntities[0] 9"]
    );
}

#[test]
fn ports_are_numbers_ranges_and_names_known_to_iana() {
    let ports = |port: &str| {
        rule(&format!(
            "  - toCIDR: [192.0.2.1]\n    toPorts: [{{ports: [{port}]}}]\n"
        ))
        .ports
    };
    assert_eq!(rule("  - toCIDR: [192.0.2.1]\n").ports, PortSet::All);
    assert_eq!(rule("  - toCIDR: [192.0.2.1]\n    toPorts: []\n").ports, PortSet::All);
    assert_eq!(
        ports("{port: '443', protocol: tcp}"),
        PortSet::Ranges(vec![range(Protocol::Tcp, 443, 443)])
    );
    assert_eq!(
        ports("{port: '1', endPort: 5, protocol: UDP}"),
        PortSet::Ranges(vec![range(Protocol::Udp, 1, 5)])
    );
    assert_eq!(
        ports("{port: https, protocol: TCP}"),
        PortSet::Ranges(vec![range(Protocol::Tcp, 443, 443)])
    );
    let any = |first, last| PortSet::Ranges(Protocol::ALL.map(|protocol| range(protocol, first, last)).to_vec());
    assert_eq!(ports("{port: '53'}"), any(53, 53));
    assert_eq!(ports("{port: '53', protocol: ANY}"), any(53, 53));
    assert_eq!(ports("{port: '0', endPort: 7}"), any(0, 65535));
}

#[test]
fn bad_ports_are_refused() {
    let many = vec!["{port: '1'}"; 41].join(", ");
    let found = findings_in_egress(&format!(
        "  - toPorts:\n    - ports:\n      - port: '65536'\n      - port: ''\n      - port: '443-445'\n      - protocol: TCP\n      - port: '9'\n        endPort: 8\n      - port: '9'\n        endPort: 70000\n      - port: http\n        endPort: 90\n      - port: '1'\n        protocol: GRE\n    - ports: [{many}]\n  - icmps: [{{fields: [{{type: 8}}]}}]\n    toPorts: [{{ports: [{{port: '1'}}]}}]\n"
    ));
    let ports = "spec.egress[0].toPorts[0].ports";
    assert_eq!(
        found,
        [
            format!("bad-port {ports}[0].port 11"),
            format!("bad-port {ports}[1].port 12"),
            format!("bad-port {ports}[2].port 13"),
            format!("missing-field {ports}[3] 14"),
            format!("bad-port {ports}[4].endPort 16"),
            format!("bad-port {ports}[5].endPort 18"),
            format!("bad-port {ports}[6].endPort 20"),
            format!("bad-protocol {ports}[7].protocol 22"),
            "too-many spec.egress[0].toPorts[1].ports 23".to_owned(),
            "icmps-with-ports spec.egress[1].icmps 24".to_owned(),
            "not-enforced spec.egress[1].icmps 24".to_owned(),
        ]
    );
}

#[test]
fn a_named_port_of_the_cluster_is_a_containers_and_is_not_opened() {
    let text = "  - toEntities: [cluster]\n    toPorts: [{ports: [{port: http}]}]\n";
    assert_eq!(
        findings_in_egress(text),
        ["not-enforced spec.egress[0].toPorts[0].ports[0].port 10"]
    );
    assert!(rule(text).ports.is_empty());
    assert!(
        denial(text).ports.contains(Protocol::Tcp, 8080),
        "and widened where it denies"
    );
    let unknown = "  - toCIDR: [192.0.2.1]\n    toPorts: [{ports: [{port: metrics}]}]\n";
    assert_eq!(
        findings_in_egress(unknown),
        ["not-enforced spec.egress[0].toPorts[0].ports[0].port 10"]
    );
}

#[test]
fn dns_rules_need_one_explicit_port() {
    let dns = |ports: &str| {
        findings_in_egress(&format!(
            "  - toCIDR: [192.0.2.53]\n    toPorts:\n    - ports: {ports}\n      rules: {{dns: [{{matchPattern: '*'}}]}}\n"
        ))
    };
    assert_eq!(
        dns("[{port: '53', protocol: UDP}, {port: '53', protocol: TCP}]"),
        none()
    );
    let port = "spec.egress[0].toPorts[0].ports[0]";
    assert_eq!(dns("[]"), ["bad-dns-port spec.egress[0].toPorts[0] 11"]);
    assert_eq!(dns("[{port: domain}]"), [format!("bad-dns-port {port}.port 11")]);
    assert_eq!(dns("[{port: '0'}]"), [format!("bad-dns-port {port}.port 11")]);
    assert_eq!(
        dns("[{port: '53', endPort: 54}]"),
        [format!("bad-dns-port {port}.endPort 11")]
    );
}

#[test]
fn dns_rules_take_names_and_patterns_together_and_match_nothing_when_empty() {
    let dns = |rules: &str| {
        rule(&format!(
            "  - toCIDR: [192.0.2.53]\n    toPorts: [{{ports: [{{port: '53'}}], rules: {{dns: {rules}}}}}]\n"
        ))
        .dns
    };
    assert_eq!(
        dns("[{matchName: a.example, matchPattern: '*.b.example'}]")[0]
            .patterns
            .len(),
        2
    );
    for empty in ["[{}]", "[]"] {
        assert_eq!(
            dns(empty),
            [DnsRule {
                port: 53,
                patterns: vec![]
            }]
        );
    }
}

#[test]
fn dns_rules_on_servers_that_cannot_be_listed_are_reported_and_their_port_stays_shut() {
    let wide = "  - toCIDR: [192.0.2.0/24]\n    toPorts:\n    - ports: [{port: '53'}]\n      rules: {dns: [{matchPattern: '*'}]}\n    - ports: [{port: '443', protocol: TCP}]\n";
    assert_eq!(
        findings_in_egress(wide),
        ["not-enforced spec.egress[0].toPorts[0].rules.dns 12"]
    );
    assert_eq!(rule(wide).ports, PortSet::Ranges(vec![range(Protocol::Tcp, 443, 443)]));
}

#[test]
fn what_is_not_enforced_is_reported_and_opens_nothing() {
    for (fields, path) in [
        ("toEndpoints: [{}]", "toEndpoints"),
        ("toServices: [{k8sService: {serviceName: a}}]", "toServices"),
        ("toNodes: [{}]", "toNodes"),
        ("toCIDR: [192.0.2.1]\n    toRequires: [{}]", "toRequires"),
        (
            "toCIDR: [192.0.2.1]\n    authentication: {mode: required}",
            "authentication",
        ),
    ] {
        let text = format!("  - {fields}\n");
        assert_eq!(rule(&text).peers, Peers::Unresolved, "{fields}");
        let (_, diagnostics) = read(&format!("{HEAD}{SELECTOR}  egress:\n{text}"));
        let [diagnostic] = diagnostics.as_slice() else {
            panic!("{diagnostics:?}")
        };
        assert_eq!(
            (diagnostic.code, diagnostic.severity),
            ("not-enforced", crate::Severity::Unenforced)
        );
        assert_eq!(diagnostic.path, format!("spec.egress[0].{path}"));
    }
    assert!(
        rule("  - toCIDR: [192.0.2.1]\n    icmps: [{fields: [{type: EchoRequest, family: IPv4}]}]\n")
            .ports
            .is_empty()
    );
    assert_eq!(
        findings_in_egress("  - toGroups: [{aws: {region: x}}]\n"),
        ["to-groups spec.egress[0].toGroups 9"]
    );
}

#[test]
fn ports_that_would_be_looked_into_are_not_opened() {
    for (fields, path) in [
        ("rules: {http: [{method: GET}]}", "rules.http"),
        ("rules: {kafka: [{topic: t}]}", "rules.kafka"),
        ("rules: {l7proto: x, l7: [{a: b}]}", "rules.l7proto"),
        ("serverNames: [a.example]", "serverNames"),
        ("listener: {name: l, envoyConfig: {name: e}}", "listener"),
        ("terminatingTLS: {secret: {name: s}}", "terminatingTLS"),
        ("originatingTLS: {secret: {name: s}}", "originatingTLS"),
    ] {
        let text = format!(
            "  - toFQDNs: [{{matchName: a.example}}]\n    toPorts:\n    - ports: [{{port: '443', protocol: TCP}}]\n      {fields}\n    - ports: [{{port: '80', protocol: TCP}}]\n"
        );
        assert_eq!(
            findings_in_egress(&text),
            [format!("not-enforced spec.egress[0].toPorts[0].{path} 12")]
        );
        assert_eq!(
            rule(&text).ports,
            PortSet::Ranges(vec![range(Protocol::Tcp, 80, 80)]),
            "{fields}"
        );
    }
    let two = "  - toPorts:\n    - ports: [{port: '53'}]\n      rules: {dns: [{}], http: [{}]}\n";
    assert!(findings_in_egress(two).contains(&"two-l7-kinds spec.egress[0].toPorts[0].rules 11".to_owned()));
}

#[test]
fn denials_that_cannot_be_enforced_are_widened_and_never_left_out() {
    let cluster = denial("  - toEndpoints: [{}]\n    toPorts: [{ports: [{port: '443', protocol: TCP}]}]\n");
    let Peers::Prefixes(prefixes) = &cluster.peers else {
        panic!("{cluster:?}")
    };
    assert!(
        prefixes
            .iter()
            .all(|(zone, _)| matches!(zone, Zone::Cluster | Zone::Host))
            && prefixes.len() == 4
    );
    assert_eq!(cluster.ports, PortSet::Ranges(vec![range(Protocol::Tcp, 443, 443)]));

    assert_eq!(
        denial("  - toServices: [{k8sService: {}}]\n").peers,
        everything(Zone::Anywhere)
    );
    assert_eq!(
        denial("  - toEntities: [kube-apiserver]\n").peers,
        everything(Zone::Anywhere)
    );
    assert_eq!(
        denial("  - toCIDRSet: [{cidrGroupRef: g}]\n").peers,
        everything(Zone::World)
    );
    let cidr = "  - toCIDR: [192.0.2.1]\n";
    for ports in [
        "icmps: [{fields: [{type: 8}]}]",
        "toPorts: [{}]",
        "toPorts: [{ports: [{port: '1', protocol: IGMP}]}]",
    ] {
        assert_eq!(denial(&format!("{cidr}    {ports}\n")).ports, PortSet::All, "{ports}");
    }
    let narrowed = denial(&format!("{cidr}    toRequires: [{{}}]\n"));
    assert_eq!(
        narrowed.peers,
        self::prefixes(Zone::World, &["192.0.2.1/32"]),
        "denied without the condition"
    );
    assert!(matches!(
        denial("  - toFQDNs: [{matchName: a.example}]\n").peers,
        Peers::Names(_)
    ));
    let rules = findings(&format!(
        "{HEAD}{SELECTOR}  egressDeny:\n  - toPorts: [{{ports: [{{port: '1'}}], rules: {{}}}}]\n"
    ));
    assert_eq!(rules, ["unknown-field spec.egressDeny[0].toPorts[0].rules 9"]);
}

#[test]
fn annotations_are_reported_and_misspelt_ones_named() {
    let text = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata:\n  name: p\n  annotations:\n    namegate.io/mode: audit\n    namegate.io/gracee: 5s\n    other.io/x: y\nspec: {endpointSelector: {}}\n";
    assert_eq!(
        findings(text),
        [
            "not-enforced metadata.annotations.namegate.io/mode 6",
            "unknown-annotation metadata.annotations.namegate.io/gracee 7",
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
fn findings_are_bounded_and_the_refusal_is_not_lost() {
    let fields: String = (0..1000).map(|n| format!("  unknown{n}: 1\n")).collect();
    let (policy, diagnostics) = read(&format!("{HEAD}{SELECTOR}{fields}"));
    assert!(policy.is_none());
    assert_eq!(diagnostics.len(), Report::MAX);
}

/// Any JSON under field names that mean something here, so that every reader meets every type.
fn json() -> impl Strategy<Value = serde_json::Value> {
    let names = [
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
    ];
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        prop::sample::select(vec![
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
            "ä"
        ])
        .prop_map(Into::into),
    ];
    leaf.prop_recursive(8, 64, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map(prop::sample::select(names.to_vec()), inner, 0..5).prop_map(|fields| {
                serde_json::Value::Object(
                    fields
                        .into_iter()
                        .map(|(name, value)| (name.to_owned(), value))
                        .collect(),
                )
            }),
        ]
    })
}

proptest! {
    #[test]
    fn validation_and_lint_never_panic_and_refuse_exactly_by_errors(spec in json(), rule in json()) {
        for spec in [spec, serde_json::json!({"endpointSelector": {}, "egress": [rule.clone()], "egressDeny": [rule]})] {
            let document = Document::from_value(serde_json::json!({
                "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": {"name": "p"}, "spec": spec,
            })).unwrap();
            let (policy, diagnostics) = validate(&document);
            prop_assert_eq!(policy.is_none(), diagnostics.iter().any(|d| d.severity == crate::Severity::Error));
            if let Some(policy) = policy {
                let _ = crate::lint::lint(&document, &policy);
            }
        }
    }
}
