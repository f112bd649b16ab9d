//! The kustomizations.

use namegate_integration::control_plane::{self, ControlPlane, manifests};
use netns::Namespace;

use crate::{name, objects, shared};

#[test]
fn the_default_overlay_is_accepted_and_can_be_applied_again() {
    let Some(cluster) = shared() else { return };
    let path = manifests().join("overlays/default");
    let path = path.to_str().unwrap();
    let said = cluster.kubectl(["apply", "-k", path]);
    for line in said.lines() {
        assert!(line.ends_with("unchanged") || line.ends_with("configured"), "{line}");
    }
    assert_eq!(
        cluster.kubectl(["diff", "-k", path]),
        "",
        "what is applied is what was written"
    );
    let daemon_set = cluster.kubectl(["get", "daemonset", "namegate", "-n", "namegate", "-o", "name"]);
    assert_eq!(daemon_set.trim(), "daemonset.apps/namegate");
}

#[test]
fn no_overlay_has_definitions_which_would_go_with_it() {
    let Some(cluster) = shared() else { return };
    for overlay in std::fs::read_dir(manifests().join("overlays")).unwrap() {
        let path = overlay.unwrap().path();
        let text = cluster.kubectl(["kustomize", path.to_str().unwrap()]);
        let names: Vec<String> = objects(&text).iter().map(name).collect();
        assert!(names.contains(&"DaemonSet namegate".to_owned()), "{names:?}");
        assert!(
            !names.iter().any(|name| name.starts_with("CustomResourceDefinition")),
            "{names:?}"
        );
    }
}

#[test]
fn deleting_the_agent_leaves_the_policies_of_the_cluster() {
    let Some(cluster) = ControlPlane::start(&Namespace::new().unwrap()) else {
        return;
    };
    cluster.install("crds");
    cluster.install("overlays/default");
    cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}");
    cluster.apply(&namegate_integration::allow(0, &["a.example"]));
    let path = manifests().join("overlays/default");
    // Nobody empties namespaces here: there is no controller.
    cluster.kubectl(["delete", "--wait=false", "-k", path.to_str().unwrap()]);
    let left = cluster.kubectl(["get", "cnp", "-n", "shop", "-o", "name"]);
    assert_eq!(left.trim(), "ciliumnetworkpolicy.cilium.io/allow-pod0");
    assert!(
        !cluster
            .kubectl(["get", "clusterroles", "-o", "name"])
            .contains("/namegate")
    );
}

#[test]
fn monitoring_is_as_the_prometheus_operator_reads_it() {
    let Some(cluster) = shared() else { return };
    let path = manifests().join("overlays/monitoring");
    let text = cluster.kubectl(["kustomize", path.to_str().unwrap()]);
    assert_eq!(
        control_plane::check_monitoring(&text).trim(),
        "2",
        "a PodMonitor and a PrometheusRule"
    );
    let dashboards = objects(&text);
    let dashboard = dashboards
        .iter()
        .find(|object| object["metadata"]["labels"]["grafana_dashboard"] == "1")
        .unwrap();
    assert!(dashboard["data"]["namegate.json"].as_str().unwrap().starts_with('{'));
}

#[test]
fn the_agents_pod_asks_for_no_more_than_it_needs() {
    let Some(cluster) = shared() else { return };
    let path = manifests().join("overlays/default");
    let text = cluster.kubectl(["kustomize", path.to_str().unwrap()]);
    let all = objects(&text);
    let daemon_set = all.iter().find(|object| object["kind"] == "DaemonSet").unwrap();
    let pod = &daemon_set["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    for container in pod["containers"].as_array().unwrap() {
        let context = &container["securityContext"];
        assert_eq!(context["capabilities"]["drop"], serde_json::json!(["ALL"]));
        assert_eq!(context["capabilities"]["add"], serde_json::json!(["NET_ADMIN"]));
        assert_eq!(context["readOnlyRootFilesystem"], true);
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert!(context.get("privileged").is_none());
        assert!(
            container.get("ports").is_none(),
            "two Pods of one node would not overlap"
        );
    }
    let update = &daemon_set["spec"]["updateStrategy"]["rollingUpdate"];
    assert_eq!((&update["maxSurge"], &update["maxUnavailable"]), (&1.into(), &0.into()));
}

#[test]
fn examples_are_accepted_by_the_api_server() {
    let Some(cluster) = shared() else { return };
    let mut count = 0;
    for entry in std::fs::read_dir(manifests().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        for object in objects(&std::fs::read_to_string(&path).unwrap()) {
            if let Some(namespace) = object["metadata"]["namespace"].as_str() {
                cluster.apply(&format!(
                    "{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}"
                ));
            }
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let output = cluster.try_feed(&["apply", "--dry-run=server"], &text);
        assert!(
            output.status.success(),
            "{}: {}",
            path.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        count += 1;
    }
    assert!(count > 0);
}
