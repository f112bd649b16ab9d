//! Worlds and probes, out of few words, so that rules overlap.
//!
//! Everything is made of strategies that shrink towards the first and the fewest, so that a failure
//! ends in a few short objects.

mod cilium;
mod cluster_network_policy;
mod network_policy;
mod objects;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

use crate::probe::{Probe, Protocol, Sender, Traffic};
use crate::verdict::Verdict;
use crate::world::World;

/// A world, and packets sent in it.
#[derive(Clone)]
pub struct Case {
    /// The policies and objects, and the node.
    pub world: World,
    /// The packets; not empty.
    pub probes: Vec<Probe>,
}

/// Where a case takes place: what a lab gives is not to be chosen.
#[derive(Debug, Clone)]
pub struct Site {
    /// The name of the node whose pods are governed.
    pub node: String,
    /// The addresses of that node.
    pub host: Vec<IpAddr>,
    /// The addresses of each of its pods.
    pub pods: Vec<Vec<IpAddr>>,
    /// How many packets are sent.
    pub probes: usize,
}

impl Default for Site {
    fn default() -> Self {
        let both = |v4: [u8; 4], v6: &str| vec![IpAddr::from(v4), v6.parse().expect("an address")];
        Self {
            node: "here".into(),
            host: both([10, 9, 0, 1], "fd09::1"),
            pods: vec![both([10, 1, 0, 1], "fd01::1"), both([10, 1, 0, 2], "fd01::2")],
            probes: 24,
        }
    }
}

/// A case with policies of every kind.
pub fn case(site: &Site) -> impl Strategy<Value = Case> + use<> {
    let site = site.clone();
    let policies = vec(policy(), 1..5);
    let packets = vec((sender(), any::<Index>(), traffic()), 1..=site.probes);
    (objects::objects(&site), names(), policies, packets).prop_map(move |(mut objects, names, policies, packets)| {
        for (number, mut policy) in policies.into_iter().enumerate() {
            policy["metadata"]["name"] = format!("p{number}").into();
            objects.push(policy);
        }
        let pods = objects::endpoints(&objects, &site);
        let world = World {
            objects,
            node: site.node.clone(),
            names,
        };
        let destinations = destinations(&site);
        let local: Vec<IpAddr> = site.pods.iter().flatten().copied().collect();
        let probes = packets.into_iter().map(|(sender, to, traffic)| match sender {
            GeneratedSender::Pod(pod) => {
                let (namespace, name) = pod.get(&pods).clone();
                Probe {
                    from: Sender::Pod(namespace, name),
                    to: *to.get(&destinations),
                    traffic,
                }
            }
            // Only to a pod of the node, and in its family.
            GeneratedSender::Address(from) => {
                let to = *to.get(&local);
                let sources: Vec<IpAddr> = destinations
                    .iter()
                    .copied()
                    .filter(|it| it.is_ipv4() == to.is_ipv4())
                    .collect();
                Probe {
                    from: Sender::Address(*from.get(&sources)),
                    to,
                    traffic,
                }
            }
        });
        let probes = probes.collect();
        Case { world, probes }
    })
}

impl Case {
    /// The same with every name below `zone`, so that cases can follow each other where what names
    /// resolved to is remembered. Patterns that match every name match those of the zone.
    #[must_use]
    pub fn in_zone(mut self, zone: &str) -> Self {
        let names = std::mem::take(&mut self.world.names);
        self.world.names = names
            .into_iter()
            .map(|(name, addresses)| (format!("{name}.{zone}"), addresses))
            .collect();
        self.world
            .objects
            .iter_mut()
            .for_each(|object| move_names(object, zone));
        self
    }

    /// What a person needs to see where two evaluators do not agree on one of the packets.
    pub fn disagreement(&self, probe: &Probe, oracle: Verdict, other: (&str, Verdict)) -> String {
        let names: Vec<String> = self
            .world
            .names
            .iter()
            .map(|(name, addresses)| format!("# {name} is {addresses:?}\n"))
            .collect();
        format!(
            "{probe}: the interpreter says {oracle:?}, {} says {:?}, with\n{}{}",
            other.0,
            other.1,
            names.concat(),
            self.world.yaml()
        )
    }
}

/// Short, since a whole world is shown by [`Case::disagreement`].
impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let probes: Vec<String> = self.probes.iter().map(Probe::to_string).collect();
        write!(f, "{} objects, {}", self.world.objects.len(), probes.join("; "))
    }
}

/// Which pod sends a packet, or which address; most are sent by pods, often to each other.
#[derive(Debug, Clone)]
enum GeneratedSender {
    Pod(Index),
    Address(Index),
}

fn sender() -> impl Strategy<Value = GeneratedSender> {
    prop_oneof![
        2 => any::<Index>().prop_map(GeneratedSender::Pod),
        1 => any::<Index>().prop_map(GeneratedSender::Address),
    ]
}

/// A policy of any kind, still without a name.
fn policy() -> impl Strategy<Value = Value> {
    let of_any_kind = prop_oneof![
        5 => cilium::policy().boxed(),
        3 => network_policy::policy().boxed(),
        3 => cluster_network_policy::policy().boxed(),
    ];
    let emptied = prop::option::weighted(0.05, any::<Index>());
    (of_any_kind, prop::bool::weighted(0.1), emptied).prop_map(|(mut policy, audited, emptied)| {
        if let Some(which) = emptied {
            empty(&mut policy, which);
        }
        if audited {
            policy["metadata"]["annotations"] = json!({"namegate.io/mode": "audit"});
        }
        policy
    })
}

/// Takes what stands behind one of the lists or mappings of a policy's rules, and leaves their
/// field: the policy is refused then.
fn empty(policy: &mut Value, which: Index) {
    let mut paths = Vec::new();
    let specs = [("/spec".to_owned(), &policy["spec"])];
    let more = policy["specs"].as_array().into_iter().flatten().enumerate();
    let more = more.map(|(index, spec)| (format!("/specs/{index}"), spec));
    for (path, spec) in specs.into_iter().chain(more) {
        for field in ["egress", "egressDeny", "ingress", "ingressDeny"] {
            if policy["kind"].as_str().is_some_and(|kind| kind.starts_with("Cilium")) && !spec[field].is_null() {
                paths.push(format!("{path}/{field}"));
            }
            composites(&spec[field], &format!("{path}/{field}"), &mut paths);
        }
    }
    if paths.is_empty() {
        return;
    }
    let path: &String = which.get(&paths);
    if let Some(value) = policy.pointer_mut(path) {
        *value = Value::Null;
    }
}

/// The fields below `value` that hold a list or a mapping.
fn composites(value: &Value, path: &str, into: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                let path = format!("{path}/{}", field.replace('~', "~0").replace('/', "~1"));
                if value.is_object() || value.is_array() {
                    into.push(path.clone());
                }
                composites(value, &path, into);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                composites(item, &format!("{path}/{index}"), into);
            }
        }
        _ => {}
    }
}

/// What names resolve to; sometimes to what they must not open.
fn names() -> impl Strategy<Value = BTreeMap<String, BTreeSet<IpAddr>>> {
    let addresses = words::WORLD.iter().chain(&["10.1.0.1", "10.2.0.1", "10.9.0.2"]);
    let addresses: Vec<IpAddr> = addresses.map(|text| words::ip(text)).collect();
    let names = select(words::NAMES.to_vec()).prop_map(str::to_owned);
    btree_map(names, btree_set(select(addresses), 1..4), 0..4)
}

/// Every address that something may be said of, and some that nothing is. Those of the node's pods
/// come more often, since both ends decide about what goes there.
fn destinations(site: &Site) -> Vec<IpAddr> {
    let own = site.pods.iter().flatten().chain(&site.host).copied();
    let others = words::WORLD.iter().chain(&words::CLUSTER).map(|text| words::ip(text));
    let pods = site.pods.iter().flatten().copied();
    others.chain(own).chain(pods).collect()
}

fn traffic() -> impl Strategy<Value = Traffic> {
    let protocol = select(vec![Protocol::Tcp, Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
    prop_oneof![
        8 => (protocol, select(vec![80_u16, 443, 8080, 8081, 53, 9000, 1, 65_535])).prop_map(|(protocol, port)| Traffic::Port(protocol, port)),
        4 => select(vec![8_u8, 3, 128, 0, 129, 13]).prop_map(Traffic::Icmp),
        1 => Just(Traffic::Other),
    ]
}

fn move_names(value: &mut Value, zone: &str) {
    let moved = |name: &str| match name.trim_end_matches('.') {
        name if name.chars().all(|c| c == '*') => format!("**.{zone}"),
        name => format!("{name}.{zone}"),
    };
    let rename = |name: &mut Value| *name = moved(name.as_str().unwrap_or_default()).into();
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                match field.as_str() {
                    "matchName" | "matchPattern" => rename(value),
                    "domainNames" => value.as_array_mut().into_iter().flatten().for_each(rename),
                    _ => move_names(value, zone),
                }
            }
        }
        Value::Array(entries) => entries.iter_mut().for_each(|entry| move_names(entry, zone)),
        _ => {}
    }
}
