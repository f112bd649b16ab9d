//! What the administrator does with `kubectl`.

use std::ffi::OsStr;
use std::process::{Command, Output, Stdio};

use super::ControlPlane;
use super::program::{feed, manifests};
use crate::{fail, succeed};

impl ControlPlane {
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
        feed(command.args(verb).args(["-f", "-"]), manifest)
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

    fn kubectl_command(&self) -> Command {
        let mut command = self.namespace.command(&self.binary);
        command
            .arg("kubectl")
            .arg(format!("--kubeconfig={}", self.admin_kubeconfig().display()));
        // What kubectl remembers of an API lies with the server that it is about.
        command.env("KUBECACHEDIR", self.path("cache")).env("KUBERC", "off");
        command
    }
}
