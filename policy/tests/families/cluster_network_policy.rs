//! ClusterNetworkPolicies such as the documentation of the network policy API explains.

use policy::Protocol::{Tcp, Udp};

use crate::world::{NODE, World, decided_by};

const OUTSIDE: [u8; 4] = [198, 51, 100, 9];

fn policy(name: &str, tier: &str, priority: u16, egress: &str) -> String {
    format!(
        "---\napiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: {name}}}\nspec: {{tier: {tier}, priority: {priority}, subject: {{namespaces: {{matchLabels: {{kind: tenant}}}}}}, egress: [{egress}]}}\n"
    )
}

const EVERYTHING: &str = "to: [{networks: [0.0.0.0/0, '::/0']}]";

#[test]
fn an_allowlist_of_domains_denies_the_rest() {
    let world = World::under(&policy(
        "domains",
        "Admin",
        55,
        &format!(
            "{{action: Accept, to: [{{domainNames: ['*.kubernetes.io', kubernetes.io]}}]}}, {{action: Pass, to: [{{namespaces: {{}}}}]}}, {{action: Deny, {EVERYTHING}}}"
        ),
    ));
    for name in ["kubernetes.io", "www.kubernetes.io", "latest.blog.kubernetes.io"] {
        assert!(world.reaches_name("shop/web", name, 443), "{name}");
    }
    for name in ["my-kubernetes.io", "wikipedia.org", "kubernetes.io.example"] {
        assert!(!world.reaches_name("shop/web", name, 443), "{name}");
    }
    assert!(!world.reaches("shop/web", OUTSIDE, (Tcp, 443)));
    assert!(
        world.reaches_pod("shop/web", "bank/db", 5432),
        "passed, and nothing after it denies"
    );
    assert!(world.reaches("monitoring/gateway", OUTSIDE, (Tcp, 443)), "no subject");
}

#[test]
fn tenants_are_kept_from_one_another() {
    let world = World::under(&format!(
        "{}{}",
        policy(
            "own",
            "Admin",
            10,
            "{action: Pass, to: [{namespaces: {matchLabels: {team: red}}}]}"
        ),
        policy(
            "others",
            "Admin",
            20,
            "{action: Deny, to: [{namespaces: {matchLabels: {kind: tenant}}}]}"
        ),
    ));
    assert!(world.reaches_pod("shop/web", "shop/db", 1));
    assert!(!world.reaches_pod("shop/web", "bank/db", 1));
    assert!(world.reaches_pod("shop/web", "monitoring/gateway", 1));
    assert!(world.reaches("shop/web", OUTSIDE, (Tcp, 443)));
}

#[test]
fn lower_priorities_decide_first_then_names_then_the_order_written() {
    let accept = format!("{{action: Accept, {EVERYTHING}}}");
    let deny = format!("{{action: Deny, {EVERYTHING}}}");
    let decides = |text: &str| {
        let explanation = World::under(text).explain("shop/web", Some(OUTSIDE.into()), None, (Tcp, 1));
        decided_by(&explanation).to_owned()
    };
    let (first, second) = (policy("z", "Admin", 1, &accept), policy("a", "Admin", 2, &deny));
    assert_eq!(decides(&format!("{second}{first}")), "z");
    let (a, b) = (policy("a", "Admin", 7, &accept), policy("b", "Admin", 7, &deny));
    assert_eq!(decides(&format!("{b}{a}")), "a");
    let in_order =
        |rules: String| World::under(&policy("p", "Admin", 0, &rules)).reaches("shop/web", OUTSIDE, (Tcp, 1));
    assert!(in_order(format!("{accept}, {deny}")));
    assert!(!in_order(format!("{deny}, {accept}")));
}

#[test]
fn nodes_networks_ports_and_names_of_ports() {
    let rules = "{action: Accept, to: [{nodes: {matchLabels: {role: worker}}}], protocols: [{tcp: {destinationPort: {range: {start: 9100, end: 9199}}}}]},
        {action: Accept, to: [{pods: {podSelector: {matchLabels: {app: db}}}}], protocols: [{destinationNamedPort: web}, {udp: {destinationPort: {number: 7}}}]}";
    let world = World::under(&policy(
        "p",
        "Baseline",
        0,
        &format!("{rules}, {{action: Deny, {EVERYTHING}}}"),
    ));
    let to_node = [9099, 9100, 9199, 9200].map(|port| world.reaches("shop/web", NODE, (Tcp, port)));
    assert_eq!(to_node, [false, true, true, false]);
    assert!(world.reaches_pod("shop/web", "bank/db", 8080), "its port `web`");
    assert!(!world.reaches_pod("shop/web", "bank/db", 80));
    assert!(!world.reaches_pod("shop/web", "bank/web", 8080), "other labels");
    assert!(world.reaches("shop/web", [10, 244, 0, 4], (Udp, 7)));
    assert!(!world.reaches("shop/web", [10, 244, 0, 4], (Udp, 53)), "its port `dns`");
}

#[test]
fn what_no_rule_matches_is_open() {
    let world = World::under(&policy("p", "Admin", 0, "{action: Accept, to: [{nodes: {}}]}"));
    assert!(world.reaches("shop/web", OUTSIDE, (Tcp, 443)));
}

#[test]
fn an_unknown_peer_fails_closed() {
    let rule = |action: &str| {
        World::under(&policy(
            "p",
            "Admin",
            0,
            &format!("{{action: {action}, to: [{{services: {{}}}}]}}"),
        ))
    };
    assert!(
        rule("Accept").reaches("shop/web", OUTSIDE, (Tcp, 443)),
        "matches nothing"
    );
    for action in ["Deny", "Pass"] {
        assert!(!rule(action).reaches("shop/web", OUTSIDE, (Tcp, 443)), "{action}");
        assert!(!rule(action).reaches_pod("shop/web", "shop/db", 1), "{action}");
    }
}

#[test]
fn a_refused_policy_denies_in_its_place_only() {
    let accept = policy(
        "first",
        "Admin",
        1,
        "{action: Accept, to: [{pods: {podSelector: {matchLabels: {app: db}}}}]}",
    );
    let refused = policy("second", "Admin", 2, "{action: Deny, to: []}");
    let world = World::under_refused(&refused);
    assert!(!world.reaches_pod("shop/web", "shop/db", 1) && world.reaches("monitoring/gateway", OUTSIDE, (Tcp, 1)));
    let world = World::under_refused(&refused).beside(World::under(&accept));
    assert!(world.reaches_pod("shop/web", "shop/db", 1));
    assert!(!world.reaches("shop/web", OUTSIDE, (Tcp, 1)));
}
