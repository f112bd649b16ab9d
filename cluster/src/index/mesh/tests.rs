use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn applied(object: &Value) -> ObjectChange {
    let read = |object: &Value| object.clone();
    ObjectChange::Apply(match object["kind"].as_str() {
        Some("Pod") => Object::Pod(Arc::new(serde_json::from_value(read(object)).unwrap())),
        Some("Service") => Object::Service(Arc::new(serde_json::from_value(read(object)).unwrap())),
        Some("ServiceImport") => Object::ServiceImport(Arc::new(serde_json::from_value(read(object)).unwrap())),
        Some("EndpointSlice") => Object::EndpointSlice(Arc::new(serde_json::from_value(read(object)).unwrap())),
        Some("Node") => Object::Node(Arc::new(serde_json::from_value(read(object)).unwrap())),
        other => panic!("{other:?}"),
    })
}

fn pod(name: &str, address: &str) -> Value {
    json!({
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": name}},
        "spec": {"nodeName": "elsewhere"},
        "status": {"podIPs": [{"ip": address}]},
    })
}

fn node(name: &str, range: &str, address: &str) -> Value {
    json!({
        "kind": "Node",
        "metadata": {"name": name},
        "spec": {"podCIDR": range},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    })
}

fn mesh() -> Cluster {
    Cluster::of_mesh("here", "east", ["west", "north"])
}

/// `cluster address` of every pod that rules may select.
fn peers(cluster: &Cluster) -> Vec<String> {
    let inventory = cluster.inventory();
    let mut peers: Vec<String> = inventory
        .pods
        .iter()
        .map(|pod| format!("{} {}", pod.labels()[keys::CLUSTER], pod.addresses()[0]))
        .collect();
    peers.sort();
    peers
}

fn ranges(cluster: &Cluster) -> Vec<String> {
    let others = cluster.inventory().other_clusters.unwrap();
    others.ranges.iter().map(ToString::to_string).collect()
}

#[test]
fn pods_and_nodes_of_other_clusters_are_peers_and_lie_inside() {
    let mut cluster = mesh();
    cluster.apply(applied(&node("a", "10.1.0.0/24", "192.0.2.1")));
    cluster.apply(applied(&pod("web", "10.1.0.2")));
    cluster.apply_of("west", applied(&node("a", "10.2.0.0/24", "192.0.2.2")));
    cluster.apply_of("west", applied(&pod("web", "10.2.0.2")));
    cluster.apply_of("west", applied(&pod("stray", "10.9.0.9")));
    cluster.apply_of("nobody", applied(&pod("web", "10.3.0.2")));
    cluster.settle();
    assert_eq!(peers(&cluster), ["east 10.1.0.2", "west 10.2.0.2", "west 10.9.0.9"]);
    assert_eq!(ranges(&cluster), ["10.2.0.0/24", "10.9.0.9/32"]);
    let inside: Vec<String> = cluster.networks().iter().map(ToString::to_string).collect();
    assert_eq!(
        inside,
        [
            "10.1.0.0/24",
            "10.2.0.0/24",
            "10.9.0.9/32",
            "192.0.2.1/32",
            "192.0.2.2/32"
        ]
    );
    let inventory = cluster.inventory();
    let nodes: Vec<_> = inventory
        .nodes
        .iter()
        .map(|(key, node)| (key.as_str(), node.labels[keys::CLUSTER].as_str()))
        .collect();
    assert_eq!(nodes, [("a", "east"), ("west/a", "west")]);
    assert!(cluster.endpoints().is_empty());
    let [north, west] = cluster.others().try_into().unwrap();
    assert_eq!((&*north.name, north.pods), ("north", 0));
    assert_eq!(
        (&*west.name, west.pods, west.nodes, west.contested.len()),
        ("west", 2, 1, 0)
    );
}

#[test]
fn a_pod_of_another_cluster_is_never_local() {
    let mut cluster = mesh();
    let mut bare = pod("web", "10.2.0.2");
    bare["spec"] = json!({});
    cluster.apply_of("west", applied(&bare));
    bare["spec"]["nodeName"] = "here".into();
    bare["metadata"]["name"] = "of-a-node-of-the-same-name".into();
    bare["status"]["podIPs"][0]["ip"] = "10.2.0.3".into();
    cluster.apply_of("west", applied(&bare));
    cluster.settle();
    assert!(cluster.endpoints().is_empty());
    assert_eq!(peers(&cluster).len(), 2);
}

#[test]
fn a_range_that_two_clusters_claim_holds_no_pods_of_others_until_one_gives_it_up() {
    let mut cluster = mesh();
    cluster.apply(applied(&node("a", "10.1.0.0/24", "192.0.2.1")));
    cluster.apply(applied(&pod("web", "10.1.0.2")));
    // All of it is refused, and what lies in the own range without being claimed.
    cluster.apply_of("west", applied(&node("a", "10.1.0.0/16", "192.0.2.2")));
    cluster.apply_of("west", applied(&node("b", "10.2.0.0/24", "192.0.2.1")));
    for (name, address) in [("in", "10.1.0.9"), ("beside", "10.1.7.7"), ("apart", "10.2.0.2")] {
        cluster.apply_of("west", applied(&pod(name, address)));
    }
    cluster.apply_of("north", applied(&pod("in", "10.1.0.8")));
    cluster.settle();
    assert_eq!(peers(&cluster), ["east 10.1.0.2", "west 10.2.0.2"]);
    assert_eq!(ranges(&cluster), ["10.2.0.0/24"]);
    assert!(!cluster.networks().contains(&"10.1.0.0/16".parse().unwrap()));
    let nodes = cluster.inventory().nodes;
    assert!(nodes["west/b"].addresses.is_empty(), "the own node has the address");
    let mut reports = Vec::new();
    cluster.report_others(&mut reports);
    let [report] = reports.as_slice() else {
        panic!("{reports:?}")
    };
    assert_eq!(
        (report.object.as_str(), report.state),
        ("cluster west", ReportState::Partial)
    );
    let reasons: Vec<&str> = report.diagnostics.iter().map(|it| it.reason.as_str()).collect();
    assert!(
        reasons[0].starts_with("10.1.0.0/16 of its Node a overlaps 10.1.0.0/24 of the cluster east"),
        "{reasons:?}"
    );
    assert!(reasons[1].starts_with("192.0.2.1/32 of its Node b"), "{reasons:?}");

    cluster.apply_of("west", applied(&node("a", "10.3.0.0/24", "192.0.2.2")));
    cluster.apply(ObjectChange::Delete(ObjectKey::Node("a".into())));
    cluster.settle();
    assert_eq!(
        peers(&cluster),
        [
            "east 10.1.0.2",
            "north 10.1.0.8",
            "west 10.1.0.9",
            "west 10.1.7.7",
            "west 10.2.0.2"
        ]
    );
    assert_eq!(cluster.others()[1].contested, [""; 0]);
}

#[test]
fn an_address_that_pods_of_two_clusters_have_is_the_own_ones_or_nobodys() {
    let mut cluster = mesh();
    cluster.apply_of("west", applied(&pod("a", "10.9.0.1")));
    cluster.apply_of("west", applied(&pod("b", "10.9.0.2")));
    cluster.apply_of("north", applied(&pod("b", "10.9.0.2")));
    cluster.settle();
    assert_eq!(peers(&cluster), ["west 10.9.0.1"]);
    cluster.apply(applied(&pod("own", "10.9.0.1")));
    cluster.settle();
    assert_eq!(peers(&cluster), ["east 10.9.0.1"]);
    assert!(cluster.others()[1].contested[0].contains("10.9.0.1 is the address of a pod of the cluster east too"));
    cluster.apply_of("north", ObjectChange::Delete(ObjectKey::Pod("shop".into(), "b".into())));
    cluster.apply(ObjectChange::Delete(ObjectKey::Pod("shop".into(), "own".into())));
    cluster.settle();
    assert_eq!(peers(&cluster), ["west 10.9.0.1", "west 10.9.0.2"]);
    assert_eq!(cluster.others()[1].contested, [""; 0]);
}

fn slice(label: &str, address: &str) -> Value {
    json!({
        "kind": "EndpointSlice",
        "metadata": {"name": format!("db-{address}"), "namespace": "shop", "labels": {label: "db"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address]}],
    })
}

#[test]
fn an_imported_service_has_the_backends_of_its_slices_and_of_the_clusters_that_export_it() {
    let (own, imported) = ("kubernetes.io/service-name", "multicluster.kubernetes.io/service-name");
    let backends = |cluster: &Cluster| -> Vec<String> {
        let inventory = cluster.inventory();
        let service = inventory.services.get("shop", "db");
        let backends = service.into_iter().flat_map(|service| &service.backends);
        backends.map(ToString::to_string).collect()
    };
    let import = |exporters: Value| {
        json!({
            "kind": "ServiceImport",
            "metadata": {"name": "db", "namespace": "shop"},
            "spec": {"type": "ClusterSetIP", "ips": ["10.96.7.7"]},
            "status": {"clusters": exporters},
        })
    };
    let mut cluster = mesh();
    cluster.apply_of("west", applied(&slice(own, "10.2.0.2")));
    cluster.apply_of("north", applied(&slice(own, "10.3.0.2")));
    cluster.apply(applied(&slice(imported, "10.2.0.9")));
    cluster.settle();
    assert_eq!(backends(&cluster), [""; 0], "nothing says that it is imported");
    cluster.apply(applied(&import(json!([{"cluster": "west"}]))));
    cluster.settle();
    assert_eq!(
        backends(&cluster),
        ["10.2.0.2", "10.2.0.9"],
        "west exports it, and north does not"
    );
    assert!(cluster.networks().contains(&"10.96.7.7/32".parse().unwrap()));
    cluster.apply_of("west", applied(&slice(own, "10.2.0.3")));
    cluster.apply(applied(&slice(own, "10.1.0.2")));
    cluster.settle();
    assert_eq!(
        backends(&cluster),
        ["10.1.0.2", "10.2.0.2", "10.2.0.3", "10.2.0.9"],
        "and the Service of its name"
    );
    cluster.apply(applied(&node("a", "10.2.0.0/24", "192.0.2.1")));
    cluster.settle();
    assert_eq!(
        backends(&cluster),
        ["10.1.0.2", "10.2.0.9"],
        "what west has there is not told from others'"
    );
    cluster.apply(ObjectChange::Delete(ObjectKey::ServiceImport(
        "shop".into(),
        "db".into(),
    )));
    cluster.settle();
    assert_eq!(backends(&cluster), ["10.1.0.2"]);
    assert!(!cluster.networks().contains(&"10.96.7.7/32".parse().unwrap()));
}

/// A cluster, an object's name, and what is now there; `None`: it goes.
type Step = (usize, u8, Option<u8>, bool);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// However it came about.
    #[test]
    fn what_is_settled_follows_from_the_objects_alone(
        steps in prop::collection::vec((0..3_usize, 0..4_u8, prop::option::of(0..6_u8), any::<bool>()), 1..40),
        pauses in prop::collection::vec(any::<bool>(), 40),
    ) {
        let object = |(_, name, place, is_node): &Step| place.map(|place| match is_node {
            // Every second one holds the one before it.
            true => node(&format!("n{name}"), &format!("10.{}.0.0/{}", place / 2, 16 + 8 * (place % 2)), &format!("192.0.2.{place}")),
            false => pod(&format!("p{name}"), &format!("10.{}.0.{}", place / 2, place % 2)),
        });
        let apply = |cluster: &mut Cluster, step: &Step| {
            let change = match (object(step), step.3) {
                (Some(object), _) => applied(&object),
                (None, true) => ObjectChange::Delete(ObjectKey::Node(format!("n{}", step.1))),
                (None, false) => ObjectChange::Delete(ObjectKey::Pod("shop".into(), format!("p{}", step.1))),
            };
            match step.0 {
                0 => cluster.apply(change),
                1 => cluster.apply_of("west", change),
                _ => cluster.apply_of("north", change),
            }
        };
        let mut cluster = mesh();
        let mut last: BTreeMap<(usize, bool, u8), Step> = BTreeMap::new();
        for (step, pause) in steps.iter().zip(&pauses) {
            apply(&mut cluster, step);
            last.insert((step.0, step.3, step.1), *step);
            if *pause {
                cluster.settle();
            }
        }
        cluster.settle();
        let mut anew = mesh();
        last.values().filter(|step| step.2.is_some()).for_each(|step| apply(&mut anew, step));
        anew.settle();
        prop_assert_eq!(peers(&cluster), peers(&anew));
        prop_assert_eq!(ranges(&cluster), ranges(&anew));
        prop_assert_eq!(cluster.networks(), anew.networks());
        prop_assert_eq!(cluster.inventory().nodes, anew.inventory().nodes);
        prop_assert_eq!(cluster.others(), anew.others());
        // An address is of one cluster, and what the own one has stays.
        let mut seen = BTreeMap::new();
        for peer in peers(&cluster) {
            let (cluster, address) = peer.split_once(' ').unwrap();
            let before = seen.insert(address.to_owned(), cluster.to_owned());
            prop_assert!(before.is_none_or(|before| before == cluster), "{}", address);
        }
        let own = last.values().filter(|step| step.0 == 0 && !step.3 && step.2.is_some()).count();
        prop_assert_eq!(peers(&cluster).iter().filter(|peer| peer.starts_with("east")).count(), own);
    }
}
