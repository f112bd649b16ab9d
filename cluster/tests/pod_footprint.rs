//! What a pod of the cluster takes, in the cache of the watches and in the index, counted by the
//! allocator.

use allocations::{count, in_use};
use cluster::index::Cluster;
use cluster::kubernetes::resources::{KINDS, Resource, ResourceKind};
use cluster::kubernetes::watch_cache::{WatchCache, WatchEvent};
use cluster::kubernetes::wire::{Observe, WireObject};
use serde_json::json;
use tokio::time::Instant;

#[test]
fn a_pod_takes_less_than_four_kilobytes() {
    const PODS: usize = 10_000;
    let before = in_use();
    let now = Instant::now();
    let mut cache = WatchCache::new(Vec::new(), true);
    for kind in KINDS.iter().filter(|kind| kind.resource != Resource::OtherPods) {
        cache.handle(kind.resource, WatchEvent::Init, now);
        for index in 0..PODS {
            if kind.resource == Resource::LocalPods {
                cache.handle(
                    kind.resource,
                    WatchEvent::InitApply(pod(index).observe(ResourceKind::of(kind.resource))),
                    now,
                );
            }
        }
        cache.handle(kind.resource, WatchEvent::InitDone, now);
    }
    let update = cache.update(now).expect("everything was listed");
    let mut cluster = Cluster::new("node-1");
    for change in update.changes {
        cluster.apply(change);
    }
    drop(update.reports);
    let bytes = in_use() - before;
    println!("{} bytes a pod, {} MiB", bytes / PODS, bytes >> 20);
    assert!(bytes / PODS < 4 << 10, "{} bytes", bytes / PODS);
}

/// From a text to an object for the index: each allocation is a piece of work. Of a tree of the
/// object in between there would be hundreds.
#[test]
fn a_pod_is_read_with_few_allocations() {
    const MOST: usize = 150;
    let mut cache = WatchCache::new(Vec::new(), true);
    let now = Instant::now();
    for kind in KINDS.iter().filter(|kind| kind.resource != Resource::OtherPods) {
        cache.handle(kind.resource, WatchEvent::Init, now);
        cache.handle(kind.resource, WatchEvent::InitDone, now);
    }
    cache.update(now).expect("everything was listed");
    let wire = pod(7);
    let (update, allocations) = count(|| {
        let observed = wire.observe(ResourceKind::of(Resource::LocalPods));
        cache.handle(Resource::LocalPods, WatchEvent::Apply(observed), now);
        cache.update(now)
    });
    assert_eq!(update.expect("a pod is new").changes.len(), 1);
    println!("{allocations} allocations");
    assert!(allocations < MOST, "{allocations} allocations");
}

/// A Pod as the API server tells it, with what a Deployment and the kubelet put there.
fn pod(index: usize) -> WireObject {
    let name = format!("checkout-7d4b9c6f5d-{index:05}");
    let address = format!("10.{}.{}.{}", 1 + index / 65_536, index / 256 % 256, index % 256);
    let pod = json!({
        "metadata": {
            "name": name, "namespace": "shop", "uid": "0b7e5c1e-6b0f-4b55-9f43-2f4f1d6a8f11", "resourceVersion": "123456",
            "labels": {"app.kubernetes.io/name": "checkout", "app.kubernetes.io/part-of": "shop", "pod-template-hash": "7d4b9c6f5d", "tier": "backend"},
            "annotations": {"prometheus.io/scrape": "true"},
            "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {"f:conditions": {}}}}],
        },
        "spec": {
            "nodeName": "node-1234", "serviceAccountName": "checkout", "volumes": [{"name": "token"}],
            "containers": [{"name": "main", "image": "registry.example/checkout:1", "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]}],
        },
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": [{"type": "Ready", "status": "True"}]},
    });
    serde_json::from_value(pod).expect("it is a Pod")
}
