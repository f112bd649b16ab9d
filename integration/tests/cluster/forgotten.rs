//! An API server that no longer knows what came after what a watch has seen (410 Gone).

use std::time::Duration;

use namegate_integration::cluster::TestCluster;
use namegate_integration::ip;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{ALLOWED, denied, plan};

const RECOVERY: Duration = Duration::from_secs(120);
/// Nothing is remembered but what the store has not compacted, and that is a few seconds.
const FORGETFUL: [&str; 2] = ["--watch-cache=false", "--etcd-compaction-interval=1s"];

#[test]
fn watches_whose_past_was_compacted_read_their_lists_again() {
    let Some(mut cluster) = TestCluster::build_with(plan(), &FORGETFUL) else {
        return;
    };
    cluster.start();
    for pod in [0, 1] {
        cluster.allow_names(pod, &[ALLOWED]);
        cluster.wait_until("the policy is in force", || cluster.connect(pod, denied()).is_refused());
        cluster.learn(pod, ALLOWED);
    }
    assert_eq!(told_gone(&cluster), [""; 0]);
    cluster.under_connections("history compacted", ip("198.51.100.1"), denied(), |cluster| {
        let agent = Pid::from_raw(cluster.agent().pid().cast_signed()).unwrap();
        // An agent that hears nothing for a while, and whose watches end meanwhile.
        kill_process(agent, Signal::STOP).unwrap();
        cluster.control.kill_api();
        cluster.control.start_api();
        cluster.delete("cnp", "allow-pod1");
        cluster.allow_names(2, &[ALLOWED]);
        let version = version(cluster);
        cluster
            .control
            .apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: later, namespace: shop}}");
        let took = cluster.wait_long("the store has forgotten that version", RECOVERY, || {
            is_gone(cluster, &version)
        });
        println!("compacted after {took:.1?}");
        kill_process(agent, Signal::CONT).unwrap();
        let took = cluster.wait_long("what changed meanwhile is in force", RECOVERY, || {
            cluster.connect(1, denied()).is_connected() && cluster.connect(2, denied()).is_refused()
        });
        println!("in force {took:.1?} after the agent went on");
    });
    println!("{} watches were told 410", told_gone(&cluster).len());
    assert!(
        told_gone(&cluster)
            .iter()
            .any(|line| line.contains("\"CiliumNetworkPolicy\"")),
        "the case occurred"
    );
    cluster.wait_long("the watches work", RECOVERY, || {
        cluster.agent().metric("namegate_broken_watches").unwrap() == 0.0
    });
}

/// What the agent logged of watches that were told that what they had seen last is no longer known.
fn told_gone(cluster: &TestCluster) -> Vec<String> {
    let mut log = cluster.agent().log();
    log.retain(|line| line.contains("(410 Gone)"));
    log
}

/// The version of the newest change that the API server knows.
fn version(cluster: &TestCluster) -> String {
    let list = cluster.control.kubectl(["get", "--raw", "/api/v1/namespaces"]);
    let list: Value = serde_json::from_str(&list).unwrap();
    list["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

/// Whether a watch from there on is refused.
fn is_gone(cluster: &TestCluster, version: &str) -> bool {
    let path = format!("/api/v1/namespaces?watch=1&timeoutSeconds=1&resourceVersion={version}");
    let output = cluster.control.try_kubectl(["get", "--raw", &path]);
    String::from_utf8_lossy(&output.stdout).contains("\"code\":410")
}
