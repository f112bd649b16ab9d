//! Two API servers: the pods of one cluster are peers in the other.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::thread;

use lab::client::ConnectAttempt;
use namegate_integration::cluster::{NODE, TestCluster};
use namegate_integration::control_plane::ControlPlane;
use namegate_integration::{Scenario, ip};

use super::plan;

const PORT: u16 = 443;

/// What a pod of `west` writes, with the addresses of the lab's pod.
fn pod_of_west(cluster: &TestCluster, index: usize, role: &str) -> String {
    let pod = cluster.pod(index);
    let (v4, v6) = (pod.address4(), pod.address6());
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: pod{index}, namespace: shop, labels: {{role: {role}}}}},
           spec: {{nodeName: node-w, containers: [{{name: main, image: none}}]}},
           status: {{phase: Running, podIP: {v4}, podIPs: [{{ip: {v4}}}, {{ip: '{v6}'}}]}}}}"
    )
}

/// The cluster `east` with pod 0, and the cluster `west`, of which pods 1 and 2 are. The kubeconfig
/// of `west` is at the path that is returned.
fn build() -> Option<(TestCluster, ControlPlane, std::path::PathBuf)> {
    let mut cluster = TestCluster::build(plan())?;
    let west = ControlPlane::start_beside(cluster.lab().node())?;
    west.apply("{apiVersion: v1, kind: Namespace, metadata: {name: namegate}}");
    west.install("peer");
    west.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}");
    // Of the node's usual range the other pods are, too: it would be contested.
    let (v4, v6) = (cluster.pod(0).address4(), cluster.pod(0).address6());
    cluster.control.kubectl(["delete", "node", NODE]);
    cluster.control.apply(&format!(
        "{{apiVersion: v1, kind: Node, metadata: {{name: {NODE}}}, spec: {{podCIDR: {v4}/32, podCIDRs: [{v4}/32, '{v6}/128']}}}}"
    ));
    for index in [1, 2] {
        cluster.delete("pod", &format!("pod{index}"));
        west.run_pod(&pod_of_west(&cluster, index, "client"));
    }
    let kubeconfig = cluster.installation().scratch("west.kubeconfig");
    cluster.add_flags(&format!(
        "--cluster-name east --cluster-kubeconfig west={}",
        kubeconfig.display()
    ));
    let key = "io.cilium.k8s.policy.cluster";
    cluster.control.apply(&format!(
        "{{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {{name: guard, namespace: shop}},
           spec: {{endpointSelector: {{matchLabels: {{app: pod0}}}},
                   ingress: [{{fromEndpoints: [{{matchLabels: {{role: client, '{key}': west}}}}]}}]}}}}"
    ));
    Some((cluster, west, kubeconfig))
}

/// Accepts connections in pod 0 until the process ends: a queue that nobody empties is full after a
/// hundred attempts.
fn serve(scenario: &Scenario) {
    let pod = scenario.pod(0);
    let address = SocketAddr::new(pod.address4().into(), PORT);
    let listener = pod.namespace().run(|| TcpListener::bind(address)).unwrap().unwrap();
    thread::spawn(move || listener.incoming().for_each(drop));
}

/// Whether a pod of `west` reaches pod 0.
fn reaches(scenario: &Scenario, from: usize) -> bool {
    let to = scenario.pod(0).address4();
    match scenario.pod(from).connect(to, PORT).unwrap() {
        ConnectAttempt::Connected(_) => true,
        ConnectAttempt::Refused(_) => false,
        other => panic!("{other:?}"),
    }
}

#[test]
fn pods_of_another_api_server_are_peers_also_while_it_is_away_and_after_its_kubeconfig_came_late() {
    let Some((mut cluster, mut west, kubeconfig)) = build() else {
        return;
    };
    // The Secret with the kubeconfig is not there yet: the own cluster does not wait for ever.
    cluster.start();
    serve(&cluster);
    assert!(!reaches(&cluster, 1), "nothing is known of west");
    let status = cluster.installation().status().unwrap();
    let source = status.other_clusters[0].source.as_ref().unwrap();
    assert!(source.troubles[0].contains("west.kubeconfig"), "{source:?}");

    fs::copy(west.peer_kubeconfig(), &kubeconfig).unwrap();
    cluster.wait_until("a pod of west is let in", || reaches(&cluster, 1));
    assert!(reaches(&cluster, 2));
    west.run_pod(&pod_of_west(&cluster, 2, "other"));
    cluster.wait_until("its labels are followed", || !reaches(&cluster, 2));
    let refused = cluster.pod(0).connect(ip("198.51.100.99"), PORT).unwrap();
    assert!(refused.is_connected(), "no policy of west closes anybody: {refused:?}");
    let rights = west.peer_rights();
    assert_eq!(rights.refused, [].into(), "it asks for no more than it is given");
    let unused: Vec<&String> = rights.unused.iter().filter(|it| !it.starts_with("list ")).collect();
    // Lists are streamed here.
    assert_eq!(unused, [""; 0], "it is given no more than it asks for");

    // It goes away, and so does the agent.
    cluster.wait_until("its objects are written down", || {
        let holds = cluster.installation().state_holds("cluster-west.json", "pod1");
        holds.unwrap()
    });
    west.kill_api();
    cluster.wait_until("the watches break", || {
        cluster
            .agent()
            .metric("namegate_other_cluster_broken_watches{cluster=\"west\"}")
            .is_ok_and(|broken| broken > 0.0)
    });
    assert!(
        reaches(&cluster, 1) && !reaches(&cluster, 2),
        "what it said stays in force"
    );
    cluster.terminate();
    cluster.start();
    assert!(reaches(&cluster, 1) && !reaches(&cluster, 2), "also for the next agent");
    let recalled = cluster.installation().status().unwrap();
    assert!(recalled.other_clusters[0].source.as_ref().unwrap().recalled);
    let age = "namegate_other_cluster_objects_age_seconds{cluster=\"west\"}";
    cluster.wait_until("its age is told", || cluster.agent().metric(age).unwrap() >= 1.0);

    // Back, with a change that nobody saw.
    west.start_api();
    west.kubectl(["delete", "pod", "pod1", "-n", "shop", "--grace-period=0", "--force"]);
    west.run_pod(&pod_of_west(&cluster, 2, "client"));
    cluster.wait_until("what is known now counts", || {
        !reaches(&cluster, 1) && reaches(&cluster, 2)
    });

    // Credentials that are no good any more, and good ones again: what was said stays.
    let good = fs::read_to_string(&kubeconfig).unwrap();
    fs::write(&kubeconfig, good.replace(":6444", ":6445")).unwrap();
    cluster.wait_until("the new address is asked", || {
        let status = cluster.installation().status().unwrap();
        status.other_clusters[0]
            .source
            .as_ref()
            .is_some_and(|it| it.server.contains("6445"))
    });
    assert!(!reaches(&cluster, 1) && reaches(&cluster, 2));
    fs::write(&kubeconfig, good).unwrap();
    west.run_pod(&pod_of_west(&cluster, 2, "other"));
    cluster.wait_until("it is heard again", || !reaches(&cluster, 2));
}
