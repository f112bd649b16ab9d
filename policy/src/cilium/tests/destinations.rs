//! The L3 selectors of rules.

use crate::endpoint::keys;
use crate::labels::{LabelSelector, Requirement};
use crate::peer_selector::{CidrGroupSelector, ObjectSelector, ServiceSelector};

use super::*;

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
            PeerSelector::Prefixes(vec![]),
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
    assert_eq!(rule("  - toFQDNs: [{}]\n").peers, PeerSelector::Names(vec![]));
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
        ]
    );
}

#[test]
fn what_says_nothing_but_a_condition_is_reported() {
    for (rules, field) in [
        ("  - toRequires: [{matchLabels: {app: web}}]\n", "toRequires"),
        ("  - authentication: {mode: required}\n", "authentication"),
    ] {
        assert_eq!(
            findings_in_egress(rules),
            [format!("not-enforced spec.egress[0].{field} 9")]
        );
    }
}

#[test]
fn entities_are_zones() {
    for (entity, peers) in [
        ("world", everything(Zone::World)),
        ("world-ipv4", prefixes(Zone::World, &["0.0.0.0/0"])),
        ("world-ipv6", prefixes(Zone::World, &["::/0"])),
        ("all", everything(Zone::Anywhere)),
        ("host", everything(Zone::Host)),
        ("none", PeerSelector::Prefixes(vec![])),
        ("unmanaged", PeerSelector::Prefixes(vec![])),
        ("kube-apiserver", PeerSelector::Objects(vec![ObjectSelector::ApiServer])),
        ("remote-node", PeerSelector::Objects(vec![ObjectSelector::RemoteNodes])),
    ] {
        assert_eq!(rule(&format!("  - toEntities: [{entity}]\n")).peers, peers, "{entity}");
    }
    for (entity, zone) in [("cluster", Zone::Cluster), ("cluster-mesh", Zone::Mesh)] {
        let PeerSelector::Prefixes(prefixes) = rule(&format!("  - toEntities: [{entity}]\n")).peers else {
            panic!("{entity}");
        };
        let zones: Vec<Zone> = prefixes.iter().map(|(zone, _)| *zone).collect();
        assert_eq!(zones, [zone, zone, Zone::Host, Zone::Host], "{entity}");
    }
    let mixed = rule("  - toEntities: [kube-apiserver, world]\n");
    assert!(matches!(mixed.peers, PeerSelector::Objects(selectors) if selectors.len() == 3));
    assert_eq!(
        findings_in_egress("  - toEntities: [worlds]\n"),
        ["unknown-entity spec.egress[0].toEntities[0] 9"]
    );
}

#[test]
fn what_is_not_enforced_is_reported_and_opens_nothing() {
    for (fields, path) in [
        ("toCIDR: [192.0.2.1]\n    toRequires: [{}]", "toRequires"),
        (
            "toCIDR: [192.0.2.1]\n    authentication: {mode: required}",
            "authentication",
        ),
    ] {
        let text = format!("  - {fields}\n");
        assert_eq!(rule(&text).peers, PeerSelector::Unresolved, "{fields}");
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
    assert_eq!(
        findings_in_egress("  - toGroups: [{aws: {region: x}}]\n"),
        ["to-groups spec.egress[0].toGroups 9"]
    );
}

#[test]
fn denials_that_cannot_be_enforced_are_widened_and_never_left_out() {
    let cidr = "  - toCIDR: [192.0.2.1]\n";
    for ports in ["toPorts: [{}]", "toPorts: [{ports: [{port: '1', protocol: IGMP}]}]"] {
        assert_eq!(denial(&format!("{cidr}    {ports}\n")).ports, PortSet::All, "{ports}");
    }
    let narrowed = denial(&format!("{cidr}    toRequires: [{{}}]\n"));
    assert_eq!(
        narrowed.peers,
        super::prefixes(Zone::World, &["192.0.2.1/32"]),
        "denied without the condition"
    );
    assert!(matches!(
        denial("  - toFQDNs: [{matchName: a.example}]\n").peers,
        PeerSelector::Names(_)
    ));
    let rules = findings(&format!(
        "{HEAD}{SELECTOR}  egressDeny:\n  - toPorts: [{{ports: [{{port: '1'}}], rules: {{}}}}]\n"
    ));
    assert_eq!(rules, ["unknown-field spec.egressDeny[0].toPorts[0].rules 9"]);
}

fn pods(requirements: &[(&str, &str)]) -> ObjectSelector {
    let requirements = requirements
        .iter()
        .map(|(key, value)| Requirement::equals(key, value))
        .collect();
    ObjectSelector::Pods(LabelSelector { requirements })
}

#[test]
fn endpoints_are_of_the_policys_namespace_unless_they_ask_for_one() {
    for (selector, expected) in [
        ("{}", pods(&[(keys::NAMESPACE, "n")])),
        (
            "{matchLabels: {k8s:app: db}}",
            pods(&[("app", "db"), (keys::NAMESPACE, "n")]),
        ),
        (
            "{matchLabels: {k8s:io.kubernetes.pod.namespace: other}}",
            pods(&[(keys::NAMESPACE, "other")]),
        ),
        (
            "{matchLabels: {io.cilium.k8s.namespace.labels.team: red}}",
            pods(&[("io.cilium.k8s.namespace.labels.team", "red")]),
        ),
    ] {
        let text = format!("  - toEndpoints: [{selector}]\n");
        assert_eq!(findings_in_egress(&text), none(), "{selector}");
        assert_eq!(
            rule(&text).peers,
            PeerSelector::Objects(vec![expected.clone()]),
            "{selector}"
        );
        assert_eq!(denial(&text).peers, PeerSelector::Objects(vec![expected]), "{selector}");
    }
    let clusterwide = "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: p}\nspec:\n  endpointSelector: {}\n  egress: [{toEndpoints: [{}]}]\n";
    let policy = read(clusterwide).0.unwrap();
    assert_eq!(
        policy.specs[0].directions.egress.rules[0].peers,
        PeerSelector::Objects(vec![pods(&[])])
    );
}

#[test]
fn selectors_of_endpoints_that_cannot_be_told_are_refused_and_reserved_ones_reported() {
    let entry = "spec.egress[0].toEndpoints[0]";
    for (selector, finding) in [
        (
            "{matchLabels: {container:a: b}}",
            format!("bad-selector {entry}.matchLabels.container:a 9"),
        ),
        (
            "{matchExpressions: [{key: a, operator: Is}]}",
            format!("bad-selector {entry}.matchExpressions[0] 9"),
        ),
        (
            "{matchExpressions: [{operator: Exists}]}",
            format!("missing-field {entry}.matchExpressions[0] 9"),
        ),
        ("{matchLabel: {a: b}}", format!("unknown-field {entry}.matchLabel 9")),
        (
            "{matchLabels: {reserved:host: ''}}",
            format!("not-enforced {entry}.matchLabels.reserved:host 9"),
        ),
        (
            "{matchExpressions: [{key: reserved:kube-apiserver, operator: Exists}]}",
            format!("not-enforced {entry}.matchExpressions[0].key 9"),
        ),
    ] {
        assert_eq!(
            findings_in_egress(&format!("  - toEndpoints: [{selector}]\n")),
            [finding],
            "{selector}"
        );
    }
    let text = "  - toEndpoints: [{matchLabels: {reserved:host: ''}}]\n";
    assert_eq!(rule(text).peers, PeerSelector::Objects(vec![]));
    assert!(matches!(denial(text).peers, PeerSelector::Objects(selectors) if selectors.len() == 2));
}

#[test]
fn services_are_told_by_name_or_by_labels_in_one_namespace_or_in_all() {
    let service = |namespace: Option<&str>, name: Option<&str>, labels: &[(&str, &str)]| ServiceSelector {
        namespace: namespace.map(str::to_owned),
        name: name.map(str::to_owned),
        labels: LabelSelector {
            requirements: labels
                .iter()
                .map(|(key, value)| Requirement::equals(key, value))
                .collect(),
        },
    };
    for (entry, expected) in [
        (
            "k8sService: {serviceName: db, namespace: m}",
            service(Some("m"), Some("db"), &[]),
        ),
        ("k8sService: {serviceName: db}", service(None, Some("db"), &[])),
        (
            "k8sServiceSelector: {selector: {matchLabels: {app: db}}, namespace: m}",
            service(Some("m"), None, &[("app", "db")]),
        ),
        (
            "k8sServiceSelector: {selector: {}}, k8sService: {serviceName: db}",
            service(None, None, &[]),
        ),
    ] {
        let text = format!("  - toServices: [{{{entry}}}]\n");
        assert_eq!(findings_in_egress(&text), none(), "{entry}");
        let peers = PeerSelector::Objects(vec![ObjectSelector::Services(expected)]);
        assert_eq!(rule(&text).peers, peers, "{entry}");
        assert_eq!(denial(&text).peers, peers, "{entry}");
    }
    let entry = "spec.egress[0].toServices[0]";
    for (text, finding) in [
        ("{}", format!("no-service {entry} 9")),
        ("{k8sService: {namespace: m}}", format!("no-service {entry} 9")),
        (
            "{k8sServiceSelector: {namespace: m}}",
            format!("missing-field {entry}.k8sServiceSelector 9"),
        ),
        (
            "{k8sServiceSelector: {selector: {matchExpressions: [{key: a, operator: Is}]}}}",
            format!("bad-selector {entry}.k8sServiceSelector.selector.matchExpressions[0] 9"),
        ),
    ] {
        assert_eq!(
            findings_in_egress(&format!("  - toServices: [{text}]\n")),
            [finding],
            "{text}"
        );
    }
}

#[test]
fn groups_of_cidrs_are_told_by_name_or_by_labels_and_except_may_lie_anywhere() {
    let group = |name: Option<&str>, labels: &[(&str, &str)], except: &[&str]| {
        PeerSelector::Objects(vec![ObjectSelector::CidrGroups(CidrGroupSelector {
            name: name.map(str::to_owned),
            labels: LabelSelector {
                requirements: labels
                    .iter()
                    .map(|(key, value)| Requirement::equals(key, value))
                    .collect(),
            },
            except: except.iter().map(|prefix| prefix.parse().unwrap()).collect(),
        })])
    };
    for (entry, expected) in [
        ("cidrGroupRef: g", group(Some("g"), &[], &[])),
        (
            "cidrGroupRef: g, except: [10.0.0.0/8]",
            group(Some("g"), &[], &["10.0.0.0/8"]),
        ),
        (
            "cidrGroupSelector: {matchLabels: {a: b}}",
            group(None, &[("a", "b")], &[]),
        ),
    ] {
        let text = format!("  - toCIDRSet: [{{{entry}}}]\n    toPorts: [{{ports: [{{port: https}}]}}]\n");
        assert_eq!(findings_in_egress(&text), none(), "{entry}");
        assert_eq!(rule(&text).peers, expected, "{entry}");
        assert_eq!(denial(&text).peers, expected, "{entry}");
        assert!(
            rule(&text).ports.contains(Protocol::Tcp, 443),
            "outside, the name is IANA's"
        );
    }
    let entry = "spec.egress[0].toCIDRSet[0]";
    for (text, finding) in [
        ("{cidr: 10.0.0.0/8, cidrGroupRef: g}", format!("bad-cidr {entry} 9")),
        (
            "{cidrGroupRef: g, except: [x]}",
            format!("bad-cidr {entry}.except[0] 9"),
        ),
        (
            "{cidrGroupSelector: {matchExpressions: [{key: a, operator: Is}]}}",
            format!("bad-selector {entry}.cidrGroupSelector.matchExpressions[0] 9"),
        ),
    ] {
        assert_eq!(
            findings_in_egress(&format!("  - toCIDRSet: [{text}]\n")),
            [finding],
            "{text}"
        );
    }
}
