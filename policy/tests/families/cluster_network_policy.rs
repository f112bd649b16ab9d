//! ClusterNetworkPolicies such as the documentation of the network policy API explains.

use policy::Protocol::Tcp;

use crate::world::{World, decided_by};

const OUTSIDE: [u8; 4] = [198, 51, 100, 9];

fn policy(name: &str, tier: &str, priority: u16, egress: &str) -> String {
    format!(
        "---\napiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: {name}}}\nspec: {{tier: {tier}, priority: {priority}, subject: {{namespaces: {{matchLabels: {{kind: tenant}}}}}}, egress: [{egress}]}}\n"
    )
}

const EVERYTHING: &str = "to: [{networks: [0.0.0.0/0, '::/0']}]";

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
