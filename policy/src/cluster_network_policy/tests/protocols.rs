//! `protocols`.

use super::*;

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
