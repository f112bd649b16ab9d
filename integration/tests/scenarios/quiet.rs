//! What an agent does by itself while nobody asks anything.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, Instant};

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

#[test]
fn names_that_are_learned_one_by_one_are_saved_together() {
    let names: Vec<String> = (0..200).map(|number| format!("n{number}.api.example")).collect();
    let records: Vec<String> = names.iter().map(|name| format!("{name} 300 A 198.51.100.7")).collect();
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    let scenario = plan().allow(0, &["*.api.example"]).records(&records).start();
    let file = scenario.installation().scratch("state/ledger.json");
    let (began, mut saved) = (Instant::now(), BTreeSet::new());
    for name in &names {
        scenario.learn(0, name);
        saved.extend(fs::metadata(&file).map(|it| (it.ino(), it.mtime(), it.mtime_nsec())));
        thread::sleep(Duration::from_millis(20));
    }
    // Every two seconds, and what the start and the first of them leave behind.
    let most = began.elapsed().as_secs() / 2 + 3;
    assert!(
        saved.len() as u64 <= most,
        "{} times in {:?}",
        saved.len(),
        began.elapsed()
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
