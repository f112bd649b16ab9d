//! Connections that are cut are told of at the Pod.

use namegate_integration::cluster::TestCluster;
use serde_json::Value;

use super::{ALLOWED, denied, plan};

#[test]
fn a_pod_whose_connections_are_cut_is_told_so_by_an_event() {
    let Some(cluster) = TestCluster::start(plan()) else {
        return;
    };
    cluster.allow_names(0, &[ALLOWED, "b.example"]);
    cluster.wait_until("the policy is in force", || cluster.connect(0, denied()).is_refused());
    let withdrawn = cluster.learn(0, "b.example");
    let live = cluster.pod(0).connect(withdrawn, 443).unwrap();
    assert!(live.is_connected(), "{live:?}");
    cluster.allow_names(0, &[ALLOWED]);
    let event = || {
        let events = cluster
            .control
            .kubectl(["get", "events.events.k8s.io", "-n", "shop", "-o", "json"]);
        let events: Value = serde_json::from_str(&events).unwrap();
        let events = events["items"].as_array().cloned().unwrap_or_default();
        events.into_iter().find(|event| event["reason"] == "ConnectionsCut")
    };
    cluster.wait_until("an Event says so", || event().is_some());
    let event = event().unwrap();
    let uid = cluster
        .control
        .kubectl(["get", "pod", "pod0", "-n", "shop", "-o", "jsonpath={.metadata.uid}"]);
    let regarding = &event["regarding"];
    assert_eq!(
        (&regarding["kind"], &regarding["name"]),
        (&"Pod".into(), &"pod0".into())
    );
    assert_eq!(regarding["uid"], uid.trim());
    let note = event["note"].as_str().unwrap();
    assert!(
        note.starts_with("Live connections from it were cut, 1 in all: egress policies"),
        "{note}"
    );
}
