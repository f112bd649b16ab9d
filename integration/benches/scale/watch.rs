//! What the life of one pod sends to each agent that watches it, of a real API server, and what it
//! costs that to tell many.

use std::time::{Duration, Instant};

use cluster::slim::SlimPod;
use futures::StreamExt;
use http::Request;
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use lab::cpu_time;
use namegate_integration::control_plane::ControlPlane;
use netns::Namespace;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// So many pods live while one way to watch is measured.
const LIVES: usize = 10;
/// Watchers of one API server at a time.
const WATCHERS: [usize; 3] = [1, 100, 400];
/// Backends in the EndpointSlice of a Service.
const BACKENDS: usize = 20;

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf;stream=watch";
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const METADATA_PROTOBUF: &str =
    "application/vnd.kubernetes.protobuf;stream=watch;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const PODS: &str = "/api/v1/pods";
/// As an agent asks for other nodes' pods.
const OTHERS: &str = "fieldSelector=spec.nodeName%21%3Dhere%2Cspec.nodeName%21%3D%2Cstatus.phase%21%3DSucceeded%2Cstatus.phase%21%3DFailed";

/// Measures and prints; skips, and says so, where Go is missing.
pub(crate) fn run() {
    let namespace = Namespace::new().unwrap();
    namespace.set_up("lo").unwrap();
    let Some(control) = ControlPlane::start(&namespace) else {
        return;
    };
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(measure(&control));
    };
    namespace.run(work).unwrap();
}

async fn measure(control: &ControlPlane) {
    let kubeconfig = Kubeconfig::read_from(control.admin_kubeconfig()).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    println!(
        "bytes to one watcher for a pod's life (made, bound, started, ready, ended, deleted), {LIVES} lives each:"
    );
    for (what, accept, query) in [
        ("JSON, all pods", JSON, ""),
        ("JSON, as an agent watches other nodes' pods", JSON, OTHERS),
        ("the same, gzip asked for", "gzip", OTHERS),
        ("the same, protobuf", PROTOBUF, OTHERS),
        ("the same, metadata alone", METADATA, OTHERS),
        ("the same, metadata alone in protobuf", METADATA_PROTOBUF, OTHERS),
    ] {
        let (bytes, _) = lives(&config, 1, PODS, accept, query).await;
        println!("  {what:<48} {:>7}", bytes / LIVES);
    }
    let slices = "/apis/discovery.k8s.io/v1/endpointslices";
    let bytes = slice_changes(&config, slices, JSON).await;
    println!(
        "  {:<48} {bytes:>7}",
        format!("JSON, an EndpointSlice of {BACKENDS} backends, 2 changes")
    );
    let bytes = slice_changes(&config, slices, PROTOBUF).await;
    println!("  {:<48} {bytes:>7}", "the same, protobuf");
    let slim: SlimPod = serde_json::from_value(status(pod(0), 2)).unwrap();
    let kept = serde_json::to_string(&slim).unwrap().len();
    println!("  {:<48} {kept:>7}", "what an agent keeps of the pod, as JSON, once");

    println!("what the API server takes to tell a life, by the watchers that it tells (JSON, as agents ask):");
    for watchers in WATCHERS {
        let before = cpu_time::of(control.api_pid());
        let (bytes, delay) = lives(&config, watchers, PODS, JSON, OTHERS).await;
        let used = (cpu_time::of(control.api_pid()) - before) / LIVES as u32;
        println!(
            "  {watchers:>4} watchers: {used:.1?} of CPU, {} KB to all; the last is told {delay:.1?} after the first",
            bytes / LIVES / 1000
        );
    }
    lists(&config).await;
}

/// Bytes to all watchers of so many lives, and how long after the first the last was told, in the
/// median.
async fn lives(config: &Config, watchers: usize, path: &str, accept: &str, query: &str) -> (usize, Duration) {
    let (sender, mut told) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    for watcher in 0..watchers {
        // Each watcher has a connection of its own, as agents have.
        let client = Client::try_from(config.clone()).unwrap();
        tasks.spawn(watch(
            client,
            format!("{path}?watch=true&resourceVersion=0&{query}"),
            accept.to_owned(),
            watcher,
            sender.clone(),
        ));
    }
    settle(&mut told, Duration::from_secs(2)).await;
    let client = Client::try_from(config.clone()).unwrap();
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let (mut bytes, mut delays) = (0, Vec::new());
    for number in 0..LIVES {
        live(&client, &pods, number).await;
        let seen = settle(&mut told, Duration::from_millis(500)).await;
        bytes += seen.iter().map(|(_, bytes, _)| bytes).sum::<usize>();
        let mut last = vec![None; watchers];
        for (watcher, _, at) in seen {
            last[watcher] = Some(at);
        }
        let last: Vec<Instant> = last.into_iter().flatten().collect();
        assert_eq!(last.len(), watchers, "each was told");
        delays.push(*last.iter().max().unwrap() - *last.iter().min().unwrap());
    }
    delays.sort_unstable();
    tasks.abort_all();
    (bytes, delays[delays.len() / 2])
}

/// What watchers were told: who, how many bytes, and when.
type Told = (usize, usize, Instant);

async fn watch(client: Client, uri: String, accept: String, watcher: usize, told: mpsc::UnboundedSender<Told>) {
    let mut request = Request::get(uri);
    request = match accept.as_str() {
        "gzip" => request.header("accept", JSON).header("accept-encoding", "gzip"),
        accept => request.header("accept", accept),
    };
    let response = client.send(request.body(Body::empty()).unwrap()).await.unwrap();
    assert!(response.status().is_success(), "{}", response.status());
    let mut frames = response.into_body().into_data_stream();
    while let Some(Ok(data)) = frames.next().await {
        // Nobody listens any more when the measurement is over.
        let _ = told.send((watcher, data.len(), Instant::now()));
    }
}

/// Everything that is told until nothing is for this long.
async fn settle(told: &mut mpsc::UnboundedReceiver<Told>, quiet: Duration) -> Vec<Told> {
    let mut all = Vec::new();
    while let Ok(Some(one)) = tokio::time::timeout(quiet, told.recv()).await {
        all.push(one);
    }
    all
}

/// A pod's life, as a controller, the scheduler and the kubelet write it.
async fn live(client: &Client, pods: &Api<Pod>, number: usize) {
    let object: Pod = serde_json::from_value(pod(number)).unwrap();
    let name = object.metadata.name.clone().unwrap();
    let by = |manager: &str| PostParams {
        field_manager: Some(manager.into()),
        ..PostParams::default()
    };
    pods.create(&by("kube-controller-manager"), &object).await.unwrap();
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": {"kind": "Node", "name": "there"}});
    let request = Request::post(format!("/api/v1/namespaces/default/pods/{name}/binding"))
        .header("content-type", JSON)
        .body(serde_json::to_vec(&binding).unwrap())
        .unwrap();
    client.request_text(request).await.unwrap();
    let by = PatchParams {
        field_manager: Some("kubelet".into()),
        ..PatchParams::default()
    };
    let tell = async |step| {
        let status = json!({"status": status(json!({}), step)["status"]});
        pods.patch_status(&name, &by, &Patch::Strategic(status)).await.unwrap();
    };
    tell(0).await;
    tell(1).await;
    tell(2).await;
    pods.delete(&name, &DeleteParams::default().grace_period(30))
        .await
        .unwrap();
    tell(3).await;
    pods.delete(&name, &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
}

/// A pod as a ReplicaSet makes it.
fn pod(number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("checkout-7d4b9c6f5d-{number:05}"), "namespace": "default", "generateName": "checkout-7d4b9c6f5d-",
            "labels": {"app.kubernetes.io/name": "checkout", "app.kubernetes.io/part-of": "shop", "pod-template-hash": "7d4b9c6f5d", "tier": "backend"},
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "9090"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "checkout-7d4b9c6f5d", "uid": "0b7e5c1e-6b0f-4b55-9f43-2f4f1d6a8f11", "controller": true, "blockOwnerDeletion": true}],
        },
        "spec": {
            "containers": [{
                "name": "main", "image": "registry.example/shop/checkout:1.2.3",
                "ports": [{"name": "http", "containerPort": 8080}, {"name": "metrics", "containerPort": 9090}],
                "env": [{"name": "LOG_LEVEL", "value": "info"}, {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
                "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}},
                "volumeMounts": [{"name": "config", "mountPath": "/etc/checkout"}],
            }],
            "volumes": [{"name": "config", "configMap": {"name": "checkout"}}],
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
        },
    })
}

/// The same with the status that a kubelet writes: waiting, running, ready, ended.
fn status(mut pod: Value, step: usize) -> Value {
    let time = format!("2026-01-01T00:00:0{step}Z");
    let is = |yes: bool| if yes { "True" } else { "False" };
    let condition = |kind: &str, yes: bool| json!({"type": kind, "status": is(yes), "lastProbeTime": null, "lastTransitionTime": time});
    let state = match step {
        0 => json!({"waiting": {"reason": "ContainerCreating"}}),
        3 => {
            json!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": time, "finishedAt": time, "containerID": "containerd://6f2a"}})
        }
        _ => json!({"running": {"startedAt": time}}),
    };
    pod["status"] = json!({
        "phase": (if step == 0 { "Pending" } else { "Running" }),
        "hostIP": "172.16.0.7", "hostIPs": [{"ip": "172.16.0.7"}], "startTime": "2026-01-01T00:00:00Z", "qosClass": "Burstable",
        "conditions": [
            condition("PodReadyToStartContainers", step > 0), condition("Initialized", true), condition("Ready", step == 2),
            condition("ContainersReady", step == 2), condition("PodScheduled", true),
        ],
        "containerStatuses": [{
            "name": "main", "image": "registry.example/shop/checkout:1.2.3", "imageID": "registry.example/shop/checkout@sha256:0b7e5c1e6b0f4b559f432f4f1d6a8f110b7e5c1e6b0f4b559f432f4f1d6a8f11",
            "ready": step == 2, "started": step > 0, "restartCount": 0, "state": state,
        }],
    });
    if step > 0 {
        pod["status"]["podIP"] = "10.0.0.7".into();
        pod["status"]["podIPs"] = json!([{"ip": "10.0.0.7"}]);
    }
    pod
}

/// Bytes of the two changes of a Service's slice in a pod's life: it is ready, and gone.
async fn slice_changes(config: &Config, path: &str, accept: &str) -> usize {
    let client = Client::try_from(config.clone()).unwrap();
    let slices: Api<EndpointSlice> = Api::default_namespaced(client.clone());
    let slice = |ready: bool| {
        let endpoint = |last: usize| {
            json!({
                "addresses": [format!("10.0.0.{last}")], "nodeName": format!("node-{last}"), "zone": "z1",
                "conditions": {"ready": ready || last > 1, "serving": true, "terminating": false},
                "targetRef": {"kind": "Pod", "name": format!("checkout-7d4b9c6f5d-{last:05}"), "namespace": "default", "uid": "0b7e5c1e-6b0f-4b55-9f43-2f4f1d6a8f11"},
            })
        };
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "checkout-x7k2p", "labels": {"kubernetes.io/service-name": "checkout", "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}},
            "endpoints": (1..=BACKENDS).map(endpoint).collect::<Vec<_>>(),
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        })
    };
    let object: EndpointSlice = serde_json::from_value(slice(false)).unwrap();
    slices.create(&PostParams::default(), &object).await.unwrap();
    let (sender, mut told) = mpsc::unbounded_channel();
    let watching = tokio::spawn(watch(
        client,
        format!("{path}?watch=true&resourceVersion=0"),
        accept.to_owned(),
        0,
        sender,
    ));
    settle(&mut told, Duration::from_secs(2)).await;
    for ready in [true, false] {
        slices
            .patch("checkout-x7k2p", &PatchParams::default(), &Patch::Merge(slice(ready)))
            .await
            .unwrap();
    }
    let seen = settle(&mut told, Duration::from_secs(1)).await;
    watching.abort();
    slices.delete("checkout-x7k2p", &DeleteParams::default()).await.unwrap();
    seen.iter().map(|(_, bytes, _)| bytes).sum()
}

/// Bytes of a list of pods, in each way that it can be had.
async fn lists(config: &Config) {
    const LISTED: usize = 500;
    let client = Client::try_from(config.clone()).unwrap();
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    for number in 0..LISTED {
        let object: Pod = serde_json::from_value(pod(number)).unwrap();
        pods.create(&PostParams::default(), &object).await.unwrap();
    }
    println!("bytes of the list, for each of {LISTED} pods that are not bound yet:");
    for (what, accept, stream) in [
        ("JSON, a list", JSON, false),
        ("JSON, a list, gzip asked for", "gzip", false),
        ("protobuf, a list", "application/vnd.kubernetes.protobuf", false),
        (
            "metadata alone, a list",
            "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            false,
        ),
        ("JSON, streamed (sendInitialEvents)", JSON, true),
        ("protobuf, streamed", PROTOBUF, true),
    ] {
        let (sender, mut told) = mpsc::unbounded_channel();
        let query = match stream {
            true => "?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true",
            false => "",
        };
        let reading = tokio::spawn(watch(
            client.clone(),
            format!("{PODS}{query}"),
            accept.to_owned(),
            0,
            sender,
        ));
        let seen = settle(&mut told, Duration::from_secs(2)).await;
        reading.abort();
        let bytes: usize = seen.iter().map(|(_, bytes, _)| bytes).sum();
        println!("  {what:<48} {:>7}", bytes / LISTED);
    }
}
