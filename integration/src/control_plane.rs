//! A real control plane for the tests: kube-apiserver over etcd, with RBAC on, and `kubectl`.
//!
//! Each runs in the network namespace of a lab's node, on its loopback, so that tests do not meet.
//! `integration/kube` holds the sources of the one binary that is all three; where Go is missing
//! there is none, and [`ControlPlane::start`] gives `None`.

mod accounts;
mod kubectl;
mod program;

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use netns::Namespace;
use tempfile::TempDir;

use crate::{fail, succeed};

pub use accounts::SERVICE_ACCOUNT;
pub use program::{binary, check_monitoring, manifests, render_chart};

use accounts::audit_policy;

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

    /// The administrator's kubeconfig.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.path("admin.kubeconfig")
    }

    /// The kubeconfig of the node's kubelet, after [`start_for_node`](Self::start_for_node).
    pub fn node_kubeconfig(&self) -> PathBuf {
        self.path("node.kubeconfig")
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

fn kill(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        // Fails only when it has ended already.
        let _ = child.kill();
        let _ = child.wait();
    }
}
