//! The shipped DaemonSet on a real node: kubelet, containerd, kube-proxy, Pods out of images.
//! Skipped in one line where no node can run (`integration/node/build` says why). Needs root.

// Clippy's exceptions for tests do not reach the functions that they share.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod agent;
mod changes;
mod policies;

use std::path::PathBuf;
use std::sync::LazyLock;

use namegate_integration::fqdn_policy;
use namegate_integration::node::{AttemptStep, NodeCluster, PodAttempt};
use parking_lot::{Mutex, MutexGuard};

/// The binary in the agent's image, in place of the one that was built with the tests: a release
/// build, for example.
const BINARY_VARIABLE: &str = "NAMEGATE_NODE_BINARY";

const RECORDS: [&str; 2] = ["a.example 60 A 198.51.100.1", "b.example 60 A 198.51.100.2"];
/// What a Pod under [`allow`] tries: one name is allowed, another is not, and an address that no
/// name leads to is closed.
const TRIES: &str = "--allowed a.example --denied b.example --closed 198.51.100.99:443";

/// The node of all tests: each leaves it as the shipped manifests make it. `None` where no node can
/// run.
fn shared() -> Option<MutexGuard<'static, NodeCluster>> {
    // It ends with this process: nothing drops a static.
    static SHARED: LazyLock<Option<Mutex<NodeCluster>>> = LazyLock::new(|| {
        let built = env!("CARGO_BIN_EXE_namegate-under-test");
        let binary = std::env::var_os(BINARY_VARIABLE).map_or_else(|| built.into(), PathBuf::from);
        let node = NodeCluster::start(&binary)?;
        node.lab().resolver().set(&RECORDS).unwrap();
        node.control.apply(&fqdn_policy("a", "{matchName: a.example}", 443));
        Some(Mutex::new(node))
    });
    Some(SHARED.as_ref()?.lock())
}

/// How many attempts of each kind there were, and how many of them were not as the policy says.
fn count(attempts: &[PodAttempt]) -> String {
    use AttemptStep::{Closed, Connect, Denied, Lookup};
    let of = |step| attempts.iter().filter(|it| it.step == step).count();
    let wrong = attempts.iter().filter(|it| !it.is_right()).count();
    format!(
        "{} lookups, {} connections, {} denied names and {} closed addresses tried, {wrong} wrong",
        of(Lookup),
        of(Connect),
        of(Denied),
        of(Closed)
    )
}
