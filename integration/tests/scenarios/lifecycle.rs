//! Agents that crash, end, come back, and are cleaned up after.

use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use lab::client::StubResolver;
use lab::{RESOLVER, dns};
use namegate_integration::{Scenario, ScenarioBuilder, ip};

use super::plan;

const RECORDS: [&str; 2] = ["a.example 60 A 198.51.100.1", "b.example 60 A 198.51.100.2"];

fn governed() -> ScenarioBuilder {
    plan().allow(0, &["a.example"]).records(&RECORDS)
}

/// What must hold of egress whether an agent lives or not.
fn assert_enforced(scenario: &Scenario) {
    assert!(
        scenario.connect(0, ip("198.51.100.1")).is_connected(),
        "what was learned stays open"
    );
    assert!(
        scenario.connect(0, ip("198.51.100.2")).is_refused(),
        "the rest stays closed"
    );
    assert!(
        scenario.connect(0, ip("2001:db8::2")).is_refused(),
        "the rest stays closed"
    );
}

#[test]
fn after_a_crash_enforcement_stays_lookups_fall_through_and_a_new_agent_adopts_what_was_learned() {
    let mut scenario = governed().start();
    scenario.learn(0, "a.example");
    scenario.wait_saved("a.example");
    scenario.kill();
    assert_enforced(&scenario);
    let took = scenario.wait_until("lookups fall through", || {
        scenario.try_ask(0, "b.example", RecordType::A).is_ok()
    });
    patience::assert_took("lookups fall through after a crash", took, Duration::from_secs(20));
    assert_enforced(&scenario);

    scenario.start();
    assert_enforced(&scenario);
    assert_eq!(scenario.leases("a.example").len(), 1, "the ledger came back");
    assert_eq!(scenario.lab().resolver().asked("a.example"), 1, "without a lookup");
    let denied = scenario.ask(0, "b.example", RecordType::A);
    assert!(denied.address().is_none(), "lookups are intercepted again");
}

#[test]
fn after_sigterm_lookups_fall_through_at_once() {
    let mut scenario = governed().start();
    scenario.learn(0, "a.example");
    scenario.terminate();
    assert!(scenario.ask(0, "b.example", RecordType::A).address().is_some());
    assert_enforced(&scenario);
    scenario.start();
    assert_enforced(&scenario);
    assert_eq!(scenario.leases("a.example").len(), 1);
}

#[test]
fn after_a_crash_and_a_restart_sigterm_lets_lookups_fall_through_at_once() {
    let mut scenario = governed().start();
    scenario.kill();
    scenario.start();
    scenario.terminate();
    assert!(scenario.ask(0, "b.example", RecordType::A).address().is_some());
    assert!(scenario.connect(0, ip("198.51.100.2")).is_refused());
}

#[test]
fn in_fail_mode_closed_lookups_are_refused_while_no_agent_lives() {
    let mut scenario = governed().flags("--fail-mode closed").start();
    scenario.learn(0, "a.example");
    scenario.kill();
    assert_enforced(&scenario);
    // Longer than the heartbeat of fail-mode open lives. This one is about time passing, so that it
    // has to pass.
    std::thread::sleep(Duration::from_secs(6));
    assert!(scenario.try_ask(0, "b.example", RecordType::A).is_err());
    assert_enforced(&scenario);
    scenario.start();
    assert_eq!(scenario.learn(0, "a.example"), ip("198.51.100.1"));
    scenario.terminate();
    assert!(scenario.try_ask(0, "b.example", RecordType::A).is_err());
}

/// A stub that keeps its socket, as resolvers inside of programs do: its packets are one flow for
/// ever.
fn kept_stub(scenario: &Scenario) -> StubResolver {
    let node = scenario.pod(0).namespace();
    node.run(|| StubResolver::new(dns(RESOLVER))).unwrap().unwrap()
}

fn answers(stub: &StubResolver, name: &str) -> bool {
    stub.ask(name, RecordType::A, true)
        .is_ok_and(|reply| reply.address().is_some())
}

#[test]
fn a_stub_that_keeps_its_socket_falls_through_when_the_agent_is_gone_and_comes_back_with_it() {
    let mut scenario = governed().start();
    let stub = kept_stub(&scenario);
    assert!(
        answers(&stub, "a.example") && !answers(&stub, "b.example"),
        "intercepted"
    );
    scenario.terminate();
    assert!(answers(&stub, "b.example"), "at once after SIGTERM");
    scenario.start();
    assert!(
        !answers(&stub, "b.example") && answers(&stub, "a.example"),
        "intercepted again"
    );
    scenario.kill();
    scenario.wait_until("it falls through after a crash", || answers(&stub, "b.example"));
}

#[test]
fn in_fail_mode_closed_nothing_passes_on_a_socket_that_is_kept_while_no_agent_lives() {
    for mode in ["dnat", "tproxy"] {
        let mut scenario = governed()
            .flags(&format!("--fail-mode closed --intercept {mode}"))
            .start();
        let stub = kept_stub(&scenario);
        assert!(answers(&stub, "a.example"), "{mode}: intercepted");
        scenario.kill();
        for _ in 0..3 {
            assert!(!answers(&stub, "b.example"), "{mode}: it went past the agent");
        }
        scenario.start();
        scenario.wait_until("it is answered again", || answers(&stub, "a.example"));
    }
}

#[test]
fn lookups_that_began_in_a_gap_are_intercepted_after_it_and_the_gap_is_told() {
    let scenario = governed().start();
    let pid = scenario.agent().pid();
    scenario.shell(&format!("kill -STOP {pid}"));
    let stub = kept_stub(&scenario);
    scenario.wait_until("it goes past an agent that is stopped", || answers(&stub, "b.example"));
    scenario.shell(&format!("kill -CONT {pid}"));
    scenario.wait_until("it is intercepted again", || !answers(&stub, "b.example"));
    assert!(answers(&stub, "a.example"));
    assert_eq!(scenario.agent().metric("namegate_heartbeat_gaps_total").unwrap(), 1.0);
    assert_eq!(scenario.installation().status().unwrap().heartbeat_gaps, 1);
    let log = scenario.agent().log();
    assert!(
        log.iter().any(|line| line.contains("the heartbeat had lapsed")),
        "{log:?}"
    );
}

#[test]
fn lookups_wait_for_the_first_rules_of_an_agent_that_is_started_again() {
    let mut scenario = plan()
        .flags("--fail-mode closed")
        .allow(0, &["a.example"])
        .records(&["a.example 60 A 198.51.100.1"])
        .build();
    let slow = scenario.installation().scratch("slow");
    // Longer than an answer waits for a commit.
    let nft = "if [ -e SLOW ]; then sleep 1.5; fi; exec /usr/sbin/nft \"$@\"";
    let nft = nft.replace("SLOW", &slow.display().to_string());
    scenario.replace_program("nft", &format!("#!/bin/sh\n{nft}\n"));
    scenario.start();
    scenario.learn(0, "a.example");
    std::fs::write(&slow, "").unwrap();
    scenario.kill();
    scenario.start_unready();
    let mut first = None;
    scenario.wait_until("somebody answers", || {
        // Until the agent listens, lookups are refused at once.
        first = scenario.try_ask(0, "a.example", RecordType::A).ok();
        first.is_some()
    });
    assert_eq!(first.unwrap().code(), ResponseCode::NoError);
}

#[test]
fn cleanup_leaves_the_node_as_it_was() {
    // What exists only while something listens or is cached is no trace: sockets, neighbours,
    // conntrack.
    const TRACES: &str = "nft list ruleset; ip rule; ip -6 rule; ip route show table all; ip -6 route show table all | sort; ip -o addr show dev lo; ip -o link | cut -d: -f2";
    for mode in ["dnat", "tproxy"] {
        let mut scenario = governed().flags(&format!("--intercept {mode}")).build();
        let before = scenario.shell(TRACES);
        scenario.start();
        scenario.learn(0, "a.example");
        assert_ne!(scenario.shell(TRACES), before);
        scenario.terminate();
        scenario.cleanup();
        assert_eq!(scenario.shell(TRACES), before, "{mode}");
        assert!(scenario.connect(0, ip("198.51.100.2")).is_connected());
        scenario.cleanup();
    }
}

#[test]
fn files_that_are_broken_when_an_agent_starts_keep_what_they_held_before() {
    let mut scenario = governed().start();
    scenario.expect_errors("cluster::directory");
    scenario.wait_kept("a.example");
    // One breaks under the agent, the other while there is none.
    scenario.write("allow-pod0.yaml", "kind: [\n");
    scenario.wait_until("the broken file is seen", || {
        scenario.states("allow-pod0.yaml") == ["kept-last-good"; 2]
    });
    scenario.kill();
    scenario.write("pods.yaml", "");
    scenario.start();
    assert_eq!(scenario.states("allow-pod0.yaml"), ["kept-last-good"; 2]);
    assert_eq!(scenario.states("pods.yaml"), ["kept-last-good"; 3]);
    scenario.learn(0, "a.example");
    assert_enforced(&scenario);

    // What is gone is gone.
    scenario.kill();
    scenario.remove("allow-pod0.yaml");
    scenario.start();
    assert!(scenario.connect(0, ip("198.51.100.2")).is_connected());
}
