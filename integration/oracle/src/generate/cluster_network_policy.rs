//! ClusterNetworkPolicy.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::words::{OF_NAMESPACES, OWN, port, prefix, put, selector};

pub(super) fn policy() -> impl Strategy<Value = Value> {
    let subject = prop_oneof![
        3 => Just(json!({"namespaces": {}})),
        1 => selector(&OF_NAMESPACES).prop_map(|namespaces| json!({"namespaces": namespaces})),
        2 => pods(),
    ];
    let tier = any::<bool>();
    tier.prop_flat_map(move |admin| {
        let egress = option::weighted(0.8, vec(egress_rule(admin), 1..5));
        let ingress = option::weighted(0.6, vec(ingress_rule(), 1..5));
        (Just(admin), select(vec![0, 1, 10, 1000]), subject.clone(), egress, ingress)
    })
    .prop_map(|(admin, priority, subject, egress, ingress)| {
        let tier = if admin { "Admin" } else { "Baseline" };
        let mut spec = json!({"tier": tier, "priority": priority, "subject": subject});
        put(&mut spec, "egress", egress);
        put(&mut spec, "ingress", ingress);
        json!({"apiVersion": "policy.networking.k8s.io/v1beta1", "kind": "ClusterNetworkPolicy", "metadata": {}, "spec": spec})
    })
}

fn pods() -> impl Strategy<Value = Value> + Clone {
    (selector(&OF_NAMESPACES), selector(&OWN))
        .prop_map(|(namespaces, pods)| json!({"pods": {"namespaceSelector": namespaces, "podSelector": pods}}))
        .boxed()
}

/// Names are only ever accepted, and only in tier Admin. Ports have names at pods alone.
fn egress_rule(admin: bool) -> impl Strategy<Value = Value> {
    let plain = (
        select(vec!["Accept", "Deny", "Pass"]),
        vec(peer(), 1..3),
        option::of(vec(protocol(), 1..3)),
    );
    let to_pods = vec(prop_oneof![pods(), namespaces()], 1..3);
    let named_port = select(vec!["web", "http", "dns"]).prop_map(|name| json!({"destinationNamedPort": name}));
    let named = vec(prop_oneof![named_port, protocol()], 1..3).prop_map(Some);
    let named = (select(vec!["Accept", "Deny", "Pass"]), to_pods, named);
    let domains = vec(prop_oneof![1 => peer(), 3 => domain_names()], 1..3);
    let domains = (Just("Accept"), domains, option::of(vec(protocol(), 1..3)));
    let parts = match admin {
        true => prop_oneof![4 => plain, 1 => named, 2 => domains].boxed(),
        false => prop_oneof![4 => plain, 1 => named].boxed(),
    };
    parts.prop_map(|(action, to, protocols)| {
        let mut rule = json!({"action": action, "to": to});
        put(&mut rule, "protocols", protocols);
        rule
    })
}

/// Sources are pods alone.
fn ingress_rule() -> impl Strategy<Value = Value> {
    let from = vec(prop_oneof![2 => pods(), 3 => namespaces()], 1..3);
    let named_port = select(vec!["web", "http", "dns"]).prop_map(|name| json!({"destinationNamedPort": name}));
    let protocols = option::of(vec(prop_oneof![1 => named_port, 3 => protocol()], 1..3));
    (select(vec!["Accept", "Deny", "Pass"]), from, protocols).prop_map(|(action, from, protocols)| {
        let mut rule = json!({"action": action, "from": from});
        put(&mut rule, "protocols", protocols);
        rule
    })
}

fn peer() -> impl Strategy<Value = Value> {
    let nodes = selector(&OWN).prop_map(|nodes| json!({"nodes": nodes}));
    let networks = vec(prefix(), 1..3).prop_map(|mut networks| {
        // A set, in the CRD.
        networks.sort();
        networks.dedup();
        json!({"networks": networks})
    });
    prop_oneof![4 => networks, 2 => pods(), 2 => namespaces(), 1 => nodes]
}

fn namespaces() -> impl Strategy<Value = Value> {
    selector(&OF_NAMESPACES).prop_map(|namespaces| json!({"namespaces": namespaces}))
}

fn domain_names() -> impl Strategy<Value = Value> {
    let name = select(vec![
        "a.example",
        "*.a.example",
        "x.a.example",
        "*.example.net",
        "b.test",
        "*.x.a.example",
    ]);
    vec(name, 1..3).prop_map(|mut names| {
        names.sort_unstable();
        names.dedup();
        json!({"domainNames": names})
    })
}

fn protocol() -> impl Strategy<Value = Value> {
    (select(vec!["tcp", "udp", "sctp"]), port()).prop_map(|(protocol, (first, last))| {
        let port = match last {
            None => json!({"number": first}),
            Some(last) => json!({"range": {"start": first, "end": last}}),
        };
        json!({protocol: {"destinationPort": port}})
    })
}
