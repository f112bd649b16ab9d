//! What happens to a node while Pods go on: new Pods, an upgrade, a sandbox that is lost, a
//! reboot.

use std::time::{Duration, Instant};

use namegate_integration::node::{AttemptStep, NEXT_AGENT, NodeCluster, PodAttempt};

use super::{TRIES, count, shared};

/// How many Pods start one after the other.
const PODS: usize = 5;

#[test]
fn where_unknown_pods_are_denied_no_packet_passes_and_lookups_are_answered_within_a_second() {
    let Some(node) = shared() else { return };
    node.configure("unknown-pods: deny");
    let mut answered = Vec::new();
    let mut tried = 0;
    for round in 0..PODS {
        let name = format!("new-{round}");
        // The policy selects every Pod of the namespace: nothing has to be made for this one.
        node.run_pod(&name, TRIES);
        node.wait_governed(&name);
        let attempts = node.attempts(&name);
        let leaks: Vec<&PodAttempt> = attempts.iter().filter(|it| it.is_leak()).collect();
        assert!(leaks.is_empty(), "{name}: {leaks:?}");
        let lookup = attempts
            .iter()
            .find(|it| it.step == AttemptStep::Lookup && it.outcome == "done");
        answered.push(lookup.expect("it was waited for").ended());
        tried += attempts.iter().filter(|it| it.step == AttemptStep::Closed).count();
        node.delete_pod(&name);
    }
    node.configure_as_shipped();
    answered.sort_unstable();
    println!(
        "unknown-pods: deny: {tried} connections of {PODS} new Pods, 0 passed; the allowed name was answered {:.1?} \
         after the Pod's process began, at worst {:.1?}",
        answered[PODS / 2],
        answered[PODS - 1]
    );
    let worst = answered[PODS - 1];
    assert!(
        worst < patience::scaled(Duration::from_secs(1)),
        "a lookup was answered after {worst:?}"
    );
}

#[test]
fn a_rolling_update_of_the_daemon_set_loses_no_lookup() {
    let Some(node) = shared() else { return };
    node.run_pod("steady", TRIES);
    node.wait_governed("steady");
    let before = node.attempts("steady").len();
    let old = agent_name(&node);
    let begun = Instant::now();
    let image = format!("namegate={NEXT_AGENT}");
    node.control
        .kubectl(["set", "image", "-n", "namegate", "daemonset/namegate", &image]);
    node.wait_rollout();
    let took = begun.elapsed();
    assert_ne!(agent_name(&node), old, "another Pod");
    // Some of it after the old agent's end.
    let after = node.attempts("steady").len();
    node.wait("the Pod goes on", |it| it.attempts("steady").len() > after + 20);
    let meanwhile = &node.attempts("steady")[before..];
    println!("a rolling update took {took:.1?}: {}", count(meanwhile));
    let wrong: Vec<&PodAttempt> = meanwhile.iter().filter(|it| !it.is_right()).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    node.delete_pod("steady");
    node.configure_as_shipped();
}

#[test]
fn a_pod_whose_sandbox_is_killed_is_governed_under_its_new_address() {
    let Some(node) = shared() else { return };
    node.run_pod("lost", TRIES);
    node.wait_governed("lost");
    let (old, containers) = (node.pod_address("lost"), node.attempts_by_container("lost").len());
    let begun = Instant::now();
    node.kill_sandbox("lost");
    node.wait("the Pod runs in a new sandbox", |it| {
        it.attempts_by_container("lost").len() > containers
    });
    node.wait_governed("lost");
    let new = node.pod_address("lost");
    assert_ne!(old, new, "the kubelet gives a new sandbox a new address");
    println!(
        "a killed sandbox: {old} became {new}, and was governed {:.1?} after the kill; {}",
        begun.elapsed(),
        count(&node.attempts("lost"))
    );
    node.delete_pod("lost");
}

#[test]
fn after_a_reboot_agent_and_pods_are_back_and_governed() {
    let Some(mut node) = shared() else { return };
    node.run_pod("stays", TRIES);
    node.wait_governed("stays");
    let containers = node.attempts_by_container("stays").len();
    let begun = Instant::now();
    node.reboot();
    node.wait("the Pod runs again", |it| {
        it.attempts_by_container("stays").len() > containers
    });
    let runs = begun.elapsed();
    node.wait_governed("stays");
    node.wait_rollout();
    let attempts = node.attempts("stays");
    let last_wrong = attempts.iter().rfind(|it| !it.is_right());
    println!(
        "a reboot: the Pod ran {runs:.1?} after it, and all was right {:.1?} after the Pod's process began; {}",
        last_wrong.map(PodAttempt::ended).unwrap_or_default(),
        count(&attempts)
    );
    node.delete_pod("stays");
}

fn agent_name(node: &NodeCluster) -> String {
    let agents = node.agents();
    agents[0]["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}
