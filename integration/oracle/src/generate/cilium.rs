//! CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use crate::flow::Direction;

use super::words::{self, namespace, port, prefix, prefix_with_holes, put, selector};

pub(super) fn policy() -> impl Strategy<Value = Value> {
    let namespaced = (namespace(), specs(false)).prop_map(|(namespace, (one, more))| {
        let mut policy =
            json!({"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": {"namespace": namespace}});
        put_specs(&mut policy, one, more);
        policy
    });
    let clusterwide = specs(true).prop_map(|(one, more)| {
        let mut policy =
            json!({"apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy", "metadata": {}});
        put_specs(&mut policy, one, more);
        policy
    });
    prop_oneof![2 => namespaced, 1 => clusterwide]
}

/// `spec`, `specs` or both.
fn specs(clusterwide: bool) -> impl Strategy<Value = (Option<Value>, Vec<Value>)> {
    prop_oneof![
        4 => spec(clusterwide).prop_map(|spec| (Some(spec), Vec::new())),
        1 => (option::of(spec(clusterwide)), vec(spec(clusterwide), 1..3)),
    ]
}

fn put_specs(policy: &mut Value, one: Option<Value>, more: Vec<Value>) {
    put(policy, "spec", one);
    put(policy, "specs", (!more.is_empty()).then_some(more));
}

fn spec(clusterwide: bool) -> impl Strategy<Value = Value> {
    let default_deny = || prop_oneof![6 => Just(None), 1 => any::<bool>().prop_map(Some)];
    let subject = prop_oneof![2 => Just(json!({})), 3 => pods(clusterwide)];
    let which = select(vec![
        vec![Direction::Egress],
        vec![Direction::Ingress],
        Direction::BOTH.to_vec(),
    ]);
    // Boxed, as what is made of large strategies would not fit onto the stack.
    let lists = (lists(Direction::Egress).boxed(), lists(Direction::Ingress).boxed());
    let default_denies = (default_deny(), default_deny());
    (subject, which, lists, default_denies).prop_map(|(subject, which, (egress, ingress), (closes, closes_ingress))| {
        let mut spec = json!({"endpointSelector": subject});
        let each = [
            (Direction::Egress, egress, closes),
            (Direction::Ingress, ingress, closes_ingress),
        ];
        for (direction, (allow, deny), closes) in each.into_iter().filter(|(it, ..)| which.contains(it)) {
            if let Some(closes) = closes {
                spec["enableDefaultDeny"][direction.field()] = closes.into();
            }
            put(&mut spec, direction.field(), allow);
            put(&mut spec, direction.deny_field(), deny);
        }
        spec
    })
}

/// The allowing and the denying rules of a direction. Few specs are without any: those are refused.
fn lists(direction: Direction) -> impl Strategy<Value = (Option<Vec<Value>>, Option<Vec<Value>>)> {
    let allow = prop_oneof![
        9 => vec(allowing(direction), 1..4).prop_map(Some),
        1 => Just(Some(Vec::new())),
        1 => Just(None),
    ];
    (allow, option::weighted(0.4, vec(denying(direction), 0..3)))
}

/// Pods, by their labels and by the special keys.
fn pods(with_namespaces: bool) -> impl Strategy<Value = Value> {
    let mut keys = vec![
        ("app", ["a", "b"]),
        ("env", ["a", "b"]),
        ("k8s:app", ["a", "b"]),
        ("any:env", ["a", "b"]),
        ("io.cilium.k8s.policy.serviceaccount", ["default", "robot"]),
        ("io.cilium.k8s.policy.cluster", ["default", "other"]),
        ("io.cilium.k8s.namespace.labels.team", ["a", "b"]),
    ];
    if with_namespaces {
        keys.push(("k8s:io.kubernetes.pod.namespace", ["red", "blue"]));
        keys.push((
            "io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name",
            ["red", "blue"],
        ));
    }
    selector(&keys)
}

fn allowing(direction: Direction) -> impl Strategy<Value = Value> {
    (peers(direction), traffic(Some(direction))).prop_map(|(peers, traffic)| joined(peers, traffic))
}

fn denying(direction: Direction) -> impl Strategy<Value = Value> {
    (peers(direction), traffic(None)).prop_map(|(peers, traffic)| joined(peers, traffic))
}

fn joined(peers: Option<(&'static str, Value)>, traffic: Option<(&'static str, Value)>) -> Value {
    let mut rule = json!({});
    for (field, value) in peers.into_iter().chain(traffic) {
        rule[field] = value;
    }
    rule
}

/// One kind of selector, or none.
fn peers(direction: Direction) -> impl Strategy<Value = Option<(&'static str, Value)>> {
    let some = match direction {
        Direction::Egress => prop_oneof![
            3 => vec(fqdn(), 0..3).prop_map(|entries| ("toFQDNs", Value::from(entries))),
            3 => vec(cidr(), 0..3).prop_map(|entries| ("toCIDR", entries.into())),
            3 => vec(cidr_rule(), 0..3).prop_map(|entries| ("toCIDRSet", entries.into())),
            3 => vec(pods(true), 0..3).prop_map(|entries| ("toEndpoints", entries.into())),
            3 => vec(entity(), 0..3).prop_map(|entries| ("toEntities", entries.into())),
            4 => vec(service(), 0..3).prop_map(|entries| ("toServices", entries.into())),
            1 => vec(selector(&words::OWN), 0..3).prop_map(|entries| ("toNodes", entries.into())),
        ]
        .boxed(),
        Direction::Ingress => prop_oneof![
            3 => vec(cidr(), 0..3).prop_map(|entries| ("fromCIDR", Value::from(entries))),
            3 => vec(cidr_rule(), 0..3).prop_map(|entries| ("fromCIDRSet", entries.into())),
            6 => vec(pods(true), 0..3).prop_map(|entries| ("fromEndpoints", entries.into())),
            3 => vec(entity(), 0..3).prop_map(|entries| ("fromEntities", entries.into())),
            1 => vec(selector(&words::OWN), 0..3).prop_map(|entries| ("fromNodes", entries.into())),
        ]
        .boxed(),
    };
    option::weighted(0.85, some)
}

fn fqdn() -> impl Strategy<Value = Value> {
    let names = select(vec!["a.example", "X.a.example.", "y.x.a.example", "b.test"]);
    let patterns = select(vec![
        "*.example",
        "*.a.example",
        "**.example",
        "a*.example",
        "*",
        "x.*.example",
        "**.a.example",
        "*b*.example.",
        "a.**.example",
    ]);
    prop_oneof![
        4 => names.prop_map(|name| json!({"matchName": name})),
        4 => patterns.prop_map(|pattern| json!({"matchPattern": pattern})),
        1 => Just(json!({})),
    ]
}

fn cidr() -> impl Strategy<Value = String> {
    prop_oneof![3 => prefix(), 1 => select(words::WORLD.to_vec()).prop_map(str::to_owned)]
}

fn cidr_rule() -> impl Strategy<Value = Value> {
    let with_except = |mut rule: Value, except: Vec<String>| {
        put(&mut rule, "except", (!except.is_empty()).then_some(except));
        rule
    };
    let by_cidr = prefix_with_holes().prop_map(move |(cidr, except)| with_except(json!({"cidr": cidr}), except));
    let name = select(vec!["g0", "g1", "absent"]);
    let by_name =
        (name, vec(prefix(), 0..2)).prop_map(move |(name, except)| with_except(json!({"cidrGroupRef": name}), except));
    let by_labels = (selector(&words::OWN), vec(prefix(), 0..2))
        .prop_map(move |(labels, except)| with_except(json!({"cidrGroupSelector": labels}), except));
    prop_oneof![3 => by_cidr, 1 => by_name, 1 => by_labels]
}

fn entity() -> impl Strategy<Value = &'static str> {
    select(vec![
        "world",
        "world-ipv4",
        "world-ipv6",
        "cluster",
        "cluster-mesh",
        "host",
        "remote-node",
        "kube-apiserver",
        "all",
        "none",
        "health",
        "unmanaged",
    ])
}

fn service() -> impl Strategy<Value = Value> {
    let namespaces = || option::of(select(vec!["red", "default", "blue"]));
    let by_name =
        (select(vec!["api", "api", "api", "kubernetes", "absent"]), namespaces()).prop_map(|(name, namespace)| {
            let mut wanted = json!({"serviceName": name});
            put(&mut wanted, "namespace", namespace);
            json!({"k8sService": wanted})
        });
    let by_labels = (selector(&words::OWN), namespaces()).prop_map(|(labels, namespace)| {
        let mut wanted = json!({"selector": labels});
        put(&mut wanted, "namespace", namespace);
        json!({"k8sServiceSelector": wanted})
    });
    prop_oneof![by_name, by_labels]
}

/// `allowing` is the direction of a rule that allows.
fn traffic(allowing: Option<Direction>) -> impl Strategy<Value = Option<(&'static str, Value)>> {
    let entries = vec(to_ports(allowing), 0..3).prop_map(|entries| ("toPorts", Value::from(entries)));
    let icmps = vec(vec(icmp(), 1..3).prop_map(|fields| json!({"fields": fields})), 0..2)
        .prop_map(|entries| ("icmps", entries.into()));
    prop_oneof![5 => Just(None), 8 => entries.prop_map(Some), 3 => icmps.prop_map(Some)]
}

/// Entries that ask for more than ports are part of it. DNS rules are of egress alone.
fn to_ports(allowing: Option<Direction>) -> impl Strategy<Value = Value> {
    let plain = vec(one_port(), 0..3).prop_map(|ports| match ports.is_empty() {
        true => json!({}),
        false => json!({"ports": ports}),
    });
    let web = select(vec![
        json!({"port": "80", "protocol": "TCP"}),
        json!({"port": "http", "protocol": "TCP"}),
        json!({"port": "80", "endPort": 443, "protocol": "TCP"}),
    ]);
    let entries = select(vec![
        json!([{"method": "GET"}]),
        json!([{"method": "GET|HEAD", "path": "/users"}]),
        json!([{"path": "/users/.*", "host": r"a\.example"}, {"method": "POST"}]),
        json!([{}]),
        json!([]),
    ]);
    let http = (web.clone(), entries).prop_map(|(port, entries)| json!({"ports": [port], "rules": {"http": entries}}));
    let listed = select(vec![
        json!(["a.example"]),
        json!(["*.a.example", "b.test"]),
        json!(["**.example"]),
        json!(["*"]),
        json!([]),
    ]);
    let any_protocol = json!({"port": "443"});
    let tls = (prop_oneof![web, Just(any_protocol)], listed)
        .prop_map(|(port, listed)| json!({"ports": [port], "serverNames": listed}));
    let dns = fqdn().prop_map(|name| json!({"ports": [{"port": "53", "protocol": "ANY"}], "rules": {"dns": [name]}}));
    match allowing {
        None => plain.boxed(),
        Some(Direction::Egress) => prop_oneof![8 => plain, 2 => http, 2 => tls, 1 => dns].boxed(),
        Some(Direction::Ingress) => prop_oneof![8 => plain, 2 => http, 2 => tls].boxed(),
    }
}

fn one_port() -> impl Strategy<Value = Value> {
    let protocols = || option::of(select(vec!["TCP", "UDP", "SCTP", "ANY"]));
    let number = (port(), protocols()).prop_map(|((first, last), protocol)| {
        let mut port = json!({"port": first.to_string()});
        put(&mut port, "endPort", last);
        put(&mut port, "protocol", protocol);
        port
    });
    let other = (select(vec!["0", "http", "web", "dns", "https"]), protocols()).prop_map(|(name, protocol)| {
        let mut port = json!({"port": name});
        put(&mut port, "protocol", protocol);
        port
    });
    let without_ports = select(vec!["GRE", "ESP", "IGMP"]).prop_map(|protocol| json!({"protocol": protocol}));
    prop_oneof![12 => number, 4 => other, 1 => without_ports]
}

fn icmp() -> impl Strategy<Value = Value> {
    let v4 = select(vec![
        json!(8),
        json!(0),
        json!(3),
        json!("EchoRequest"),
        json!("DestinationUnreachable"),
        json!("EchoReply"),
        json!("8"),
    ]);
    let v6 = select(vec![
        json!(128),
        json!(129),
        json!(3),
        json!("EchoRequest"),
        json!("EchoReply"),
    ]);
    prop_oneof![
        v4.clone().prop_map(|kind| json!({"type": kind})),
        v4.prop_map(|kind| json!({"family": "IPv4", "type": kind})),
        v6.prop_map(|kind| json!({"family": "IPv6", "type": kind})),
    ]
}
