//! The images of a node's Pods, made of files of this machine: there is no registry.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{fail, succeed};

/// What the kubelet gives the namespaces of every Pod to.
const PAUSE: &str = "namegate.test/pause:1";
/// The program that Pods of the tests run (`integration/node/probe`).
pub(super) const PROBE: &str = "namegate.test/probe:1";
/// What `manifests/` names, and a later version of it, which is the same.
const AGENT: &str = "docker.io/library/namegate:0.1.0";
/// The tag of the later version.
pub const NEXT_AGENT: &str = "namegate:0.1.1";

/// What the Pods of Kubernetes' own tests run, in the versions that suites name.
const AGNHOST: &str = "registry.k8s.io/e2e-test-images/agnhost:2.45 registry.k8s.io/e2e-test-images/agnhost:2.63.0";

/// Writes those of every node into `directory`, as archives. `probe` and `agent` are programs.
pub(super) fn write(directory: &Path, probe: &Path, agent: &Path) {
    let probe = [(probe.to_owned(), "probe")];
    archive(directory, "pause", PAUSE, &probe, &["/probe", "pause"]);
    archive(directory, "probe", PROBE, &probe, &["/probe"]);
    let nft = program("nft");
    let mut files = vec![
        (agent.to_owned(), "usr/bin/namegate".to_owned()),
        (nft.clone(), "usr/sbin/nft".to_owned()),
        // nft knows protocols by name from there.
        (PathBuf::from("/etc/protocols"), "etc/protocols".to_owned()),
    ];
    let libraries = libraries(agent).union(&libraries(&nft)).cloned().collect::<Vec<_>>();
    files.extend(libraries.into_iter().map(in_place));
    let names = format!("{AGENT} docker.io/library/{NEXT_AGENT}");
    archive(directory, "namegate", &names, &files, &["/usr/bin/namegate"]);
}

/// Writes the image of `agnhost`. The commands of its Pods are lines of a shell.
pub(super) fn write_agnhost(directory: &Path, agnhost: &Path) {
    let shell = program("bash");
    let mut files = vec![
        (agnhost.to_owned(), "agnhost".to_owned()),
        (shell.clone(), "bin/bash".to_owned()),
    ];
    files.extend(libraries(&shell).into_iter().map(in_place));
    archive(directory, "agnhost", AGNHOST, &files, &["/agnhost", "--", "pause"]);
}

/// Files have a source and a path in the image. `entrypoint` may have `--` and default arguments
/// behind it.
fn archive(directory: &Path, file: &str, names: &str, files: &[(PathBuf, impl AsRef<str>)], entrypoint: &[&str]) {
    let root = tempfile::TempDir::new().unwrap_or_else(fail("the root of an image"));
    for (source, path) in files {
        let target = root.path().join(path.as_ref());
        let parent = target.parent().expect("a file is in a directory");
        fs::create_dir_all(parent).unwrap_or_else(fail("the root of an image"));
        fs::copy(source, &target).unwrap_or_else(fail(&source.display().to_string()));
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("node/image");
    let output = directory.join(format!("{file}.tar"));
    let mut command = Command::new(script);
    command.arg(output).arg(root.path()).arg(names).args(entrypoint);
    succeed(&mut command).unwrap_or_else(fail("an image"));
}

/// A file of this machine that has the same path in an image.
fn in_place(path: String) -> (PathBuf, String) {
    (PathBuf::from(&path), path.trim_start_matches('/').to_owned())
}

/// Where a program of this machine is.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut candidates = std::env::split_paths(&path)
        .chain(system)
        .map(|directory| directory.join(name));
    let found = candidates.find(|candidate| candidate.is_file());
    found.unwrap_or_else(|| panic!("{name} is missing; ./test installs it"))
}

/// The paths of the shared libraries of a program, its loader among them. A static program has
/// none.
fn libraries(program: &Path) -> BTreeSet<String> {
    let output = Command::new("ldd").arg(program).output().unwrap_or_else(fail("ldd"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = said.split_whitespace().filter(|word| word.starts_with('/'));
    words
        .filter(|word| Path::new(word).is_file())
        .map(str::to_owned)
        .collect()
}
