//! Hundreds of events a second: how late they are in the kernel, and what they cost.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use lab::cpu_time;
use lab::process::AgentProcess;
use serde_json::Value;

use crate::list_watch_server::ListWatchServer;
use crate::memory::{as_stored, listed, watching};
use crate::objects::{ClusterShape, THIS_NODE, app_name, namespace_name};

const SHAPE: ClusterShape = ClusterShape {
    namespaces: 100,
    apps: 20,
    pods: 150_000,
    services: 1_000,
    policies: 1_000,
};
const EVENTS_A_SECOND: u32 = 500;
/// No event may be in the kernel later than this.
const LATEST: Duration = Duration::from_millis(250);
/// What they may take of one processor.
const SHARE: f64 = 0.2;

/// A change of one pod: when it was told, and the address that it opens or closes.
type Sent = HashMap<IpAddr, Vec<Instant>>;

/// Sends events for so many seconds, first such as policies' peers select, then others, and prints.
pub(crate) fn run(binary: &str, seconds: u32) {
    let (installation, server) = watching(binary, SHAPE);
    let mut agent = installation.start(["--upstream", "192.0.2.53"]).unwrap();
    agent.wait_ready().unwrap();
    // A local program selects pods of this namespace by their app.
    let namespace = namespace_name(SHAPE.with_peers()[0]);
    let pods: Vec<Value> = listed(SHAPE, "pods")
        .filter(|pod| pod["metadata"]["namespace"] == namespace.as_str() && pod["spec"]["nodeName"] != THIS_NODE)
        .collect();
    // What follows a start is over then.
    sleep(Duration::from_secs(10));
    println!(
        "{EVENTS_A_SECOND} events a second, {} pods, {} policies:",
        SHAPE.pods, SHAPE.policies
    );

    let mut monitor = installation
        .node()
        .command("nft")
        .args(["monitor", "elements"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let seen = follow(&mut monitor);
    let selected = |pod: &mut Value, is_odd: bool| {
        // Into what the program selects, or out of it.
        let was_selected = pod["metadata"]["labels"]["app"] == app_name(1).as_str();
        pod["metadata"]["labels"]["app"] = app_name(usize::from(was_selected == is_odd)).into();
    };
    let (sent, used) = send(&server, &agent, &pods, seconds, selected);
    // It was started here.
    let _ = monitor.kill();
    let _ = monitor.wait();
    report_delays(&sent, &seen.try_iter().collect::<Vec<_>>());
    report_share("of pods that peers select", used);

    let relabelled = |pod: &mut Value, is_odd: bool| {
        pod["metadata"]["labels"]["version"] = if is_odd { "v1" } else { "v2" }.into();
    };
    let (_, used) = send(&server, &agent, &pods, seconds, relabelled);
    report_share("that concern nobody", used);
}

/// Changes one pod after the other, in rounds of which every second one is odd. The second value
/// is the share of a processor that the agent took.
fn send(
    server: &ListWatchServer,
    agent: &AgentProcess,
    pods: &[Value],
    seconds: u32,
    change: impl Fn(&mut Value, bool),
) -> (Sent, f64) {
    let mut sent = Sent::new();
    let before = cpu_time::of(agent.pid());
    let begun = Instant::now();
    for number in 0..seconds * EVENTS_A_SECOND {
        let due = begun + Duration::from_secs(1) * number / EVENTS_A_SECOND;
        sleep(due.saturating_duration_since(Instant::now()));
        let (round, place) = (number as usize / pods.len(), number as usize % pods.len());
        let mut pod = as_stored(pods[place].clone());
        change(&mut pod, round % 2 == 1);
        pod["metadata"]["resourceVersion"] = (number + 2).to_string().into();
        let address = pod["status"]["podIP"].as_str().unwrap().parse().unwrap();
        sent.entry(address).or_default().push(Instant::now());
        server.modify(&pod);
    }
    let elapsed = begun.elapsed();
    // What is late counts too.
    sleep(Duration::from_secs(2));
    let used = cpu_time::of(agent.pid()) - before;
    (sent, used.as_secs_f64() / elapsed.as_secs_f64())
}

/// The IPv4 addresses whose elements change, as the kernel tells of them.
fn follow(monitor: &mut Child) -> Receiver<(IpAddr, Instant)> {
    let (sender, seen) = channel();
    let lines = BufReader::new(monitor.stdout.take().unwrap()).lines();
    thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let now = Instant::now();
            let Some((_, elements)) = line.split_once('{') else {
                continue;
            };
            for word in elements.split([' ', ',', '}']) {
                if let Ok(address) = word.parse() {
                    // Nobody listens any more when the measurement is over.
                    let _ = sender.send((address, now));
                }
            }
        }
    });
    seen
}

fn report_delays(sent: &Sent, seen: &[(IpAddr, Instant)]) {
    let mut told: HashMap<IpAddr, Vec<Instant>> = HashMap::new();
    for (address, at) in seen {
        told.entry(*address).or_default().push(*at);
    }
    let mut delays: Vec<Duration> = Vec::new();
    for (address, events) in sent {
        let told = told.get(address).map_or(&[][..], Vec::as_slice);
        for (place, event) in events.iter().enumerate() {
            // Nothing is known of one that is told only after the next.
            let next = events.get(place + 1);
            let first = told
                .iter()
                .find(|at| *at >= event && next.is_none_or(|next| *at < next));
            delays.extend(first.map(|at| at.duration_since(*event)));
        }
    }
    delays.sort_unstable();
    let at = |share: f64| {
        let place = (delays.len().saturating_sub(1) as f64 * share) as usize;
        delays.get(place).copied().unwrap_or_default()
    };
    let (total, worst) = (sent.values().map(Vec::len).sum::<usize>(), at(1.0));
    println!(
        "  {} of {total} in the kernel after {:.1?} in the median, {:.1?} for 99 %, {worst:.1?} at worst; \
         at most {LATEST:?}: {}",
        delays.len(),
        at(0.5),
        at(0.99),
        verdict(delays.len() == total && worst <= LATEST)
    );
}

fn report_share(which: &str, used: f64) {
    println!(
        "  events {which}: {:.1} % of one processor, {:.0} µs each; at most {:.0} %: {}",
        100.0 * used,
        1e6 * used / f64::from(EVENTS_A_SECOND),
        100.0 * SHARE,
        verdict(used <= SHARE)
    );
}

fn verdict(is_reached: bool) -> &'static str {
    if is_reached { "reached" } else { "NOT REACHED" }
}
