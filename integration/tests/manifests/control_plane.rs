//! The harness itself.

use namegate_integration::control_plane::ControlPlane;
use netns::Namespace;

#[test]
fn objects_and_tokens_outlive_the_api_server() {
    let Some(mut cluster) = ControlPlane::start(&Namespace::new().unwrap()) else {
        return;
    };
    cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}");
    cluster.kill_api();
    assert!(!cluster.try_kubectl(["get", "namespaces"]).status.success());
    cluster.start_api();
    assert!(cluster.kubectl(["get", "namespaces"]).contains("shop"));
}

#[test]
fn a_pod_can_be_run_as_a_kubelet_would() {
    let Some(cluster) = ControlPlane::start(&Namespace::new().unwrap()) else {
        return;
    };
    cluster.run_pod(
        "{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: default, labels: {app: web}},
          spec: {nodeName: node-1, containers: [{name: main, image: none}]},
          status: {phase: Running, podIP: 10.9.0.1, podIPs: [{ip: 10.9.0.1}, {ip: 'fd00::1'}]}}",
    );
    let addresses = cluster.kubectl(["get", "pod", "web", "-o", "jsonpath={.status.podIPs[*].ip}"]);
    assert_eq!(addresses, "10.9.0.1 fd00::1");
}
