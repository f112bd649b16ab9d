//! A real control plane for the tests: kube-apiserver over etcd, with RBAC on, and `kubectl`.
//!
//! Each runs in the network namespace of a lab's node, on its loopback, so that tests do not meet.
//! `integration/kube` holds the sources of the one binary that is all three; where Go is missing
//! there is none, and [`ControlPlane::start`] gives `None`.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use netns::Namespace;
use tempfile::TempDir;

use crate::cluster_role::ApiRights;
use crate::{fail, succeed};

/// The port of the API server in its network namespace.
pub const API_PORT: u16 = 6443;
const PORTS: ControlPlanePorts = ControlPlanePorts {
    api: API_PORT,
    etcd: 2379,
    etcd_peer: 2380,
};
/// Those of a second one in the same network namespace.
const PORTS_BESIDE: ControlPlanePorts = ControlPlanePorts {
    api: 6444,
    etcd: 2389,
    etcd_peer: 2390,
};

/// Where a control plane listens.
#[derive(Debug, Clone, Copy)]
struct ControlPlanePorts {
    api: u16,
    etcd: u16,
    etcd_peer: u16,
}

/// The ServiceAccount that `manifests/` gives the agent.
pub const SERVICE_ACCOUNT: (&str, &str) = ("namegate", "namegate");
/// The one that it gives agents of other clusters.
const PEER_ACCOUNT: (&str, &str) = ("namegate", "namegate-peer");

/// The environment variable with the path of the binary. Tests may run as a user without Go, who
/// cannot build it.
const BINARY_VARIABLE: &str = "NAMEGATE_CONTROL_PLANE";

/// How long a start may take. It takes some seconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// An API server with its store. Everything panics with what went wrong, since it is only used by
/// tests.
///
/// Dropping it ends both and forgets their objects.
#[derive(Debug)]
pub struct ControlPlane {
    api: Option<Child>,
    etcd: Option<Child>,
    flags: Vec<String>,
    ports: ControlPlanePorts,
    /// Flags of `serve-api` itself.
    clients: Vec<String>,
    namespace: Namespace,
    binary: PathBuf,
    data: TempDir,
}

impl ControlPlane {
    /// Starts one in `namespace`, and waits until it is ready. `None`, with a line that says so,
    /// where Go is missing.
    pub fn start(namespace: &Namespace) -> Option<Self> {
        Self::start_with(namespace, &[])
    }

    /// As [`start`](Self::start), with more flags for kube-apiserver.
    pub fn start_with(namespace: &Namespace, flags: &[&str]) -> Option<Self> {
        Self::start_at(PORTS, namespace, flags, Vec::new())
    }

    /// Starts a second one in a namespace that has one.
    pub fn start_beside(namespace: &Namespace) -> Option<Self> {
        Self::start_at(PORTS_BESIDE, namespace, &[], Vec::new())
    }

    /// As [`start`](Self::start), for Pods, which reach it at `address` by the Service
    /// `kubernetes`, and for the kubelet of `node`, whose kubeconfig is
    /// [`node_kubeconfig`](Self::node_kubeconfig).
    pub fn start_for_node(namespace: &Namespace, address: Ipv4Addr, node: &str) -> Option<Self> {
        let clients = vec![format!("--address={address}"), format!("--node={node}")];
        Self::start_at(PORTS, namespace, &[], clients)
    }

    fn start_at(ports: ControlPlanePorts, namespace: &Namespace, flags: &[&str], clients: Vec<String>) -> Option<Self> {
        let data = tempfile::Builder::new()
            .prefix("namegate-kube-")
            .tempdir()
            .unwrap_or_else(fail("the control plane's directory"));
        let mut control_plane = Self {
            api: None,
            etcd: None,
            flags: flags.iter().map(ToString::to_string).collect(),
            ports,
            clients,
            namespace: namespace.clone(),
            binary: binary()?.to_owned(),
            data,
        };
        fs::write(control_plane.path("audit-policy.yaml"), audit_policy()).unwrap_or_else(fail("the audit policy"));
        control_plane.start_etcd();
        control_plane.start_api();
        Some(control_plane)
    }

    /// Starts the API server again after [`kill_api`](Self::kill_api) or
    /// [`stop_api`](Self::stop_api), and waits until it is ready.
    pub fn start_api(&mut self) {
        assert!(self.api.is_none(), "the API server is running already");
        let mut arguments = vec![
            self.data_flag(),
            format!("--port={}", self.ports.api),
            format!("--etcd-port={}", self.ports.etcd),
        ];
        arguments.extend(self.clients.iter().cloned());
        arguments.extend([
            "--".to_owned(),
            format!("--audit-policy-file={}", self.path("audit-policy.yaml").display()),
            format!("--audit-log-path={}", self.path("audit.log").display()),
        ]);
        arguments.extend(self.flags.iter().cloned());
        self.api = Some(self.serve("serve-api", &arguments));
        let ready = || self.try_kubectl(["get", "--raw=/readyz"]).status.success();
        self.wait("the API server is ready", ready);
        // The namespaces that every cluster has are made after the server calls itself ready.
        let settled = || self.try_kubectl(["get", "namespace", "default"]).status.success();
        self.wait("the namespace `default` is there", settled);
    }

    /// Kills the API server by SIGKILL. Its objects stay in etcd.
    pub fn kill_api(&mut self) {
        kill(&mut self.api);
    }

    /// Ends the API server by SIGTERM, so that it closes its watches in order.
    pub fn stop_api(&mut self) {
        let mut child = self.api.take().expect("the API server is running");
        succeed(Command::new("kill").arg(child.id().to_string())).unwrap_or_else(fail("SIGTERM"));
        child.wait().unwrap_or_else(fail("the API server's end"));
    }

    /// Sets more flags for kube-apiserver, from its next start on.
    pub fn set_flags(&mut self, flags: &[&str]) {
        self.flags = flags.iter().map(ToString::to_string).collect();
    }

    /// The process of the API server, which must be running.
    pub fn api_pid(&self) -> u32 {
        self.api.as_ref().expect("the API server is running").id()
    }

    /// Whether the API server is running.
    pub fn is_serving(&self) -> bool {
        self.api.is_some()
    }

    /// Runs `kubectl` as the administrator. It must succeed. Returns its output.
    pub fn kubectl<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> String {
        let mut command = self.kubectl_command();
        let output = succeed(command.args(arguments)).unwrap_or_else(fail("kubectl"));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs `kubectl` as the administrator.
    pub fn try_kubectl<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Output {
        let mut command = self.kubectl_command();
        let command = command.args(arguments).stdin(Stdio::null());
        command.output().unwrap_or_else(fail("kubectl"))
    }

    /// `kubectl VERB -f -` with `manifest`, which must succeed: `["apply", "--server-side"]`,
    /// `["replace", "--subresource=status"]`, …
    pub fn feed(&self, verb: &[&str], manifest: &str) -> String {
        let output = self.try_feed(verb, manifest);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {verb:?}: {said}\n{manifest}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// As [`feed`](Self::feed), where a refusal is an answer too.
    pub fn try_feed(&self, verb: &[&str], manifest: &str) -> Output {
        let mut command = self.kubectl_command();
        command.args(verb).args(["-f", "-"]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(fail("kubectl"));
        // Taken, so that it is closed after the manifest.
        if let Some(mut stdin) = child.stdin.take() {
            // A kubectl that has ended says by itself why.
            let _ = stdin.write_all(manifest.as_bytes());
        }
        child.wait_with_output().unwrap_or_else(fail("kubectl"))
    }

    /// `kubectl apply` of `manifest`.
    pub fn apply(&self, manifest: &str) {
        self.feed(&["apply", "--server-side", "--force-conflicts"], manifest);
    }

    /// Makes a Pod as the scheduler leaves it, or changes one, and sets its status as a kubelet
    /// would. The manifest carries the `status`.
    pub fn run_pod(&self, manifest: &str) {
        self.apply(manifest);
        self.feed(
            &["apply", "--server-side", "--force-conflicts", "--subresource=status"],
            manifest,
        );
    }

    /// `kubectl apply -k` of what the project ships, `overlays/default` for example.
    pub fn install(&self, kustomization: &str) {
        self.kubectl([
            OsStr::new("apply"),
            OsStr::new("-k"),
            manifests().join(kustomization).as_os_str(),
        ]);
    }

    /// The administrator's kubeconfig.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.path("admin.kubeconfig")
    }

    /// The kubeconfig of the node's kubelet, after [`start_for_node`](Self::start_for_node).
    pub fn node_kubeconfig(&self) -> PathBuf {
        self.path("node.kubeconfig")
    }

    /// A kubeconfig with which a client is the agent's ServiceAccount, and may do what RBAC lets it
    /// do. The account must exist; its token is made once.
    pub fn agent_kubeconfig(&self) -> PathBuf {
        self.kubeconfig_of(SERVICE_ACCOUNT)
    }

    /// The same of agents of other clusters.
    pub fn peer_kubeconfig(&self) -> PathBuf {
        self.kubeconfig_of(PEER_ACCOUNT)
    }

    fn kubeconfig_of(&self, (namespace, name): (&str, &str)) -> PathBuf {
        let path = self.path(&format!("{name}.kubeconfig"));
        if path.exists() {
            return path;
        }
        let token = self.kubectl(["create", "token", name, "--namespace", namespace, "--duration=8h"]);
        fs::copy(self.admin_kubeconfig(), &path).unwrap_or_else(fail("the agent's kubeconfig"));
        let kubeconfig = format!("--kubeconfig={}", path.display());
        for arguments in [
            [
                "config",
                "set-credentials",
                "agent",
                &format!("--token={}", token.trim()),
            ],
            ["config", "set-context", "--current", "--user=agent"],
            ["config", "delete-user", "admin", ""],
        ] {
            let arguments = arguments.into_iter().filter(|argument| !argument.is_empty());
            let mut command = self.namespace.command(&self.binary);
            succeed(command.arg("kubectl").args(arguments).arg(&kubeconfig)).unwrap_or_else(fail("kubectl config"));
        }
        path
    }

    /// Runs `kubectl` as the agent's ServiceAccount.
    pub fn kubectl_as_agent<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Output {
        let kubeconfig = format!("--kubeconfig={}", self.agent_kubeconfig().display());
        let mut command = self.namespace.command(&self.binary);
        command.arg("kubectl").arg(kubeconfig).args(arguments);
        command
            .env("KUBECACHEDIR", self.path("cache-of-agent"))
            .env("KUBERC", "off");
        command.stdin(Stdio::null()).output().unwrap_or_else(fail("kubectl"))
    }

    /// Compares the agent's ClusterRole with its requests so far.
    pub fn rights(&self) -> ApiRights {
        self.rights_of(SERVICE_ACCOUNT)
    }

    /// The same of agents of other clusters, where no agent is in this one.
    pub fn peer_rights(&self) -> ApiRights {
        self.rights_of(PEER_ACCOUNT)
    }

    fn rights_of(&self, (_, role): (&str, &str)) -> ApiRights {
        let role = self.kubectl(["get", "clusterrole", role, "-o", "json"]);
        let role = serde_json::from_str(&role).unwrap_or_else(fail("the ClusterRole"));
        ApiRights::compare(&role, &self.audit_log())
    }

    /// What the agent's ServiceAccount has asked of the API server so far, as lines of JSON
    /// (`audit.k8s.io/v1`).
    pub fn audit_log(&self) -> String {
        fs::read_to_string(self.path("audit.log")).unwrap_or_else(fail("the audit log"))
    }

    /// The network namespace of the API server.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    fn start_etcd(&mut self) {
        let arguments = [
            self.data_flag(),
            format!("--port={}", self.ports.etcd),
            format!("--peer-port={}", self.ports.etcd_peer),
            "--forget".to_owned(),
        ];
        self.etcd = Some(self.serve("serve-etcd", &arguments));
    }

    /// A server of this control plane, which ends with this process.
    pub(crate) fn serve(&self, mode: &str, arguments: &[String]) -> Child {
        let log = |name| File::create(self.path(&format!("{mode}.{name}"))).unwrap_or_else(fail("a log file"));
        let mut command = self.namespace.command(&self.binary);
        command.arg(mode).args(arguments);
        // The other end closes with this process, however it ends, and the server ends with it.
        command.stdin(Stdio::piped()).stdout(log("out")).stderr(log("err"));
        command.spawn().unwrap_or_else(fail(mode))
    }

    fn kubectl_command(&self) -> Command {
        let mut command = self.namespace.command(&self.binary);
        command
            .arg("kubectl")
            .arg(format!("--kubeconfig={}", self.admin_kubeconfig().display()));
        // What kubectl remembers of an API lies with the server that it is about.
        command.env("KUBECACHEDIR", self.path("cache")).env("KUBERC", "off");
        command
    }

    fn wait(&self, what: &str, condition: impl FnMut() -> bool) {
        if patience::wait(PATIENCE, Duration::from_millis(50), condition).is_none() {
            let said = |log: &str| fs::read_to_string(self.path(log)).unwrap_or_default();
            panic!(
                "waited in vain until {what}\netcd: {}\nkube-apiserver: {}",
                said("serve-etcd.err"),
                said("serve-api.err")
            );
        }
    }

    fn data_flag(&self) -> String {
        format!("--data={}", self.data.path().display())
    }

    /// A file of this control plane.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.data.path().join(name)
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        kill(&mut self.api);
        kill(&mut self.etcd);
    }
}

/// The folder `manifests` of this repository.
pub fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests")
}

/// What Helm makes of the chart for a release `namegate` in `namespace`, its definitions included.
/// Each value is `path=value`.
///
/// # Panics
/// Where Go is missing, and when the chart is wrong.
pub fn render_chart(namespace: &str, values: &[&str]) -> String {
    let mut command = Command::new(binary().expect("the control plane was built"));
    command
        .args(["helm-template", namespace])
        .arg(manifests().join("chart"))
        .args(values);
    let output = succeed(&mut command).unwrap_or_else(fail("the chart"));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Holds objects of the Prometheus operator against its types, and says how many there were.
///
/// # Panics
/// Where Go is missing, and when one does not fit.
pub fn check_monitoring(objects: &str) -> String {
    let mut command = Command::new(binary().expect("the control plane was built"));
    let output = feed(command.arg("check-monitoring"), objects);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The binary, built when it is first asked for; `None` where Go is missing.
pub fn binary() -> Option<&'static Path> {
    static BINARY: OnceLock<Option<PathBuf>> = OnceLock::new();
    BINARY.get_or_init(find_or_build).as_deref()
}

fn find_or_build() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(BINARY_VARIABLE) {
        // `./test` sets it empty where there is no Go, and has said so.
        return Some(PathBuf::from(path)).filter(|path| !path.as_os_str().is_empty());
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("kube/build");
    let output = Command::new(script).stderr(Stdio::inherit()).output();
    let output = output.unwrap_or_else(fail("integration/kube/build"));
    match output.status.code() {
        Some(0) => Some(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())),
        Some(3) => None,
        _ => panic!("integration/kube/build ended with {}", output.status),
    }
}

/// Who did what, for agents alone.
fn audit_policy() -> String {
    let users =
        [SERVICE_ACCOUNT, PEER_ACCOUNT].map(|(namespace, name)| format!("'system:serviceaccount:{namespace}:{name}'"));
    let users = users.join(", ");
    format!(
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n\
         - level: Metadata\n  users: [{users}]\n\
         - level: None\n"
    )
}

/// Runs a command with `input`, to its end.
fn feed(command: &mut Command, input: &str) -> Output {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(fail("the control plane's binary"));
    // Taken, so that it is closed after the input.
    if let Some(mut stdin) = child.stdin.take() {
        // A program that has ended says by itself why.
        let _ = stdin.write_all(input.as_bytes());
    }
    child
        .wait_with_output()
        .unwrap_or_else(fail("the control plane's binary"))
}

fn kill(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        // Fails only when it has ended already.
        let _ = child.kill();
        let _ = child.wait();
    }
}
