//! The Helm chart.

use std::collections::BTreeMap;

use namegate_integration::control_plane::{manifests, render_chart};
use serde_json::Value;

use crate::{name, objects, shared};

#[test]
fn the_chart_makes_what_the_default_overlay_makes() {
    let Some(cluster) = shared() else { return };
    let path = manifests().join("overlays/default");
    let mut overlay = by_name(&cluster.kubectl(["kustomize", path.to_str().unwrap()]));
    // Helm makes the namespace by itself, with --create-namespace, and installs definitions that
    // the cluster lacks.
    overlay.remove("Namespace namegate");
    let crds = manifests().join("crds");
    overlay.extend(by_name(&cluster.kubectl(["kustomize", crds.to_str().unwrap()])));
    assert_eq!(by_name(&render_chart("namegate", &[])), overlay);
}

#[test]
fn values_change_what_they_say_and_nothing_else() {
    if shared().is_none() {
        return;
    }
    let standard = by_name(&render_chart("namegate", &[]));
    let changed = by_name(&render_chart(
        "namegate",
        &[
            "image.repository=registry.example/namegate",
            "image.tag=1.2.3",
            "config.fail-mode=closed",
            "resources.limits.memory=1Gi",
        ],
    ));
    let agent = |objects: &BTreeMap<String, Value>| {
        objects["DaemonSet namegate"]["spec"]["template"]["spec"]["containers"][0].clone()
    };
    assert_eq!(agent(&changed)["image"], "registry.example/namegate:1.2.3");
    assert_eq!(
        agent(&changed)["resources"],
        serde_json::json!({"limits": {"memory": "1Gi"}})
    );
    let mut restored = agent(&changed);
    for field in ["image", "resources"] {
        restored[field] = agent(&standard)[field].clone();
    }
    assert_eq!(restored, agent(&standard));

    let options: Value = serde_saphyr::from_str(
        changed["ConfigMap namegate-HASH"]["data"]["agent.yaml"]
            .as_str()
            .unwrap(),
    )
    .unwrap();
    assert_eq!(
        options,
        serde_json::json!({"dns-questions": "any", "fail-mode": "closed"})
    );
}

#[test]
fn tproxy_brings_its_capability_as_its_component_does() {
    let Some(cluster) = shared() else { return };
    let path = manifests().join("overlays/tproxy");
    let mut overlay = by_name(&cluster.kubectl(["kustomize", path.to_str().unwrap()]));
    let mut chart = by_name(&render_chart("namegate", &["config.intercept=tproxy"]));
    for objects in [&mut overlay, &mut chart] {
        let text = objects["ConfigMap namegate-HASH"]["data"]["agent.yaml"]
            .as_str()
            .unwrap();
        let options: Value = serde_saphyr::from_str(text).unwrap();
        assert_eq!(options["intercept"], "tproxy");
    }
    assert_eq!(chart["DaemonSet namegate"], overlay["DaemonSet namegate"]);
}

#[test]
fn the_namespace_has_its_pod_security_label_where_the_chart_makes_it() {
    if shared().is_none() {
        return;
    }
    let objects = by_name(&render_chart("egress", &["namespace.create=true"]));
    let labels = &objects["Namespace egress"]["metadata"]["labels"];
    assert_eq!(labels["pod-security.kubernetes.io/enforce"], "privileged");
}

#[test]
fn a_startup_taint_brings_its_rights_as_its_component_does() {
    let Some(cluster) = shared() else { return };
    let path = manifests().join("overlays/startup-taint");
    let overlay = by_name(&cluster.kubectl(["kustomize", path.to_str().unwrap()]));
    let chart = by_name(&render_chart("namegate", &["startupTaint=namegate.io/agent-not-ready"]));
    for name in [
        "DaemonSet namegate",
        "ClusterRole namegate-startup-taint",
        "ClusterRoleBinding namegate-startup-taint",
    ] {
        assert_eq!(chart[name], overlay[name], "{name}");
    }
    assert!(!by_name(&render_chart("namegate", &[])).contains_key("ClusterRole namegate-startup-taint"));
}

#[test]
fn other_clusters_are_mounted_and_named_as_their_component_does() {
    let Some(cluster) = shared() else { return };
    let path = manifests().join("overlays/clusters");
    let overlay = by_name(&cluster.kubectl(["kustomize", path.to_str().unwrap()]));
    let values = [
        "clusters.secret=namegate-clusters",
        "clusters.names={west,north}",
        "config.cluster-name=east",
    ];
    let chart = by_name(&render_chart("namegate", &values));
    assert_eq!(chart["DaemonSet namegate"], overlay["DaemonSet namegate"]);
    let options = chart["ConfigMap namegate-HASH"]["data"]["agent.yaml"].as_str().unwrap();
    let layer = settings::file::parse(std::path::Path::new("agent.yaml"), options).unwrap();
    let clusters = layer.options().unwrap().cluster;
    let kubeconfigs: Vec<String> = clusters.cluster_kubeconfig.iter().map(ToString::to_string).collect();
    assert_eq!(clusters.cluster_name, "east");
    assert_eq!(
        kubeconfigs,
        ["west=/etc/namegate-clusters/west", "north=/etc/namegate-clusters/north"]
    );
}

#[test]
fn what_other_clusters_read_is_what_the_directory_for_them_holds() {
    let Some(cluster) = shared() else { return };
    let path = manifests().join("peer");
    let peer = by_name(&cluster.kubectl(["kustomize", path.to_str().unwrap()]));
    assert_eq!(peer.len(), 4, "{:?}", peer.keys());
    let chart = by_name(&render_chart("namegate", &["peer.create=true"]));
    for (name, object) in &peer {
        assert_eq!(chart[name], *object, "{name}");
    }
    let without = by_name(&render_chart("namegate", &[]));
    assert!(
        !without.keys().any(|name| name.ends_with("namegate-peer")),
        "{:?}",
        without.keys()
    );
}

#[test]
fn everything_is_in_the_namespace_of_the_release() {
    if shared().is_none() {
        return;
    }
    let values = [
        "monitoring.podMonitor=true",
        "monitoring.alerts=true",
        "monitoring.dashboard=true",
        "peer.create=true",
    ];
    let objects = by_name(&render_chart("egress", &values));
    let elsewhere: Vec<&String> = objects
        .iter()
        .filter(|(_, object)| {
            object["metadata"]
                .get("namespace")
                .is_some_and(|namespace| namespace != "egress")
        })
        .map(|(name, _)| name)
        .collect();
    assert_eq!(elsewhere, [] as [&String; 0]);
    assert_eq!(
        objects["ClusterRoleBinding namegate"]["subjects"][0]["namespace"],
        "egress"
    );
    let rules = objects["PrometheusRule namegate"].to_string();
    assert!(
        rules.contains("namegate_build_info") && !rules.contains("namegate/namegate") && !rules.contains("job="),
        "an alert that names a job never fires where the job is called otherwise"
    );
    assert!(
        rules.contains("{{ $labels.node }}"),
        "Prometheus fills these in, not Helm"
    );
}

/// Objects by kind and name. The hash of a configuration, which Helm and kustomize make
/// differently, is left out of both names.
fn by_name(text: &str) -> BTreeMap<String, Value> {
    let mut objects = objects(text);
    let hashed: Vec<String> = objects
        .iter()
        .filter(|object| object["kind"] == "ConfigMap")
        .filter_map(|object| object["metadata"]["name"].as_str())
        .filter(|name| name.len() == "namegate-".len() + 10)
        .map(str::to_owned)
        .collect();
    for object in &mut objects {
        for name in &hashed {
            replace(object, name, "namegate-HASH");
        }
    }
    objects.into_iter().map(|object| (name(&object), object)).collect()
}

fn replace(value: &mut Value, text: &str, by: &str) {
    match value {
        Value::String(found) if found == text => *found = by.to_owned(),
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, text, by)),
        Value::Object(fields) => fields.values_mut().for_each(|item| replace(item, text, by)),
        _ => {}
    }
}
