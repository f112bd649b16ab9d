//! Runs a program as a container runtime would: with a read-only root, with given capabilities
//! only, and with `no_new_privs`. PID and user namespaces and the seccomp filter are left out.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::fail;

/// A script that runs a binary in this way, until it is dropped.
#[derive(Debug)]
pub struct Container {
    _directory: TempDir,
    program: PathBuf,
}

impl Container {
    /// Wraps `binary`. Capabilities are written as in a Pod (`NET_ADMIN`). The directory of
    /// temporary files, in which tests have their volumes, stays writable.
    pub fn new(binary: &str, capabilities: &[String]) -> Self {
        let directory = TempDir::new().unwrap_or_else(fail("the container's directory"));
        let program = directory.path().join("namegate");
        let added: String = capabilities
            .iter()
            .map(|capability| format!(",+{}", capability.to_lowercase()))
            .collect();
        let script = format!(
            "#!/bin/sh\n\
             exec unshare --mount --propagation private sh -ec '\n\
             mount --bind {volumes} {volumes}\n\
             mount -o remount,bind,ro /\n\
             mount --bind /proc/sys /proc/sys\n\
             mount -o remount,bind,ro /proc/sys\n\
             exec setpriv --bounding-set=-all{added} --inh-caps=-all --no-new-privs {binary} \"$@\"\n\
             ' sh \"$@\"\n",
            volumes = std::env::temp_dir().display(),
        );
        fs::write(&program, script).unwrap_or_else(fail("the container's program"));
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&program, executable).unwrap_or_else(fail("the container's program"));
        Self {
            _directory: directory,
            program,
        }
    }

    /// The path of the script.
    pub fn program(&self) -> &Path {
        &self.program
    }
}

/// The capabilities that the first container of a DaemonSet adds.
pub fn capabilities(daemon_set: &Value) -> Vec<String> {
    let context = &daemon_set["spec"]["template"]["spec"]["containers"][0]["securityContext"];
    let added = context["capabilities"]["add"].as_array().into_iter().flatten();
    added.filter_map(Value::as_str).map(str::to_owned).collect()
}
