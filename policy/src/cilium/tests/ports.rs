//! `toPorts`: ports, and what may be asked or looked into there.

use crate::peer_selector::NamedPort;

use super::*;

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
    let any = |first, last| PortSet::Ranges(Protocol::ANY.map(|protocol| range(protocol, first, last)).to_vec());
    assert_eq!(ports("{port: '53'}"), any(53, 53));
    assert_eq!(ports("{port: '53', protocol: ANY}"), any(53, 53));
    assert_eq!(ports("{port: '0', endPort: 7}"), any(0, 65535));
}

#[test]
fn bad_ports_are_refused() {
    let many = vec!["{port: '1'}"; 41].join(", ");
    let found = findings_in_egress(&format!(
        "  - toPorts:\n    - ports:\n      - port: '65536'\n      - port: ''\n      - port: '443-445'\n      - protocol: TCP\n      - port: '9'\n        endPort: 8\n      - port: '9'\n        endPort: 70000\n      - port: http\n        endPort: 90\n      - port: '1'\n        protocol: OSPF\n    - ports: [{many}]\n  - icmps: [{{fields: [{{type: 8}}]}}]\n    toPorts: [{{ports: [{{port: '1'}}]}}]\n"
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
        ]
    );
}

#[test]
fn protocols_without_ports_are_reported_and_may_leave_the_port_out() {
    for port in [
        "{protocol: GRE}",
        "{protocol: esp, port: '0'}",
        "{protocol: VRRP}",
        "{protocol: IPv6}",
    ] {
        let rules = format!("  - toPorts:\n    - ports: [{port}]\n");
        assert_eq!(
            findings_in_egress(&rules),
            ["not-enforced spec.egress[0].toPorts[0].ports[0].protocol 10"],
            "{port}"
        );
        assert!(rule(&rules).ports.is_empty());
        assert_eq!(denial(&rules).ports, PortSet::All);
    }
    assert_eq!(
        findings_in_egress("  - toPorts:\n    - ports: [{protocol: TCP}]\n"),
        ["missing-field spec.egress[0].toPorts[0].ports[0] 10"]
    );
}

#[test]
fn icmp_types_are_numbers_and_names_of_a_family() {
    let types = |fields: &str| rule(&format!("  - icmps: [{{fields: [{fields}]}}]\n")).ports;
    let one = |protocol, number| PortSet::from_ranges([PortRange::single(protocol, number)]);
    for (field, expected) in [
        ("{type: 8}", one(Protocol::Icmp, 8)),
        ("{type: '8', family: IPv4}", one(Protocol::Icmp, 8)),
        ("{type: 0}", one(Protocol::Icmp, 0)),
        ("{type: 255, family: IPv6}", one(Protocol::Icmpv6, 255)),
        ("{type: Echo}", one(Protocol::Icmp, 8)),
        ("{type: EchoRequest}", one(Protocol::Icmp, 8)),
        ("{type: EchoRequest, family: IPv6}", one(Protocol::Icmpv6, 128)),
        ("{type: DestinationUnreachable}", one(Protocol::Icmp, 3)),
        ("{type: DestinationUnreachable, family: IPv6}", one(Protocol::Icmpv6, 1)),
        ("{type: RouterAdvertisement}", one(Protocol::Icmp, 9)),
        ("{type: RouterAdvertisement, family: IPv6}", one(Protocol::Icmpv6, 134)),
        ("{type: PacketTooBig, family: IPv6}", one(Protocol::Icmpv6, 2)),
    ] {
        assert_eq!(types(field), expected, "{field}");
    }
    let ping =
        "  - toFQDNs: [{matchName: a.example}]\n    icmps: [{fields: [{type: Echo}, {type: 128, family: IPv6}]}]\n";
    assert_eq!(findings_in_egress(ping), none());
    let both = [
        PortRange::single(Protocol::Icmp, 8),
        PortRange::single(Protocol::Icmpv6, 128),
    ];
    assert_eq!(rule(ping).ports, PortSet::from_ranges(both));
    assert_eq!(denial(ping).ports, PortSet::from_ranges(both));
}

#[test]
fn bad_icmp_types_are_refused() {
    let many = vec!["{type: 8}"; 41].join(", ");
    let found = findings_in_egress(&format!(
        "  - icmps:\n    - fields:\n      - type: 256\n      - type: -1\n      - type: PacketTooBig\n      - type: '08'\n      - family: IPv6\n      - family: IPv5\n        type: 8\n    - fields: [{many}]\n"
    ));
    let fields = "spec.egress[0].icmps[0].fields";
    assert_eq!(
        found,
        [
            format!("bad-icmp-type {fields}[0].type 11"),
            format!("bad-icmp-type {fields}[1].type 12"),
            format!("bad-icmp-type {fields}[2].type 13"),
            format!("bad-icmp-type {fields}[3].type 14"),
            format!("missing-field {fields}[4] 15"),
            format!("bad-value {fields}[5].family 16"),
            "too-many spec.egress[0].icmps[1].fields 18".to_owned(),
        ]
    );
}

#[test]
fn icmps_without_fields_open_nothing_and_deny_every_message() {
    let text = "  - icmps: [{}]\n";
    assert_eq!(findings_in_egress(text), ["no-ports spec.egress[0].icmps[0] 9"]);
    assert!(rule(text).ports.is_empty());
    let every = [Protocol::Icmp, Protocol::Icmpv6].map(PortRange::every);
    assert_eq!(denial(text).ports, PortSet::from_ranges(every));
}

#[test]
fn a_named_port_of_the_cluster_is_a_containers() {
    let text = "  - toEntities: [cluster]\n    toPorts: [{ports: [{port: http, protocol: TCP}, {port: '80', protocol: TCP}]}]\n";
    assert_eq!(findings_in_egress(text), none());
    let http = NamedPort {
        name: "http".into(),
        protocols: vec![Protocol::Tcp],
    };
    for rule in [rule(text), denial(text)] {
        assert_eq!(rule.named, std::slice::from_ref(&http));
        assert_eq!(rule.ports, PortSet::Ranges(vec![range(Protocol::Tcp, 80, 80)]));
    }
    let looked_into =
        "  - toEndpoints: [{}]\n    toPorts: [{ports: [{port: web, protocol: TCP}], rules: {http: [{}]}}]\n";
    assert_eq!(rule(looked_into).named, []);
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
