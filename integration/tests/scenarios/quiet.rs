//! What an agent does by itself while nobody asks anything.

use std::fs;
use std::thread;
use std::time::Duration;

use super::plan;

/// It looks five times a second whether somebody has changed the table, and beats and tidies once.
/// Every wake-up costs some 50 µs on a node whose caches belong to its workloads.
const WAKE_UPS_A_SECOND: u64 = 12;

#[test]
fn an_agent_that_is_asked_nothing_is_seldom_awake() {
    let scenario = plan()
        .allow(0, &["api.example"])
        .records(&["api.example 300 A 198.51.100.7"])
        .start();
    scenario.learn(0, "api.example");
    // What its start leaves to do: files are written, and read again.
    thread::sleep(Duration::from_secs(4));
    let seconds = 4;
    let pid = scenario.agent().pid();
    let before = wake_ups(pid);
    thread::sleep(Duration::from_secs(seconds));
    let woken = wake_ups(pid) - before;
    assert!(
        woken <= WAKE_UPS_A_SECOND * seconds,
        "its threads slept {woken} times in {seconds} seconds"
    );
}

/// How often the threads of a process have gone to sleep.
fn wake_ups(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let slept = threads.map(|thread| {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap_or_default();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.map_or(0, |count| count.trim().parse::<u64>().unwrap())
    });
    slept.sum()
}
