//! The ServiceAccounts of agents: how a client becomes one, and what it has asked for.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use super::ControlPlane;
use crate::cluster_role::ApiRights;
use crate::{fail, succeed};

/// The ServiceAccount that `manifests/` gives the agent.
pub const SERVICE_ACCOUNT: (&str, &str) = ("namegate", "namegate");
/// The one that it gives agents of other clusters.
const PEER_ACCOUNT: (&str, &str) = ("namegate", "namegate-peer");

impl ControlPlane {
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
}

/// Who did what, for agents alone.
pub(super) fn audit_policy() -> String {
    let users =
        [SERVICE_ACCOUNT, PEER_ACCOUNT].map(|(namespace, name)| format!("'system:serviceaccount:{namespace}:{name}'"));
    let users = users.join(", ");
    format!(
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n\
         - level: Metadata\n  users: [{users}]\n\
         - level: None\n"
    )
}
