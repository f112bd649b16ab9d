//! NetworkPolicies such as the documentation of Kubernetes explains.

use policy::Protocol::{Sctp, Tcp, Udp};

use crate::world::World;

const OUTSIDE: [u8; 4] = [198, 51, 100, 9];

fn policy(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n"
    )
}

#[test]
fn a_policy_of_ingress_alone_leaves_egress_open() {
    for spec in [
        "{podSelector: {}}",
        "{podSelector: {}, ingress: []}",
        "{podSelector: {}, policyTypes: [Ingress], egress: [{to: [{podSelector: {}}]}]}",
    ] {
        let world = World::under(&policy("p", spec));
        assert!(world.reaches("shop/web", OUTSIDE, (Tcp, 443)), "{spec}");
    }
    let with_rules = World::under(&policy("p", "{podSelector: {}, egress: [{to: [{podSelector: {}}]}]}"));
    assert!(
        !with_rules.reaches("shop/web", OUTSIDE, (Tcp, 443)),
        "rules for egress govern it"
    );
}

#[test]
fn selectors_in_one_peer_are_both_and_in_two_peers_are_either() {
    let peers = |peers: &str| {
        let spec = format!("{{podSelector: {{}}, policyTypes: [Egress], egress: [{{to: [{peers}]}}]}}");
        let world = World::under(&policy("p", &spec));
        ["shop/db", "bank/web", "bank/db", "monitoring/gateway"].map(|to| world.reaches_pod("shop/web", to, 1))
    };
    let (team, app) = (
        "namespaceSelector: {matchLabels: {team: blue}}",
        "podSelector: {matchLabels: {app: db}}",
    );
    assert_eq!(
        peers(&format!("{{{team}, {app}}}")),
        [false, false, true, false],
        "both"
    );
    assert_eq!(
        peers(&format!("{{{team}}}, {{{app}}}")),
        [true, true, true, false],
        "either"
    );
    assert_eq!(
        peers(&format!("{{{app}}}")),
        [true, false, false, false],
        "its own namespace"
    );
    assert_eq!(peers("{namespaceSelector: {}}"), [true, true, true, true]);
    assert_eq!(
        peers(
            "{namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: [bank, monitoring]}]}}"
        ),
        [false, true, true, true]
    );
}

#[test]
fn ranges_and_names_of_ports() {
    let ports = |ports: &str| {
        let spec = format!(
            "{{podSelector: {{}}, policyTypes: [Egress], egress: [{{to: [{{podSelector: {{}}}}], ports: [{ports}]}}]}}"
        );
        World::under(&policy("p", &spec))
    };
    let range = ports("{port: 32000, endPort: 32768}");
    assert_eq!(
        [31999, 32000, 32768, 32769].map(|port| range.reaches_pod("shop/web", "shop/db", port)),
        [false, true, true, false]
    );
    let named = ports("{port: web}");
    assert_eq!(
        [8080, 80].map(|port| named.reaches_pod("shop/web", "shop/db", port)),
        [true, false]
    );
    let db = [10, 244, 0, 2];
    assert!(!named.reaches("shop/web", db, (Udp, 8080)));
    let other_protocol = ports("{port: dns}");
    assert!(
        !other_protocol.reaches("shop/web", db, (Udp, 53)),
        "the protocol is TCP where none is written"
    );
    assert!(ports("{port: dns, protocol: UDP}").reaches("shop/web", db, (Udp, 53)));
    assert!(ports("{port: 7, protocol: SCTP}").reaches("shop/web", db, (Sctp, 7)));
    let every_udp = ports("{protocol: UDP}");
    assert!(every_udp.reaches("shop/web", db, (Udp, 1)) && !every_udp.reaches("shop/web", db, (Tcp, 1)));
}
