//! An agent that may do no more than its container does: the capabilities of the manifest, no new privileges, a root that is read-only.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use hickory_proto::rr::RecordType;
use namegate_integration::control_plane::manifests;
use namegate_integration::{Plan, Scenario, ip};
use serde_json::Value;
use tempfile::TempDir;

const RECORDS: [&str; 2] = ["a.example 60 A 198.51.100.1", "b.example 60 A 198.51.100.2"];

#[test]
fn the_capabilities_of_the_manifest_are_enough_for_dnat() {
    let container = Container::new(&capabilities("base/daemon-set.yaml"));
    enforces_from_start_to_restart(container.plan());
}

#[test]
fn the_capabilities_of_the_component_are_enough_for_tproxy() {
    let container = Container::new(&capabilities("components/tproxy/capabilities.yaml"));
    enforces_from_start_to_restart(container.plan().flags("--intercept tproxy"));
}

#[test]
fn each_capability_is_needed() {
    for (file, mode) in [
        ("base/daemon-set.yaml", "dnat"),
        ("components/tproxy/capabilities.yaml", "tproxy"),
    ] {
        let all = capabilities(file);
        assert!(answers(&all, mode), "{mode} works with {all:?}");
        for without in &all {
            let rest: Vec<String> = all.iter().filter(|it| *it != without).cloned().collect();
            assert!(!answers(&rest, mode), "{mode} works without {without}");
        }
    }
}

/// Whether an agent with these capabilities becomes ready and answers an allowed lookup.
fn answers(capabilities: &[String], mode: &str) -> bool {
    let container = Container::new(capabilities);
    let plan = container.plan().allow(0, &["a.example"]).records(&RECORDS);
    let scenario = plan.build();
    let flags = ["--upstream", "10.53.0.53", "--intercept", mode];
    let mut agent = scenario.installation().start(flags).unwrap();
    agent.wait_ready().is_ok()
        && scenario
            .try_ask(0, "a.example", RecordType::A)
            .is_ok_and(|reply| reply.address().is_some())
}

/// Lookups, refusals, an edit, a crash and an adoption.
fn enforces_from_start_to_restart(plan: Plan) {
    let mut scenario = plan.allow(0, &["a.example"]).records(&RECORDS).start();
    let assert_only = |scenario: &Scenario, open: &str, closed: &str| {
        assert!(scenario.connect(0, ip(open)).is_connected(), "{open}");
        assert!(scenario.connect(0, ip(closed)).is_refused(), "{closed}");
    };
    scenario.learn(0, "a.example");
    assert_only(&scenario, "198.51.100.1", "198.51.100.2");
    assert!(scenario.ask(0, "b.example", RecordType::A).address().is_none());
    scenario.wait_saved("a.example");
    scenario.kill();
    scenario.start();
    assert_eq!(
        scenario.leases("a.example").len(),
        1,
        "the state directory was written and read"
    );
    scenario.allow(0, &["b.example"]);
    scenario.wait_until("the edit is in force", || {
        scenario.ask(0, "b.example", RecordType::A).address().is_some()
    });
    assert_only(&scenario, "198.51.100.2", "198.51.100.1");
    scenario.terminate();
}

/// What the manifest adds to nothing.
fn capabilities(file: &str) -> Vec<String> {
    let text = fs::read_to_string(manifests().join(file)).unwrap();
    let daemon_set: Value = serde_saphyr::from_str(&text).unwrap();
    let context = &daemon_set["spec"]["template"]["spec"]["containers"][0]["securityContext"]["capabilities"];
    let added = context["add"].as_array().unwrap().iter();
    added
        .map(|capability| capability.as_str().unwrap().to_owned())
        .collect()
}

/// A program that runs `namegate` as a container runtime would.
struct Container {
    _directory: TempDir,
    program: PathBuf,
}

impl Container {
    fn new(capabilities: &[String]) -> Self {
        let directory = TempDir::new().unwrap();
        let program = directory.path().join("namegate");
        let added: String = capabilities
            .iter()
            .map(|capability| format!(",+{}", capability.to_lowercase()))
            .collect();
        let temporary = std::env::temp_dir();
        let script = format!(
            "#!/bin/sh\n\
             exec unshare --mount --propagation private sh -ec '\n\
             # Where the test has the volumes.\n\
             mount --bind {temporary} {temporary}\n\
             mount -o remount,bind,ro /\n\
             mount --bind /proc/sys /proc/sys\n\
             mount -o remount,bind,ro /proc/sys\n\
             exec setpriv --bounding-set=-all{added} --inh-caps=-all --no-new-privs {binary} \"$@\"\n\
             ' sh \"$@\"\n",
            temporary = temporary.display(),
            binary = Path::new(env!("CARGO_BIN_EXE_namegate-under-test")).display(),
        );
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Self {
            _directory: directory,
            program,
        }
    }

    fn plan(&self) -> Plan {
        Plan::new(self.program.to_str().unwrap())
    }
}
