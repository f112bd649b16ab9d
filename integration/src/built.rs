//! What scripts of this folder build once and keep in the user's cache.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::fail;

/// What `integration/SCRIPT` has built, or builds now; `None`, with a line that says why, where it
/// cannot. `variable` of the environment names it for tests whose user may not have the tools that
/// the script needs.
pub(crate) fn find_or_build(script: &str, variable: &str) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        // `./test` sets it empty where the script has said why it cannot.
        return Some(PathBuf::from(path)).filter(|path| !path.as_os_str().is_empty());
    }
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
    let output = Command::new(program).stderr(Stdio::inherit()).output();
    let output = output.unwrap_or_else(fail(script));
    match output.status.code() {
        Some(0) => Some(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())),
        Some(3) => None,
        _ => panic!("integration/{script} ended with {}", output.status),
    }
}
