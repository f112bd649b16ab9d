//! An agent that may do no more than its container does: the capabilities of the manifest, no new
//! privileges, a root that is read-only.

use std::fs;

use hickory_proto::rr::RecordType;
use namegate_integration::container::{self, Container};
use namegate_integration::control_plane::manifests;
use namegate_integration::{Scenario, ScenarioBuilder, ip};
use serde_json::Value;

const RECORDS: [&str; 2] = ["a.example 60 A 198.51.100.1", "b.example 60 A 198.51.100.2"];

#[test]
fn the_capabilities_of_the_manifest_are_enough_for_dnat() {
    let container = container(&capabilities("base/daemon-set.yaml"));
    enforces_from_start_to_restart(plan(&container));
}

#[test]
fn the_capabilities_of_the_component_are_enough_for_tproxy() {
    let container = container(&capabilities("components/tproxy/capabilities.yaml"));
    enforces_from_start_to_restart(plan(&container).flags("--intercept tproxy"));
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
    let container = container(capabilities);
    let scenario = plan(&container).allow(0, &["a.example"]).records(&RECORDS).build();
    let flags = ["--upstream", "10.53.0.53", "--intercept", mode];
    let mut agent = scenario.installation().start(flags).unwrap();
    agent.wait_ready().is_ok()
        && scenario
            .try_ask(0, "a.example", RecordType::A)
            .is_ok_and(|reply| reply.address().is_some())
}

/// Lookups, refusals, an edit, a crash and an adoption.
fn enforces_from_start_to_restart(plan: ScenarioBuilder) {
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
    container::capabilities(&daemon_set)
}

fn container(capabilities: &[String]) -> Container {
    Container::new(env!("CARGO_BIN_EXE_namegate-under-test"), capabilities)
}

fn plan(container: &Container) -> ScenarioBuilder {
    ScenarioBuilder::new(container.program().to_str().unwrap())
}
