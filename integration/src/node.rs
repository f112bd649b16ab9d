//! A cluster of one real node: kubelet and containerd run Pods out of images, the controllers and
//! the scheduler make and place them, kube-proxy translates Services, and the agent is the Pod of
//! the DaemonSet in `manifests/`.
//!
//! The node is the lab's, with its resolver and its internet; its processes have namespaces and
//! cgroups of their own (`integration/node/machine`). Nothing of the host is changed, and nothing
//! outlives the test.

mod attempts;
mod controllers;
mod disk;
mod images;
mod machine;
mod second;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lab::process::is_root;
use lab::{Lab, RESOLVER};
use serde_json::Value;
use tempfile::TempDir;

use crate::control_plane::{ControlPlane, manifests};
use crate::fail;

pub use attempts::{AttemptStep, PodAttempt};
pub use images::NEXT_AGENT;

use controllers::Controllers;
use disk::NodeIdentity;
use machine::Machine;
use second::SecondNode;

/// The Node's name.
pub const NODE: &str = "node-1";
/// The node's address towards the lab's internet.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// What the controllers give to the node that registers first.
const PODS: &str = "10.244.0.0/24";
/// The lab's internet, as the node sees it.
const GATEWAY: &str = "192.0.2.2";
/// The address of the Service kube-system/kube-dns, behind which the lab's resolver is.
const CLUSTER_DNS: &str = "10.96.0.10";

/// How long anything on the node may take, before it is scaled. Only failures take so long.
const PATIENCE: Duration = Duration::from_secs(90);

/// The cluster. Everything panics with what went wrong, since it is only used by tests.
#[derive(Debug)]
pub struct NodeCluster {
    // Fields are dropped in this order: the machine ends before its API server and its disk.
    second: Option<SecondNode>,
    machine: Machine,
    _controllers: Controllers,
    /// The API server.
    pub control: ControlPlane,
    lab: Lab,
    directory: TempDir,
    begun: Instant,
}

impl NodeCluster {
    /// Starts one whose agent is `binary`, with `manifests/overlays/default` applied as it is, and
    /// waits until the agent's Pod is ready. Prints when each part was. `None`, with a line that
    /// says so, where no node can run.
    pub fn start(binary: &Path) -> Option<Self> {
        Self::start_with(binary, None)
    }

    /// The same for other people's suites: Pods find the image of `agnhost` too, and there is a
    /// second node, since some of those Pods have the same host port.
    pub fn start_for_suites(binary: &Path, agnhost: &Path) -> Option<Self> {
        Self::start_with(binary, Some(agnhost))
    }

    fn start_with(binary: &Path, agnhost: Option<&Path>) -> Option<Self> {
        let runtime = machine::runtime()?;
        assert!(is_root(), "a node needs root: run ./test, or cargo test under sudo");
        let begun = Instant::now();
        let lab = Lab::builder().pods(0).build().unwrap_or_else(fail("the lab"));
        // Packets to Services find their way before they are translated.
        let mut route = lab.node().command("ip");
        let route = route.args(["route", "add", "default", "via", GATEWAY]);
        crate::succeed(route).unwrap_or_else(fail("the default route"));
        let directory = tempfile::Builder::new()
            .prefix("namegate-node-")
            .tempdir()
            .unwrap_or_else(fail("the node's disk"));
        let control = ControlPlane::start_for_node(lab.node(), ADDRESS, NODE)?;
        let mut cluster = Self {
            second: None,
            machine: Machine::new(lab.node(), directory.path()),
            _controllers: Controllers::start(&control),
            control,
            lab,
            directory,
            begun,
        };
        let identity = NodeIdentity {
            name: NODE,
            address: ADDRESS,
            pods: PODS,
            kubelet: &cluster.control.node_kubeconfig(),
            proxy: &cluster.control.admin_kubeconfig(),
        };
        disk::write(cluster.directory.path(), &identity);
        let images = cluster.path("images");
        fs::create_dir(&images).unwrap_or_else(fail("the images"));
        images::write(&images, &runtime.join("probe"), binary);
        if let Some(agnhost) = agnhost {
            images::write_agnhost(&images, agnhost);
        }
        cluster.say("the API server is ready");
        cluster.machine.start();
        cluster.control.install("crds");
        cluster.control.apply(&namespaces_and_dns());
        cluster.wait("the node is ready", Self::is_ready);
        cluster.say("the node is ready");
        if agnhost.is_some() {
            let (first, control) = (cluster.lab.node(), &cluster.control);
            cluster.second = Some(SecondNode::start(first, control, ADDRESS, &images));
        }
        cluster.control.install("overlays/default");
        cluster.wait_rollout();
        cluster.say("the agent of the DaemonSet is ready");
        Some(cluster)
    }

    /// The lab, whose node this is.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Runs a Pod `shop/NAME` with the label `app: NAME`, whose program tries what `flags` of
    /// `probe watch` say. Returns when the kubelet has started it.
    pub fn run_pod(&self, name: &str, flags: &str) {
        let flags: Vec<String> = flags.split_whitespace().map(|flag| format!("{flag:?}")).collect();
        self.control.apply(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: shop, labels: {{app: {name}}}}},
               spec: {{terminationGracePeriodSeconds: 1, automountServiceAccountToken: false,
                       dnsConfig: {{options: [{{name: attempts, value: '1'}}, {{name: timeout, value: '2'}}]}},
                       containers: [{{name: main, image: '{}', args: [watch, {}]}}]}}}}",
            images::PROBE,
            flags.join(", ")
        ));
        self.wait(&format!("{name} runs"), |it| {
            it.pod(name)["status"]["phase"] == "Running"
        });
    }

    /// Deletes a Pod of `shop`, and waits until it is gone.
    pub fn delete_pod(&self, name: &str) {
        self.control
            .kubectl(["delete", "pod", name, "-n", "shop", "--grace-period=1"]);
    }

    /// A Pod of `shop`, as the API server has it.
    pub fn pod(&self, name: &str) -> Value {
        json(&self.control.kubectl(["get", "pod", name, "-n", "shop", "-o", "json"]))
    }

    /// The address of a Pod of `shop`, empty where it has none.
    pub fn pod_address(&self, name: &str) -> String {
        self.pod(name)["status"]["podIP"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// The Pods of the DaemonSet.
    pub fn agents(&self) -> Vec<Value> {
        let list = json(&self.control.kubectl(["get", "pods", "-n", "namegate", "-o", "json"]));
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// What the container that runs in a Pod of `shop` has tried so far.
    pub fn attempts(&self, name: &str) -> Vec<PodAttempt> {
        self.attempts_by_container(name).pop().unwrap_or_default()
    }

    /// What the containers of a Pod of `shop` have tried, one after the other.
    pub fn attempts_by_container(&self, name: &str) -> Vec<Vec<PodAttempt>> {
        let pod = self.pod(name);
        let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
        attempts::read(&self.path("log/pods").join(format!("shop_{name}_{uid}")))
    }

    /// Waits until the policy of a Pod decides all that its program tries: for one round and more,
    /// every attempt is right.
    pub fn wait_governed(&self, name: &str) {
        const ROUNDS: usize = 12;
        self.wait(&format!("{name} is governed"), |it| {
            let attempts = it.attempts(name);
            attempts.len() >= ROUNDS && attempts.iter().rev().take(ROUNDS).all(PodAttempt::is_right)
        });
    }

    /// Kills what holds the namespaces of a Pod of `shop`: the kubelet makes them anew.
    pub fn kill_sandbox(&self, name: &str) {
        let pod = self.pod(name);
        self.machine
            .kill_sandbox(pod["metadata"]["uid"].as_str().unwrap_or_default());
    }

    /// Applies `manifests/overlays/default` with these lines added to the agent's options, and
    /// waits until agents with them have taken over.
    pub fn configure(&self, options: &str) {
        let base = manifests()
            .canonicalize()
            .unwrap_or_else(fail("the folder `manifests`"));
        let own = TempDir::new_in(self.directory.path()).unwrap_or_else(fail("an overlay"));
        let here = own.path().canonicalize().unwrap_or_else(fail("an overlay"));
        // Kustomize takes relative paths only.
        let up = "../".repeat(here.components().count() - 1);
        let written = fs::read_to_string(base.join("base/agent.yaml")).unwrap_or_else(fail("agent.yaml"));
        let write = |file: &str, text: String| fs::write(here.join(file), text).unwrap_or_else(fail(file));
        write("agent.yaml", format!("{written}{options}\n"));
        write(
            "kustomization.yaml",
            format!(
                "resources: [{up}{}/overlays/default]\nconfigMapGenerator:\n\
                 - {{name: namegate, namespace: namegate, behavior: replace, files: [agent.yaml]}}\n",
                base.display().to_string().trim_start_matches('/')
            ),
        );
        self.control.install(&here.display().to_string());
        self.wait_rollout();
    }

    /// Applies `manifests/overlays/default` as it is, and waits until its agents have taken over.
    pub fn configure_as_shipped(&self) {
        self.control.install("overlays/default");
        self.wait_rollout();
    }

    /// Waits until the DaemonSet's present version is ready and no other Pod of it is left.
    pub fn wait_rollout(&self) {
        self.wait("the agents are ready", |it| {
            let set = json(
                &it.control
                    .kubectl(["get", "daemonset", "namegate", "-n", "namegate", "-o", "json"]),
            );
            let (status, generation) = (&set["status"], &set["metadata"]["generation"]);
            let nodes = 1 + usize::from(it.second.is_some());
            &status["observedGeneration"] == generation
                && status["updatedNumberScheduled"] == nodes
                && status["numberAvailable"] == nodes
                && it.agents().len() == nodes
        });
    }

    /// Ends all of the node's processes at once and clears what its kernel holds, starts it again
    /// with the same disk, and waits until the kubelet reports.
    pub fn reboot(&mut self) {
        self.machine.switch_off();
        let script = "nft flush ruleset; ip link delete cni0; ip address flush dev lo scope global";
        let mut command = self.lab.node().command("sh");
        crate::succeed(command.args(["-c", script])).unwrap_or_else(fail("clearing the kernel"));
        self.machine.start();
    }

    /// Waits until `condition` holds.
    ///
    /// # Panics
    /// When it does not, with the last lines of the node's logs.
    pub fn wait(&self, what: &str, mut condition: impl FnMut(&Self) -> bool) -> Duration {
        let took = patience::wait(PATIENCE, Duration::from_millis(100), || condition(self));
        took.unwrap_or_else(|| panic!("waited in vain until {what}\n{}", self.state()))
    }

    fn is_ready(&self) -> bool {
        let output = self.control.try_kubectl(["get", "node", NODE, "-o", "json"]);
        let Ok(node) = serde_json::from_slice::<Value>(&output.stdout) else {
            return false;
        };
        let conditions = node["status"]["conditions"].as_array();
        let ready = conditions
            .into_iter()
            .flatten()
            .find(|condition| condition["type"] == "Ready");
        // Pods wait for these tokens.
        let account = ["get", "serviceaccount", "default", "-n", "shop"];
        ready.is_some_and(|condition| condition["status"] == "True")
            && node["spec"]["podCIDR"].is_string()
            && self.control.try_kubectl(account).status.success()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    #[expect(clippy::print_stdout, reason = "the figures are part of what tests show")]
    fn say(&self, what: &str) {
        println!("{what} after {:.1?}", self.begun.elapsed());
    }

    /// What a reader wants to see when something was waited for in vain.
    fn state(&self) -> String {
        let ask = |what: &str| {
            let words = ["get", what, "--all-namespaces", "-o", "wide"];
            String::from_utf8_lossy(&self.control.try_kubectl(words).stdout).into_owned()
        };
        let log = |name: &str| {
            let text = fs::read_to_string(self.path("log").join(name)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!("{name}:\n{}\n", lines[lines.len().saturating_sub(15)..].join("\n"))
        };
        [
            ask("pods"),
            ask("events"),
            log("machine.log"),
            log("boot.log"),
            log("kubelet.log"),
        ]
        .concat()
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(fail("kubectl's JSON"))
}

/// A namespace for Pods, and the Service of the cluster's DNS with the lab's resolver behind it.
fn namespaces_and_dns() -> String {
    format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: shop}}}}\n---\n\
         {{apiVersion: v1, kind: Service, metadata: {{name: kube-dns, namespace: kube-system}},
           spec: {{clusterIP: {CLUSTER_DNS}, ports: [{{name: dns, port: 53, protocol: UDP}}, {{name: dns-tcp, port: 53, protocol: TCP}}]}}}}\n---\n\
         {{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4,
           metadata: {{name: kube-dns, namespace: kube-system, labels: {{kubernetes.io/service-name: kube-dns}}}},
           ports: [{{name: dns, port: 53, protocol: UDP}}, {{name: dns-tcp, port: 53, protocol: TCP}}],
           endpoints: [{{addresses: ['{RESOLVER}'], conditions: {{ready: true}}}}]}}\n"
    )
}
