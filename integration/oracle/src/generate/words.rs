//! The few words that everything is made of.

use std::net::IpAddr;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

/// Addresses outside the cluster.
pub(super) const WORLD: [&str; 9] = [
    "203.0.113.1",
    "203.0.113.17",
    "203.0.113.18",
    "203.0.113.40",
    "198.51.100.7",
    "10.77.0.1",
    "2001:db8::1",
    "2001:db8::17",
    "2001:db8:1::1",
];

/// Addresses inside it that are not this node's and its pods': pods, nodes and services, and one
/// that nobody has.
pub(super) const CLUSTER: [&str; 9] = [
    "10.2.0.1",
    "10.2.0.2",
    "fd02::1",
    "10.9.0.2",
    "fd09::2",
    "10.96.0.10",
    "10.96.0.1",
    "10.2.0.77",
    "203.0.113.17",
];

pub(super) const NAMES: [&str; 5] = ["a.example", "x.a.example", "y.x.a.example", "ab.example", "b.test"];

const PREFIXES_V4: [&str; 9] = [
    "203.0.113.0/24",
    "203.0.113.16/28",
    "203.0.113.17/32",
    "203.0.113.18/31",
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.2.0.0/24",
    "10.9.0.0/16",
    "198.51.100.0/25",
];

const PREFIXES_V6: [&str; 5] = [
    "2001:db8::/32",
    "2001:db8::/64",
    "2001:db8::17/128",
    "::/0",
    "fd02::/16",
];

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is no address"))
}

pub(super) fn prefix() -> impl Strategy<Value = String> {
    let all: Vec<&str> = PREFIXES_V4.into_iter().chain(PREFIXES_V6).collect();
    select(all).prop_map(str::to_owned)
}

/// A prefix, and others that lie within it.
pub(super) fn prefix_with_holes() -> impl Strategy<Value = (String, Vec<String>)> {
    prefix().prop_flat_map(|whole| {
        let net: ipnet::IpNet = whole.parse().expect("a prefix");
        let all = PREFIXES_V4.into_iter().chain(PREFIXES_V6);
        let within: Vec<String> = all
            .filter(|hole| {
                let hole: ipnet::IpNet = hole.parse().expect("a prefix");
                net.contains(&hole) && hole != net
            })
            .map(str::to_owned)
            .collect();
        let most = within.len().min(2);
        let holes = proptest::sample::subsequence(within, 0..=most);
        (Just(whole), holes)
    })
}

/// Labels that objects of every kind may have.
pub(super) fn labels() -> impl Strategy<Value = Map<String, Value>> {
    btree_map(select(vec!["app", "env"]), select(vec!["a", "b"]), 0..3).prop_map(|labels| {
        labels
            .into_iter()
            .map(|(key, value)| (key.to_owned(), json!(value)))
            .collect()
    })
}

/// A selector over the given keys, each with two values that it may have.
pub(super) fn selector(keys: &[(&'static str, [&'static str; 2])]) -> impl Strategy<Value = Value> + use<> {
    let keys = keys.to_vec();
    let label = select(keys.clone()).prop_flat_map(|(key, values)| (Just(key), select(values.to_vec())));
    let expression = select(keys).prop_flat_map(|(key, values)| {
        let operator = select(vec!["In", "NotIn", "Exists", "DoesNotExist"]);
        (
            Just(key),
            operator,
            proptest::sample::subsequence(values.to_vec(), 1..=2),
        )
    });
    let expression = expression.prop_map(|(key, operator, values)| match operator {
        "In" | "NotIn" => json!({"key": key, "operator": operator, "values": values}),
        _ => json!({"key": key, "operator": operator}),
    });
    let everything = Just(json!({}));
    let by_labels = vec(label, 1..3).prop_map(|labels| {
        let labels: Map<String, Value> = labels
            .into_iter()
            .map(|(key, value)| (key.to_owned(), json!(value)))
            .collect();
        json!({"matchLabels": labels})
    });
    let by_expressions = vec(expression, 1..3).prop_map(|expressions| json!({"matchExpressions": expressions}));
    prop_oneof![2 => everything, 4 => by_labels, 2 => by_expressions]
}

/// The keys of [`labels`].
pub(super) const OWN: [(&str, [&str; 2]); 2] = [("app", ["a", "b"]), ("env", ["a", "b"])];

/// The keys of namespaces.
pub(super) const OF_NAMESPACES: [(&str, [&str; 2]); 2] =
    [("team", ["a", "b"]), ("kubernetes.io/metadata.name", ["red", "blue"])];

pub(super) fn namespace() -> impl Strategy<Value = &'static str> {
    select(vec!["red", "blue"])
}

pub(super) fn protocol() -> impl Strategy<Value = &'static str> {
    select(vec!["TCP", "UDP", "SCTP"])
}

/// A port and, for a range, its end.
pub(super) fn port() -> impl Strategy<Value = (u16, Option<u16>)> {
    let single = select(vec![80_u16, 443, 8080, 8081, 53]).prop_map(|port| (port, None));
    let range = select(vec![
        (80, 443),
        (443, 8080),
        (8080, 8081),
        (1, 65_535),
        (1024, 65_535),
        (81, 442),
    ])
    .prop_map(|(first, last)| (first, Some(last)));
    prop_oneof![3 => single, 2 => range]
}

/// Puts a field there, if it is to be.
pub(super) fn put(object: &mut Value, field: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        object[field] = value.into();
    }
}
