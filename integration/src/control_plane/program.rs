//! The one program that is the control plane, and what else it does: render the chart, and read
//! objects of the Prometheus operator.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use crate::built::find_or_build;
use crate::{fail, succeed};

/// The environment variable with the path of the binary. Tests may run as a user without Go, who
/// cannot build it.
const BINARY_VARIABLE: &str = "NAMEGATE_CONTROL_PLANE";

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
    BINARY
        .get_or_init(|| find_or_build("kube/build", BINARY_VARIABLE))
        .as_deref()
}

/// Runs a command with `input`, to its end.
pub(super) fn feed(command: &mut Command, input: &str) -> Output {
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
