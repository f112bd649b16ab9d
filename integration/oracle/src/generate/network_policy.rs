//! NetworkPolicy.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::words::{OF_NAMESPACES, OWN, namespace, port, prefix_with_holes, protocol, put, selector};

pub(super) fn policy() -> impl Strategy<Value = Value> {
    let subject = prop_oneof![2 => Just(json!({})), 3 => selector(&OWN)];
    let types = option::of(select(vec![
        json!(["Egress"]),
        json!(["Ingress", "Egress"]),
        json!(["Ingress"]),
        json!([]),
    ]));
    let egress = option::weighted(0.85, vec(rule("to"), 0..4));
    let ingress = option::weighted(0.7, vec(rule("from"), 0..4));
    (namespace(), subject, types, egress, ingress).prop_map(|(namespace, subject, types, egress, ingress)| {
        let mut spec = json!({"podSelector": subject});
        put(&mut spec, "policyTypes", types);
        put(&mut spec, "egress", egress);
        put(&mut spec, "ingress", ingress);
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"namespace": namespace}, "spec": spec})
    })
}

/// A rule with its peers in the list `field`.
fn rule(field: &'static str) -> impl Strategy<Value = Value> {
    let peers = option::weighted(0.8, vec(peer(), 0..3));
    let ports = option::weighted(0.7, vec(one_port(), 0..3));
    (peers, ports).prop_map(move |(peers, ports)| {
        let mut rule = json!({});
        put(&mut rule, field, peers);
        put(&mut rule, "ports", ports);
        rule
    })
}

fn peer() -> impl Strategy<Value = Value> {
    let block = prefix_with_holes().prop_map(|(cidr, except)| {
        let mut block = json!({"cidr": cidr});
        put(&mut block, "except", (!except.is_empty()).then_some(except));
        json!({"ipBlock": block})
    });
    let pods = selector(&OWN).prop_map(|pods| json!({"podSelector": pods}));
    let namespaces = selector(&OF_NAMESPACES).prop_map(|namespaces| json!({"namespaceSelector": namespaces}));
    let both = (selector(&OWN), selector(&OF_NAMESPACES))
        .prop_map(|(pods, namespaces)| json!({"podSelector": pods, "namespaceSelector": namespaces}));
    prop_oneof![3 => block, 2 => pods, 2 => namespaces, 2 => both]
}

fn one_port() -> impl Strategy<Value = Value> {
    let number = port().prop_map(|(first, last)| {
        let mut written = json!({"port": first});
        put(&mut written, "endPort", last);
        written
    });
    let name = select(vec!["web", "http", "dns"]).prop_map(|name| json!({"port": name}));
    let every = Just(json!({}));
    let which = prop_oneof![4 => number, 2 => name, 1 => every];
    (which, option::of(protocol())).prop_map(|(mut written, protocol)| {
        put(&mut written, "protocol", protocol);
        written
    })
}
