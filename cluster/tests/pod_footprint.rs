//! What a pod of the cluster takes, in the source that tells of it and in the index, counted by the
//! allocator.

use std::collections::BTreeMap;
use std::sync::Mutex;

use allocations::{count, in_use};
use cluster::Update;
use cluster::catalogue::Catalogue;
use cluster::index::Cluster;
use cluster::kubernetes::resources::{KINDS, Resource, ResourceKind, WatchScope};
use cluster::kubernetes::watch_cache::{WatchCache, WatchEvent};
use cluster::kubernetes::wire::Observe;
use cluster::slim::WireObject;
use serde_json::{Value, json};
use tokio::time::Instant;

/// What a pod of another node may take: 150,000 take 60 MB.
const GOAL: usize = 400;
const PODS: usize = 10_000;

/// Memory is counted for all threads.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn a_pod_of_the_api_server_takes_less_than_four_hundred_bytes() {
    let _alone = ALONE.lock();
    let before = in_use();
    let now = Instant::now();
    let mut cache = WatchCache::new(&WatchScope::Node("here".to_owned()), Vec::new(), true);
    for kind in KINDS.iter().filter(|kind| kind.resource != Resource::OtherPods) {
        cache.handle(kind.resource, WatchEvent::Init);
        for index in 0..PODS {
            if kind.resource == Resource::LocalPods {
                cache.handle(
                    kind.resource,
                    WatchEvent::InitApply(wire(pod(index)).observe(ResourceKind::of(kind.resource))),
                );
            }
        }
        cache.handle(kind.resource, WatchEvent::InitDone);
    }
    let cluster = indexed(cache.update(now).expect("everything was listed"));
    let bytes = (in_use() - before) / PODS;
    println!("{bytes} bytes a pod");
    assert!(bytes < GOAL, "{bytes} bytes");
    drop((cache, cluster));
}

#[test]
fn a_pod_of_another_cluster_takes_as_little() {
    let _alone = ALONE.lock();
    let before = in_use();
    let now = Instant::now();
    let scope = WatchScope::OtherCluster("west".into());
    let mut cache = WatchCache::new(&scope, Vec::new(), true);
    for kind in scope.kinds() {
        let list: Box<dyn Iterator<Item = Value>> = match kind.resource {
            Resource::OtherPods => Box::new((0..PODS).map(pod)),
            Resource::Nodes => Box::new(std::iter::once(
                json!({"metadata": {"name": "node-0"}, "spec": {"podCIDR": "10.0.0.0/8"}}),
            )),
            _ => Box::new(std::iter::empty()),
        };
        cache.handle(kind.resource, WatchEvent::Init);
        for object in list {
            let observed = wire(object).observe(kind);
            cache.handle(kind.resource, WatchEvent::InitApply(observed));
        }
        cache.handle(kind.resource, WatchEvent::InitDone);
    }
    let update = cache.update(now).expect("everything was listed");
    assert_eq!(update.changes.len(), PODS + 1);
    let mut cluster = Cluster::of_mesh("here", "east", ["west"]);
    update
        .changes
        .into_iter()
        .for_each(|change| cluster.apply_of("west", change));
    cluster.settle();
    let bytes = (in_use() - before) / PODS;
    println!("{bytes} bytes a pod");
    assert!(bytes < GOAL, "{bytes} bytes");
    drop((cache, cluster));
}

#[test]
fn a_pod_in_a_file_takes_less_than_four_hundred_bytes() {
    const IN_A_FILE: usize = 500;
    let _alone = ALONE.lock();
    let (before, resident_before) = (in_use(), resident());
    let file = |number: usize| {
        let pods = (0..IN_A_FILE).map(|index| format!("---\n{}\n", pod(number * IN_A_FILE + index)));
        (format!("pods-{number}.yaml").into(), Ok(pods.collect()))
    };
    let contents: BTreeMap<_, _> = (0..PODS / IN_A_FILE).map(file).collect();
    let mut catalogue = Catalogue::of_agent("here", [], false);
    let cluster = indexed(catalogue.scan(contents).expect("the first scan tells everything"));
    let bytes = (in_use() - before) / PODS;
    // One document is read at a time, so that what is kept does not lie between what was freed.
    let resident = resident().saturating_sub(resident_before) / PODS;
    println!("{bytes} bytes a pod, {resident} resident");
    assert!(bytes < GOAL, "{bytes} bytes");
    assert!(resident < 4 * GOAL, "{resident} bytes are resident");
    drop((catalogue, cluster));
}

/// The bytes of this process that are resident and no file's.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("the kernel tells of this process");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<usize>().ok());
    kibibytes.expect("it has memory") * 1024
}

fn indexed(update: Update) -> Cluster {
    assert_eq!(update.changes.len(), PODS);
    let mut cluster = Cluster::new("here");
    for change in update.changes {
        cluster.apply(change);
    }
    cluster
}

/// From a text to an object for the index: each allocation is a piece of work. Of a tree of the
/// object in between there would be hundreds.
#[test]
fn a_pod_is_read_with_few_allocations() {
    const MOST: usize = 150;
    let _alone = ALONE.lock();
    let mut cache = WatchCache::new(&WatchScope::Node("here".to_owned()), Vec::new(), true);
    let now = Instant::now();
    for kind in KINDS.iter().filter(|kind| kind.resource != Resource::OtherPods) {
        cache.handle(kind.resource, WatchEvent::Init);
        cache.handle(kind.resource, WatchEvent::InitDone);
    }
    cache.update(now).expect("everything was listed");
    let wire = wire(pod(7));
    let (update, allocations) = count(|| {
        let observed = wire.observe(ResourceKind::of(Resource::LocalPods));
        cache.handle(Resource::LocalPods, WatchEvent::Apply(observed));
        cache.update(now)
    });
    assert_eq!(update.expect("a pod is new").changes.len(), 1);
    println!("{allocations} allocations");
    assert!(allocations < MOST, "{allocations} allocations");
}

/// A Pod as the API server tells it, with what a Deployment and the kubelet put there.
fn pod(index: usize) -> Value {
    let name = format!("checkout-7d4b9c6f5d-{index:05}");
    let address = format!("10.{}.{}.{}", 1 + index / 65_536, index / 256 % 256, index % 256);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "shop", "uid": "0b7e5c1e-6b0f-4b55-9f43-2f4f1d6a8f11", "resourceVersion": "123456",
            "labels": {"app.kubernetes.io/name": "checkout", "app.kubernetes.io/part-of": "shop", "pod-template-hash": "7d4b9c6f5d", "tier": "backend"},
            "annotations": {"prometheus.io/scrape": "true"},
            "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {"f:conditions": {}}}}],
        },
        "spec": {
            "nodeName": format!("node-{}", index % 1_000), "serviceAccountName": "checkout", "volumes": [{"name": "token"}],
            "containers": [{"name": "main", "image": "registry.example/checkout:1", "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]}],
        },
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

fn wire(pod: Value) -> WireObject {
    serde_json::from_value(pod).expect("it is a Pod")
}
