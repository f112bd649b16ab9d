use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::cilium;
use crate::document;
use crate::endpoint::EndpointId;
use crate::ports::{PortRange, Protocol};

fn endpoint(namespace: &str, labels: &[(&str, &str)]) -> Endpoint {
    let mut labels: crate::labels::Labels = labels
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    labels.insert("io.kubernetes.pod.namespace".into(), namespace.into());
    Endpoint {
        id: EndpointId {
            namespace: namespace.into(),
            name: "pod".into(),
        },
        labels,
        addresses: BTreeSet::from([IpAddr::from([10, 0, 0, 2])]),
    }
}

fn policy(name: &str, spec: &str) -> Policy {
    let text = format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {name}, namespace: n}}\nspec:\n  endpointSelector: {{matchLabels: {{app: a}}}}\n{spec}"
    );
    let (documents, errors) = document::parse(&text);
    assert_eq!(errors, []);
    let (verdict, diagnostics) = cilium::validate(&documents[0]);
    verdict.accepted().unwrap_or_else(|| panic!("{diagnostics:?}"))
}

fn compiled(policies: &[Policy]) -> Program {
    compile(&endpoint("n", &[("app", "a")]), policies, &Inventory::default()).unwrap()
}

fn selected(endpoint: &Endpoint, policies: &[Policy]) -> bool {
    compile(endpoint, policies, &Inventory::default()).is_some()
}

fn shown(rules: &[PrefixRule]) -> Vec<String> {
    let ports = |ports: &PortSet| match ports {
        PortSet::All => "all".to_owned(),
        PortSet::Ranges(ranges) => ranges
            .iter()
            .map(|r| format!("{}/{}-{}", r.protocol, r.first, r.last))
            .collect::<Vec<_>>()
            .join(","),
    };
    rules
        .iter()
        .map(|rule| format!("{:?} {} {}", rule.zone, rule.prefix, ports(&rule.ports)))
        .collect()
}

#[test]
fn an_endpoint_that_no_policy_selects_has_no_program() {
    let policies = [policy("p", "  egress: [{}]\n")];
    assert!(!selected(&endpoint("n", &[("app", "b")]), &policies));
    assert!(!selected(&endpoint("elsewhere", &[("app", "a")]), &policies));
    assert!(!selected(&endpoint("n", &[]), &[]));
}

#[test]
fn a_policy_without_egress_leaves_the_endpoint_untouched() {
    for spec in ["  ingress: [{}]\n", "  egress: []\n"] {
        assert!(!selected(&endpoint("n", &[("app", "a")]), &[policy("p", spec)]));
    }
}

#[test]
fn an_empty_rule_closes_without_allowing_anything() {
    let program = compiled(&[policy("p", "  egress: [{}]\n")]);
    assert_eq!(
        program,
        Program {
            closed: true,
            ..Program::default()
        }
    );
}

#[test]
fn one_policy_closes_even_if_another_would_leave_it_open() {
    let open = policy(
        "open",
        "  enableDefaultDeny: {egress: false}\n  egressDeny: [{toCIDR: [192.0.2.0/24]}]\n",
    );
    assert!(!compiled(std::slice::from_ref(&open)).closed);
    assert!(compiled(&[open, policy("closed", "  egress: [{}]\n")]).closed);
}

#[test]
fn names_gather_the_ports_and_origins_of_every_rule_that_has_them() {
    let program = compiled(&[
        policy(
            "q",
            "  egress:\n  - toFQDNs: [{matchName: A.example.}]\n    toPorts: [{ports: [{port: '443', protocol: TCP}]}]\n",
        ),
        policy(
            "p",
            "  egress:\n  - {}\n  - toFQDNs: [{matchName: a.example}, {matchName: b.example}]\n    toPorts: [{ports: [{port: '80', protocol: TCP}]}]\n",
        ),
    ]);
    let [a, b] = program.allow.names.as_slice() else {
        panic!("{program:?}")
    };
    assert_eq!(
        (a.pattern.to_string(), b.pattern.to_string()),
        ("a.example".into(), "b.example".into())
    );
    let origins: Vec<_> = a.origins.iter().map(|o| format!("{} {}", o.policy, o.rule)).collect();
    assert_eq!(origins, ["n/p spec.egress[1]", "n/q spec.egress[0]"]);
    assert!(a.ports.contains(Protocol::Tcp, 443) && a.ports.contains(Protocol::Tcp, 80));
    assert!(!b.ports.contains(Protocol::Tcp, 443));
}

#[test]
fn a_name_that_no_port_is_opened_for_is_no_rule() {
    let http = "  egress:\n  - toFQDNs: [{matchName: a.example}]\n    toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{}]}}]\n";
    assert_eq!(compiled(&[policy("p", http)]).allow, Rules::default());
}

#[test]
fn a_nested_prefix_keeps_only_the_ports_that_the_prefix_around_it_lacks() {
    let program = compiled(&[policy(
        "p",
        "  egress:\n  - toCIDR: [10.0.0.0/8]\n    toPorts: [{ports: [{port: '80', endPort: 90, protocol: TCP}]}]\n  - toCIDR: [10.1.0.0/16]\n    toPorts: [{ports: [{port: '85', endPort: 95, protocol: TCP}]}]\n  - toCIDR: [10.1.2.0/24]\n    toPorts: [{ports: [{port: '82', endPort: 94, protocol: TCP}]}]\n  - toCIDR: [10.1.2.3]\n  - toCIDR: [10.1.2.3/32]\n    toPorts: [{ports: [{port: '1', protocol: UDP}]}]\n  - toEntities: [all]\n    toPorts: [{ports: [{port: '443', protocol: TCP}]}]\n",
    )]);
    assert_eq!(
        shown(&program.allow.prefixes),
        [
            "Anywhere 0.0.0.0/0 TCP/443-443",
            "Anywhere ::/0 TCP/443-443",
            "World 10.0.0.0/8 TCP/80-90",
            "World 10.1.0.0/16 TCP/91-95",
            "World 10.1.2.3/32 all",
        ]
    );
}

#[test]
fn dns_rules_bind_to_single_addresses_or_to_every_trusted_resolver() {
    let dns = |peers: &str, name: &str| {
        format!(
            "  - {peers}\n    toPorts: [{{ports: [{{port: '53', protocol: UDP}}, {{port: '53', protocol: TCP}}], rules: {{dns: [{{matchName: {name}}}]}}}}]\n"
        )
    };
    let rules = [
        dns("toCIDR: [192.0.2.54/32, '2001:db8::53', 192.0.2.53]", "listed.example"),
        dns("toEndpoints: [{}]", "endpoints.example"),
        dns("toCIDR: [192.0.2.0/24]", "wide.example"),
        dns("toFQDNs: [{matchName: dns.example}]", "named.example"),
        dns("toCIDR: []", "nowhere.example"),
    ];
    let program = compiled(&[policy("p", &format!("  egress:\n{}", rules.concat()))]);
    let grants: Vec<_> = program
        .dns
        .iter()
        .map(|grant| {
            (
                grant.servers.clone(),
                grant.rule.port,
                format!("{:?}", grant.rule.patterns),
            )
        })
        .collect();
    let listed = ["192.0.2.53", "192.0.2.54", "2001:db8::53"]
        .map(|a| a.parse().unwrap())
        .to_vec();
    assert_eq!(
        grants,
        [
            (
                DnsServers::Trusted,
                53,
                "[endpoints.example, named.example, wide.example]".to_owned()
            ),
            (DnsServers::Listed(listed), 53, "[listed.example]".to_owned()),
        ]
    );
    assert_eq!(
        program.allow,
        Rules::default(),
        "no port 53 is opened: lookups are intercepted"
    );
}

#[test]
fn the_order_of_policies_does_not_show() {
    let policies = [
        policy("a", "  egress:\n  - toFQDNs: [{matchName: a.example}]\n"),
        policy(
            "b",
            "  egress:\n  - toFQDNs: [{matchPattern: '*.example'}, {matchName: a.example}]\n    toPorts: [{ports: [{port: '443', protocol: TCP}]}]\n",
        ),
        policy(
            "c",
            "  egress:\n  - toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}]\n",
        ),
        policy(
            "d",
            "  egress:\n  - toCIDR: [10.0.0.0/7]\n    toPorts: [{ports: [{port: '53'}]}]\n",
        ),
        policy(
            "e",
            "  egressDeny:\n  - toEntities: [host]\n  egress:\n  - toEndpoints: [{}]\n    toPorts: [{ports: [{port: '53'}], rules: {dns: [{matchPattern: '*'}]}}]\n",
        ),
    ];
    let expected = compiled(&policies);
    // Every permutation: digit by digit, in the factorial number system.
    for mut number in 0..120 {
        let mut left = policies.to_vec();
        let mut permuted = Vec::new();
        for size in (1..=policies.len()).rev() {
            permuted.push(left.remove(number % size));
            number /= size;
        }
        let program = compiled(&permuted);
        assert_eq!(program.id(), expected.id());
        assert_eq!(program, expected);
    }
}

fn prefix() -> impl Strategy<Value = IpNet> {
    (0u8..=255, 24u8..=32)
        .prop_map(|(last, length)| IpNet::new(IpAddr::from([10, 0, 0, last]), length).unwrap().trunc())
}

fn ports() -> impl Strategy<Value = PortSet> {
    let range = (1u16..6, 0u16..3).prop_map(|(first, more)| PortRange {
        protocol: Protocol::Tcp,
        first,
        last: first + more,
    });
    prop_oneof![
        1 => Just(PortSet::All),
        4 => prop::collection::vec(range, 1..3).prop_map(PortSet::from_ranges),
    ]
}

proptest! {
    #[test]
    fn disjoint_prefixes_match_what_the_overlapping_ones_did_and_each_packet_once(
        entries in prop::collection::vec((prop::sample::select(vec![Zone::World, Zone::Cluster]), prefix(), ports()), 0..12)
    ) {
        let mut gathered: BTreeMap<(Zone, IpNet), PortSet> = BTreeMap::new();
        for (zone, prefix, ports) in &entries {
            let known = gathered.entry((*zone, *prefix)).or_insert_with(no_ports);
            *known = known.union(ports);
        }
        let rules = disjoint(gathered);
        let every = |zone: Zone, address: IpAddr| entries
            .iter()
            .any(|(z, p, ports)| *z == zone && p.contains(&address) && *ports == PortSet::All);
        for zone in [Zone::World, Zone::Cluster] {
            for last in (0..=255u8).step_by(3) {
                let address = IpAddr::from([10, 0, 0, last]);
                let here: Vec<_> = rules.iter().filter(|r| r.zone == zone && r.prefix.contains(&address)).collect();
                let all = here.iter().filter(|rule| rule.ports == PortSet::All).count();
                prop_assert_eq!(all, usize::from(every(zone, address)));
                for port in 0..9 {
                    let expected = entries
                        .iter()
                        .any(|(z, p, ports)| *z == zone && p.contains(&address) && ports.contains(Protocol::Tcp, port));
                    let listing = here
                        .iter()
                        .filter(|rule| rule.ports != PortSet::All && rule.ports.contains(Protocol::Tcp, port))
                        .count();
                    prop_assert!(listing <= 1, "two entries of one set overlap");
                    prop_assert_eq!(listing + all > 0, expected);
                }
            }
        }
    }
}
