use proptest::prelude::*;

use super::*;
use crate::compile::compile;
use crate::dns_rules::DnsServers;
use crate::endpoint::{self, Endpoint, EndpointId};
use crate::labels::LabelSelector;
use crate::policy::Action;
use crate::ports::Protocol;
use crate::program::{EndpointPolicy, Program};
use crate::{Policy, document, validate};

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn pod<const N: usize>(namespace: &str, app: &str, addresses: &[&str], ports: [ContainerPort; N]) -> InventoryPod {
    let labels = endpoint::labels(
        &labels(&[("app", app)]),
        namespace,
        &labels(&[("team", "red")]),
        app,
        "default",
    );
    let addresses = addresses.iter().map(|address| address.parse().unwrap());
    InventoryPod::new(labels, addresses, ports.into())
}

fn port(name: &str, protocol: Protocol, port: u16) -> ContainerPort {
    ContainerPort {
        name: name.into(),
        protocol,
        port,
    }
}

/// Two pods `a` and one `b` in the policy's namespace `n`, and a resolver elsewhere.
fn cluster() -> Inventory {
    let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
    let pods = [
        pod(
            "n",
            "a",
            &["10.244.0.2", "fd00::2"],
            [port("web", tcp, 8080), port("web", udp, 8081)],
        ),
        pod(
            "n",
            "a",
            &["10.244.0.3"],
            [port("web", tcp, 80), port("metrics", tcp, 9090)],
        ),
        pod("n", "b", &["10.244.0.9"], []),
        pod("kube-system", "kube-dns", &["10.244.1.5"], [port("web", tcp, 88)]),
    ];
    let address = |text: &str| text.parse().unwrap();
    let service = |namespace: &str, name: &str, of: &[(&str, &str)]| InventoryService {
        namespace: namespace.into(),
        name: name.into(),
        labels: labels(of),
        ..InventoryService::default()
    };
    let services = vec![
        InventoryService {
            selector: Some(labels(&[("app", "a")])),
            // The second pod is not in it yet; one on the host's network is.
            backends: BTreeSet::from([address("10.244.0.2"), address("192.0.2.8")]),
            ..service("n", "a", &[("tier", "web")])
        },
        InventoryService {
            backends: BTreeSet::from([address("203.0.113.7")]),
            ..service("n", "legacy", &[])
        },
        InventoryService {
            selector: Some(labels(&[("app", "kube-dns")])),
            ..service("kube-system", "a", &[("tier", "web")])
        },
    ];
    let kubernetes = InventoryService {
        backends: BTreeSet::from([address("192.0.2.10")]),
        addresses: BTreeSet::from([address("10.96.0.1")]),
        ..service("default", "kubernetes", &[])
    };
    let node = |name: &str, own: &str, is_this: bool| InventoryNode {
        labels: labels(&[("kubernetes.io/hostname", name)]),
        addresses: BTreeSet::from([address(own)]),
        is_this,
    };
    let group = |name: &str, prefixes: &[&str]| CidrGroup {
        name: name.into(),
        labels: labels(&[("kind", name)]),
        prefixes: prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect(),
    };
    Inventory {
        pods: pods.into_iter().collect(),
        services: services.into_iter().chain([kubernetes]).collect(),
        nodes: [("one", "192.0.2.1", true), ("two", "192.0.2.2", false)]
            .map(|(name, own, is_this)| (name.to_owned(), Arc::new(node(name, own, is_this))))
            .into_iter()
            .collect(),
        cidr_groups: [
            group("office", &["198.51.100.0/24", "2001:db8::/32"]),
            group("branch", &["203.0.113.0/24"]),
        ]
        .into(),
        other_clusters: None,
    }
}

fn policy(rules: &str) -> Policy {
    let text = format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p, namespace: n}}\nspec:\n  endpointSelector: {{}}\n{rules}"
    );
    let (documents, errors) = document::parse(&text);
    assert_eq!(errors, []);
    let (policy, diagnostics) = validate::validate(&documents[0]);
    policy.accepted().unwrap_or_else(|| panic!("{diagnostics:?}"))
}

fn compiled(rules: &str) -> Program {
    governed_by(rules).programs.egress.unwrap()
}

fn governed_by(rules: &str) -> EndpointPolicy {
    let endpoint = Endpoint {
        id: EndpointId {
            namespace: "n".into(),
            name: "client".into(),
        },
        labels: endpoint::labels(&Labels::new(), "n", &Labels::new(), "default", "default"),
        addresses: BTreeSet::new(),
        ports: Vec::new(),
    };
    compile(&endpoint, &[policy(rules)], &cluster()).unwrap()
}

/// `[zone] prefix ports` of what one rule opens.
fn opened(rule: &str) -> Vec<String> {
    shown(&compiled(&format!("  egress:\n  - {rule}\n")), Action::Allow)
}

/// Prefixes as they are written; addresses of objects joined to prefixes where their ports are the
/// same.
fn shown(program: &Program, action: Action) -> Vec<String> {
    let ports = |ports: &PortSet| match ports {
        PortSet::All => "all".to_owned(),
        PortSet::Ranges(ranges) => {
            let ranges: Vec<_> = ranges
                .iter()
                .map(|range| format!("{}/{}-{}", range.protocol, range.first, range.last))
                .collect();
            ranges.join(",")
        }
    };
    let mut shown = Vec::new();
    let mut members: BTreeMap<IpAddr, PortSet> = BTreeMap::new();
    for rule in program.enforced.network.iter().filter(|rule| rule.action == action) {
        match &rule.peer {
            Peer::Prefix(Zone::Anywhere, prefix) => shown.push(format!("{prefix} {}", ports(&rule.ports))),
            Peer::Prefix(zone, prefix) => shown.push(format!("{zone:?} {prefix} {}", ports(&rule.ports))),
            _ => {
                for (address, ports) in cluster().members(rule) {
                    let known = members.entry(address).or_insert_with(|| PortSet::Ranges(Vec::new()));
                    *known = known.union(&ports);
                }
            }
        }
    }
    let mut alike: BTreeMap<PortSet, Vec<IpNet>> = BTreeMap::new();
    for (address, ports) in members {
        alike.entry(ports).or_default().push(address.into());
    }
    for (set, addresses) in alike {
        let joined = IpNet::aggregate(&addresses);
        shown.extend(joined.into_iter().map(|prefix| format!("{prefix} {}", ports(&set))));
    }
    shown.sort();
    shown
}

#[test]
fn endpoints_are_the_addresses_of_the_pods_that_are_selected_and_neighbours_become_one_prefix() {
    assert_eq!(
        opened("toEndpoints: [{matchLabels: {app: a}}]"),
        ["10.244.0.2/31 all", "fd00::2/128 all"]
    );
    assert_eq!(
        opened("toEndpoints: [{}]"),
        ["10.244.0.2/31 all", "10.244.0.9/32 all", "fd00::2/128 all"],
        "the policy's own namespace"
    );
    assert_eq!(
        opened("toEndpoints: [{matchExpressions: [{key: app, operator: NotIn, values: [a]}]}]"),
        ["10.244.0.9/32 all"]
    );
    assert_eq!(opened("toEndpoints: []"), [""; 0]);
    assert_eq!(opened("toEndpoints: [{matchLabels: {app: nobody}}]"), [""; 0]);
}

#[test]
fn endpoints_are_selected_by_namespace_its_labels_service_account_and_cluster_too() {
    for selector in [
        "matchLabels: {k8s:io.kubernetes.pod.namespace: kube-system}",
        "matchLabels: {io.cilium.k8s.namespace.labels.team: red, app: kube-dns}",
        "matchLabels: {io.kubernetes.pod.namespace: kube-system, io.cilium.k8s.policy.serviceaccount: kube-dns}",
        "matchExpressions: [{key: io.kubernetes.pod.namespace, operator: Exists}, {key: app, operator: In, values: [kube-dns]}], matchLabels: {io.cilium.k8s.policy.cluster: default}",
    ] {
        assert_eq!(
            opened(&format!("toEndpoints: [{{{selector}}}]")),
            ["10.244.1.5/32 all"],
            "{selector}"
        );
    }
}

#[test]
fn a_named_port_is_each_pods_own() {
    assert_eq!(
        opened("{toEndpoints: [{}], toPorts: [{ports: [{port: web, protocol: TCP}, {port: '443', protocol: TCP}]}]}"),
        [
            "10.244.0.2/32 TCP/443-443,TCP/8080-8080",
            "10.244.0.3/32 TCP/80-80,TCP/443-443",
            "10.244.0.9/32 TCP/443-443",
            "fd00::2/128 TCP/443-443,TCP/8080-8080",
        ]
    );
    assert_eq!(
        opened("toPorts: [{ports: [{port: web}]}]"),
        [
            "10.244.0.2/32 TCP/8080-8080,UDP/8081-8081",
            "10.244.0.3/32 TCP/80-80",
            "10.244.1.5/32 TCP/88-88",
            "fd00::2/128 TCP/8080-8080,UDP/8081-8081",
        ],
        "without destinations, of every pod"
    );
    assert_eq!(
        opened("{toEndpoints: [{}], toPorts: [{ports: [{port: nobodys}]}]}"),
        [""; 0]
    );
}

#[test]
fn a_denial_of_endpoints_denies_them_and_nobody_else() {
    let program = compiled(
        "  egressDeny:\n  - toEndpoints: [{matchLabels: {app: b}}]\n  - toEndpoints: [{}]\n    toPorts: [{ports: [{port: metrics}]}]\n",
    );
    assert_eq!(
        shown(&program, Action::Deny),
        ["10.244.0.3/32 TCP/9090-9090", "10.244.0.9/32 all"]
    );
}

#[test]
fn services_are_their_backends_by_slices_and_by_selectors() {
    for (entry, expected) in [
        (
            "k8sService: {serviceName: a, namespace: n}",
            &["10.244.0.2/31 all", "192.0.2.8/32 all", "fd00::2/128 all"][..],
        ),
        ("k8sService: {serviceName: legacy}", &["203.0.113.7/32 all"]),
        (
            "k8sService: {serviceName: a, namespace: kube-system}",
            &["10.244.1.5/32 all"],
        ),
        (
            "k8sServiceSelector: {selector: {matchLabels: {tier: web}}}",
            &[
                "10.244.0.2/31 all",
                "10.244.1.5/32 all",
                "192.0.2.8/32 all",
                "fd00::2/128 all",
            ],
        ),
        ("k8sServiceSelector: {namespace: m, selector: {}}", &[]),
        ("k8sService: {serviceName: none}", &[]),
        ("k8sService: {}", &[]),
    ] {
        assert_eq!(opened(&format!("toServices: [{{{entry}}}]")), expected, "{entry}");
    }
    assert_eq!(
        opened("{toServices: [{k8sService: {serviceName: a, namespace: n}}], toPorts: [{ports: [{port: metrics}]}]}"),
        ["10.244.0.3/32 TCP/9090-9090"],
        "a named port is the backend's"
    );
}

#[test]
fn nodes_the_api_server_and_groups_of_cidrs_are_what_their_objects_say() {
    for (peers, expected) in [
        (
            "toNodes: [{matchLabels: {kubernetes.io/hostname: one}}]",
            &["192.0.2.1/32 all"][..],
        ),
        ("toNodes: [{}]", &["192.0.2.1/32 all", "192.0.2.2/32 all"]),
        ("toEntities: [remote-node]", &["192.0.2.2/32 all"]),
        (
            "toEntities: [kube-apiserver, world-ipv6]",
            &["10.96.0.1/32 all", "192.0.2.10/32 all", "World ::/0 all"],
        ),
        (
            "toCIDRSet: [{cidrGroupRef: office, except: [198.51.100.128/25]}, {cidr: 192.0.2.0/24}]",
            &[
                "World 192.0.2.0/24 all",
                "World 198.51.100.0/25 all",
                "World 2001:db8::/32 all",
            ],
        ),
        (
            "toCIDRSet: [{cidrGroupSelector: {matchLabels: {kind: branch}}}]",
            &["World 203.0.113.0/24 all"],
        ),
        ("toCIDRSet: [{cidrGroupRef: nobodys}]", &[]),
    ] {
        assert_eq!(opened(peers), expected, "{peers}");
    }
}

#[test]
fn a_dns_rule_on_endpoints_filters_questions_to_trusted_resolvers_and_opens_no_port() {
    let governed = governed_by(
        "  egress:\n  - toEndpoints: [{matchLabels: {k8s:io.kubernetes.pod.namespace: kube-system}}]\n    toPorts: [{ports: [{port: '53'}], rules: {dns: [{matchPattern: '*'}]}}]\n",
    );
    let [grant] = governed.questions.grants.as_slice() else {
        panic!("{governed:?}")
    };
    assert_eq!(grant.servers, DnsServers::Trusted);
    assert_eq!(shown(&governed.programs.egress.unwrap(), Action::Allow), [""; 0]);
}

proptest! {
    #[test]
    fn what_is_opened_is_exactly_the_addresses_of_pods_that_a_selector_matches(
        pods in prop::collection::vec((0_u8..3, 0_u8..3, 0_u8..32), 0..20),
        wanted in prop::collection::vec((0_u8..3, 0_u8..3), 0..4),
    ) {
        let key = |n: u8| n.to_string();
        let inventory = Inventory {
            pods: pods
                .iter()
                .map(|(a, b, last)| {
                    let labels = labels(&[("a", &key(*a)), ("b", &key(*b))]);
                    InventoryPod::new(labels, [IpAddr::from([10, 0, 0, *last])], Vec::new())
                })
                .collect(),
            ..Inventory::default()
        };
        let selectors = wanted.iter().map(|(a, b)| {
            let pairs = [("a".to_owned(), key(*a)), ("b".to_owned(), key(*b))];
            ObjectSelector::Pods(LabelSelector::new(pairs, []).unwrap())
        });
        let addresses: Vec<IpAddr> = selectors.flat_map(|selector| inventory.addresses(&selector)).collect();
        for last in 0..=255_u8 {
            let address = IpAddr::from([10, 0, 0, last]);
            let expected = pods
                .iter()
                .any(|(a, b, of)| *of == last && wanted.contains(&(*a, *b)));
            prop_assert_eq!(addresses.contains(&address), expected, "{}", address);
        }
    }
}
