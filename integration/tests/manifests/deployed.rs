//! The agent as the DaemonSet runs it: its arguments, its probes, its capabilities, and the rights
//! of its ServiceAccount.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::process::{Child, Command, Stdio};

use cluster::kubernetes::resources::KINDS;
use hickory_proto::rr::RecordType;
use lab::client::LookupTransport;
use lab::{Lab, Pod, RESOLVER, dns};
use namegate_integration::container::{Container, capabilities};
use namegate_integration::control_plane::{ControlPlane, manifests};
use namegate_integration::{ip, wait_until};
use netns::Namespace;
use serde_json::Value;
use tempfile::TempDir;

use crate::objects;

const NODE: &str = "node-1";

#[test]
fn a_policy_that_kubectl_applies_is_enforced_under_the_rights_that_are_shipped_and_none_is_unused() {
    let lab = Lab::builder().build().unwrap();
    let Some(mut cluster) = ControlPlane::start(lab.node()) else {
        return;
    };
    cluster.install("crds");
    cluster.install("overlays/default");
    cluster.apply(&format!("{{apiVersion: v1, kind: Node, metadata: {{name: {NODE}}}}}"));
    cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}");
    for (index, pod) in lab.pods().iter().enumerate() {
        cluster.run_pod(&running(index, pod));
    }
    lab.resolver()
        .set(&["api.example 60 A 198.51.100.7", "other.example 60 A 198.51.100.8"])
        .unwrap();

    let agent = Deployed::start(&cluster, lab.node());
    wait_until("the startup probe succeeds", || agent.probe("startupProbe"));
    wait_until("the readiness probe succeeds", || agent.probe("readinessProbe"));
    assert!(agent.probe("livenessProbe"));

    let resolve = |name| {
        lab.pod(0)
            .resolve(dns(RESOLVER), name, RecordType::A, LookupTransport::Udp)
            .unwrap()
    };
    let connect = |address: &str| lab.pod(0).connect(ip(address), 443).unwrap();
    assert!(connect("198.51.100.8").is_connected(), "no policy yet");
    cluster.apply(&named("checkout", "api.example"));
    wait_until("the policy is in force", || connect("198.51.100.8").is_refused());
    assert!(connect("198.51.100.7").is_refused(), "nobody has asked for it");
    assert_eq!(resolve("api.example").address(), Some(ip("198.51.100.7")));
    assert!(connect("198.51.100.7").is_connected());
    // In a cluster every name may be asked; what it resolves to opens only where a policy names it.
    assert!(resolve("other.example").address().is_some());
    assert!(connect("198.51.100.8").is_refused());

    // What became of it, as `kubectl get cnp` shows it.
    wait_until("its state is written", || {
        let shown = cluster.kubectl(["get", "cnp", "checkout", "-n", "shop", "--no-headers"]);
        shown.split_whitespace().take(3).eq(["checkout", "True", "True"])
    });
    // Of the other kinds, and of a policy that fails twice, so that its Event is repeated.
    cluster.apply(
        "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: wide}\n\
         spec: {endpointSelector: {matchLabels: {app: nobody}}, egress: [{}]}\n---\n\
         apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: tiers}\n\
         spec: {tier: Admin, priority: 1, subject: {namespaces: {matchLabels: {team: nobody}}}}\n",
    );
    for kind in ["ccnp/wide", "clusternetworkpolicy/tiers"] {
        wait_until("its state is written", || {
            cluster.kubectl(["get", kind, "--no-headers"]).contains("True")
        });
    }
    let refused = |port: &str, name: &str| {
        cluster.apply(&format!(
            "{}    toPorts: [{{ports: [{{port: '{port}'}}]}}]\n",
            named("broken", name)
        ));
    };
    let events = || cluster.kubectl(["get", "events.events.k8s.io", "-n", "shop", "-o", "json"]);
    refused("70000", "api.example");
    wait_until("an Event says why it is refused", || events().contains("70000"));
    refused("80000", "api.example");
    wait_until("another one says why it is refused now", || events().contains("80000"));
    refused("80000", "other.example");
    wait_until("that says that it happened again", || events().contains("\"series\""));

    agent.terminate();
    let rights = cluster.rights();
    assert_eq!(rights.refused, [].into(), "the agent asks for no more than it is given");
    let other: Vec<&String> = rights.unused.iter().filter(|it| !it.starts_with("list ")).collect();
    assert_eq!(other, [""; 0], "the agent is given no more than it asks for");
    // A Pod's uid is asked for by a list, for the Event that connections of it were cut.
    let streamed = |kind: &&str| *kind != "pods";
    let kinds: BTreeSet<_> = KINDS.iter().map(|kind| kind.plural).filter(streamed).collect();
    let unused = rights.unused.iter().filter(|right| *right != "list pods").count();
    assert_eq!(
        unused,
        kinds.len(),
        "where lists are streamed, none is asked for: {rights:?}"
    );

    // An API server that does not stream lists is asked for them in the old way.
    cluster.stop_api();
    cluster.set_flags(&["--feature-gates=WatchList=false"]);
    cluster.start_api();
    let agent = Deployed::start(&cluster, lab.node());
    wait_until("the readiness probe succeeds", || agent.probe("readinessProbe"));
    // But for the kind that this API server does not have, which a watch has told already.
    let is_there = |right: &&String| !right.contains("serviceimports");
    wait_until("every kind is listed", || {
        cluster.rights().unused.iter().filter(is_there).count() == 0
    });
    agent.terminate();
    assert_eq!(
        cluster.rights().refused,
        [].into(),
        "the agent asks for no more than it is given"
    );
}

/// Fields that the definitions do not know, and a list without a value, from a client that does not
/// ask the API server to be strict.
#[test]
fn what_no_client_refuses_the_agent_sees_and_refuses() {
    let lab = Lab::builder().build().unwrap();
    let Some(cluster) = ControlPlane::start(lab.node()) else {
        return;
    };
    cluster.install("crds");
    cluster.install("overlays/default");
    cluster.apply(&format!("{{apiVersion: v1, kind: Node, metadata: {{name: {NODE}}}}}"));
    cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}");
    for (index, pod) in lab.pods().iter().enumerate() {
        cluster.run_pod(&running(index, pod));
    }
    let agent = Deployed::start(&cluster, lab.node());
    wait_until("the readiness probe succeeds", || agent.probe("readinessProbe"));
    let connect = || lab.pod(0).connect(ip("198.51.100.8"), 443).unwrap();
    assert!(connect().is_connected(), "no policy yet");

    let ports = "toPorts: [{ports: [{port: '443'}]}]";
    let selector = "endpointSelector: {matchLabels: {app: pod0}}";
    for (spec, said) in [
        (
            format!("{selector}, egress: [{{toFqdns: [{{matchName: api.example}}], {ports}}}]"),
            "toFqdns",
        ),
        (format!("{selector}, egress: [{{toFQDNs: null, {ports}}}]"), "toFQDNs"),
    ] {
        let policy = format!(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: broken, namespace: shop}}\nspec: {{{spec}}}\n"
        );
        cluster.feed(&["apply", "--validate=ignore"], &policy);
        wait_until("the column VALID says False", || {
            let shown = cluster.kubectl(["get", "cnp", "broken", "-n", "shop", "--no-headers"]);
            shown.split_whitespace().nth(1) == Some("False")
        });
        let message = r#"jsonpath={.status.conditions[?(@.type=="Valid")].message}"#;
        let message = cluster.kubectl(["get", "cnp", "broken", "-n", "shop", "-o", message]);
        assert!(message.contains(said), "{message}");
        assert!(
            connect().is_refused(),
            "whom it selects is closed until it is mended: {spec}"
        );
        cluster.kubectl(["delete", "cnp", "broken", "-n", "shop"]);
        wait_until("it is gone", || connect().is_connected());
    }
    let policy = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: broken, namespace: shop}\n\
                  spec: {endpointSelector: {matchLabel: {app: pod0}}, egress: [{}]}\n";
    cluster.feed(&["apply", "--validate=ignore"], policy);
    wait_until("the column VALID says False", || {
        let shown = cluster.kubectl(["get", "cnp", "broken", "-n", "shop", "--no-headers"]);
        shown.split_whitespace().nth(1) == Some("False")
    });
    assert!(
        connect().is_connected(),
        "not every Pod is closed by it, as `endpointSelector: {{}}` would"
    );
    agent.terminate();
}

/// As network-policy-api before 0.3.0 has it.
#[test]
fn an_api_server_with_the_older_version_of_a_kind_alone_is_understood() {
    let lab = Lab::builder().build().unwrap();
    let Some(cluster) = ControlPlane::start(lab.node()) else {
        return;
    };
    cluster.install("overlays/default");
    let text =
        fs::read_to_string(manifests().join("crds/policy.networking.k8s.io/clusternetworkpolicies.yaml")).unwrap();
    let mut definition = objects(&text).remove(0);
    let versions = definition["spec"]["versions"].as_array_mut().unwrap();
    versions.retain(|version| version["name"] == "v1alpha2");
    versions[0]["storage"] = true.into();
    let name = definition["metadata"]["name"].as_str().unwrap().to_owned();
    cluster.kubectl(["delete", "crd", &name, "--ignore-not-found"]);
    cluster.apply(&definition.to_string());
    cluster.apply(&format!("{{apiVersion: v1, kind: Node, metadata: {{name: {NODE}}}}}"));
    cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}");
    for (index, pod) in lab.pods().iter().enumerate() {
        cluster.run_pod(&running(index, pod));
    }
    let agent = Deployed::start(&cluster, lab.node());
    wait_until("the readiness probe succeeds", || agent.probe("readinessProbe"));
    let policy = "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: deny}\n\
                  spec: {tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Deny, to: [{networks: [198.51.100.8/32]}]}]}\n";
    wait_until("the kind is served", || {
        let output = cluster.try_feed(&["apply", "--server-side"], policy);
        output.status.success()
    });
    wait_until("it is in force", || {
        lab.pod(0).connect(ip("198.51.100.8"), 443).unwrap().is_refused()
    });
    wait_until("its state is written", || {
        cluster
            .kubectl(["get", "clusternetworkpolicy/deny", "--no-headers"])
            .contains("True")
    });
    agent.terminate();
}

/// The agent's container, without a kubelet.
struct Deployed {
    child: Child,
    daemon_set: Value,
    container: Container,
    node: Namespace,
    directory: TempDir,
}

impl Deployed {
    fn start(cluster: &ControlPlane, node: &Namespace) -> Self {
        let overlay = manifests().join("overlays/default");
        let objects = objects(&cluster.kubectl(["kustomize", overlay.to_str().unwrap()]));
        let of_kind = |kind: &str| objects.iter().find(|object| object["kind"] == kind).unwrap();
        let daemon_set = of_kind("DaemonSet").clone();
        let binary = env!("CARGO_BIN_EXE_namegate-under-test");
        let container = Container::new(binary, &capabilities(&daemon_set));

        // The volumes.
        let directory = TempDir::new().unwrap();
        for volume in ["config", "run", "state"] {
            fs::create_dir(directory.path().join(volume)).unwrap();
        }
        let options = of_kind("ConfigMap")["data"]["agent.yaml"].as_str().unwrap();
        fs::write(directory.path().join("config/agent.yaml"), options).unwrap();

        let mut command = node.command(container.program());
        for argument in daemon_set["spec"]["template"]["spec"]["containers"][0]["args"]
            .as_array()
            .unwrap()
        {
            let argument = argument.as_str().unwrap();
            let argument = argument
                .replace("$(NODE_NAME)", NODE)
                .replace("$(HOST_IP)", "127.0.0.1");
            command.arg(argument.replace("/etc/namegate", directory.path().join("config").to_str().unwrap()));
        }
        // What the Pod finds in its own places: the account's token, the node's resolv.conf, its
        // volumes.
        command.arg("--kubeconfig").arg(cluster.agent_kubeconfig());
        command.args(["--upstream", &RESOLVER.to_string()]);
        command.arg("--run-dir").arg(directory.path().join("run"));
        command.arg("--state-dir").arg(directory.path().join("state"));
        let log = File::create(directory.path().join("log")).unwrap();
        command
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        Self {
            child: command.spawn().unwrap(),
            daemon_set,
            container,
            node: node.clone(),
            directory,
        }
    }

    /// Whether a probe of the Pod succeeds.
    fn probe(&self, which: &str) -> bool {
        let probe = &self.daemon_set["spec"]["template"]["spec"]["containers"][0][which]["exec"]["command"];
        let line: Vec<&str> = probe.as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert_eq!(line[0], "namegate", "{which}");
        let mut command = self.node.command(self.container.program());
        command
            .args(&line[1..])
            .arg("--run-dir")
            .arg(self.directory.path().join("run"));
        command.output().unwrap().status.success()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// SIGTERM, as the kubelet sends it.
    fn terminate(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {}", self.log());
        let log = self.log();
        let mut unexpected = log
            .lines()
            .filter(|line| line.contains("ERROR") && !line.contains("shop/broken"));
        assert_eq!(unexpected.next(), None, "{log}");
    }
}

impl Drop for Deployed {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the agent's log:\n{}", self.log());
        }
    }
}

fn named(policy: &str, name: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {policy}, namespace: shop}}\nspec:\n  \
         endpointSelector: {{matchLabels: {{app: pod0}}}}\n  egress:\n  - toFQDNs: [{{matchName: {name}}}]\n"
    )
}

fn running(index: usize, pod: &Pod) -> String {
    let (v4, v6) = (pod.address4(), pod.address6());
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: pod{index}, namespace: shop, labels: {{app: pod{index}}}}}\n\
         spec: {{nodeName: {NODE}, containers: [{{name: main, image: none}}]}}\n\
         status: {{phase: Running, podIP: {v4}, podIPs: [{{ip: {v4}}}, {{ip: '{v6}'}}]}}\n"
    )
}
