//! The node's own processes, in namespaces and cgroups of their own: containerd, kubelet,
//! kube-proxy, and the containers of Pods.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use netns::Namespace;

use crate::built::find_or_build;
use crate::{control_plane, fail};

/// The environment variable with what `integration/node/build` has made. Tests may run as a user
/// without Go.
const RUNTIME_VARIABLE: &str = "NAMEGATE_NODE_RUNTIME";

/// A machine that can be started again with the same disk. The end of this process, or dropping it,
/// ends all of it and removes the disk.
#[derive(Debug)]
pub(super) struct Machine {
    /// `integration/node/machine`, whose end is that of everything.
    running: Option<Child>,
    namespace: Namespace,
    directory: PathBuf,
}

impl Machine {
    /// A machine that is off, with its disk in `directory`.
    pub(super) fn new(namespace: &Namespace, directory: &Path) -> Self {
        Self {
            running: None,
            namespace: namespace.clone(),
            directory: directory.to_owned(),
        }
    }

    /// Switches it on, and returns at once.
    pub(super) fn start(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.directory.join("log/machine.log"));
        let log = log.unwrap_or_else(fail("a log file"));
        let mut command = self.namespace.command(scripts().join("machine"));
        command
            .arg(&self.directory)
            .arg(runtime().expect("the runtime was built"))
            .arg(control_plane::binary().expect("the control plane was built"))
            // The other end closes with this process, however it ends.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log);
        self.running = Some(command.spawn().unwrap_or_else(fail("integration/node/machine")));
    }

    /// Switches it off, as a power cut does, and waits until nothing is left but the disk.
    pub(super) fn switch_off(&mut self) {
        if let Some(input) = self.running.as_mut().and_then(|machine| machine.stdin.as_mut()) {
            input
                .write_all(b"off\n")
                .unwrap_or_else(fail("integration/node/machine"));
        }
        self.end();
    }

    fn end(&mut self) {
        if let Some(mut machine) = self.running.take() {
            drop(machine.stdin.take());
            // It has no way to fail that the next start does not tell.
            let _ = machine.wait();
        }
    }

    /// Kills the process that holds the namespaces of a Pod.
    ///
    /// # Panics
    /// When the Pod has none.
    pub(super) fn kill_sandbox(&self, uid: &str) {
        let pods = fs::read_dir("/proc").unwrap_or_else(fail("/proc")).flatten();
        let pause = pods.map(|entry| entry.path()).find(|process| {
            let read = |file: &str| fs::read_to_string(process.join(file)).unwrap_or_default();
            read("cmdline") == "/probe\0pause\0" && read("cgroup").contains(uid)
        });
        let pause = pause.unwrap_or_else(|| panic!("Pod {uid} has no sandbox"));
        let pid = pause.file_name().expect("a process has a number").to_owned();
        let killed = Command::new("kill").arg("-KILL").arg(pid).status();
        assert!(killed.unwrap_or_else(fail("kill")).success(), "the sandbox was there");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.end();
    }
}

/// The folder of the scripts and settings that make a node.
pub(super) fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("node")
}

/// What a node is made of, gathered when it is first asked for; `None`, with a line that says why,
/// where no node can run.
pub(super) fn runtime() -> Option<&'static Path> {
    static RUNTIME: OnceLock<Option<PathBuf>> = OnceLock::new();
    RUNTIME
        .get_or_init(|| find_or_build("node/build", RUNTIME_VARIABLE))
        .as_deref()
}
