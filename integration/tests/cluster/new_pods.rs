//! From the moment in which a Pod's address is written into its status until its packets are
//! governed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lab::Pod;
use namegate_integration::cluster::{NODE, TestCluster};
use namegate_integration::{ScenarioBuilder, ip, policy};
use serde_json::json;

use super::plan;

/// The namespaces that the Pods of all rounds share, and the rounds.
const PLACES: usize = 5;
const ROUNDS: usize = 50;
/// Attempts before anything happens.
const SOME: usize = 3;

/// What the policy of the Pods lets them reach, and what not.
const OPEN: &str = "198.51.100.1";
const CLOSED: &str = "198.51.100.99";

#[test]
fn a_new_pod_is_open_until_its_object_is_read_and_then_closed_for_good() {
    let Some(windows) = measure(plan(), Before::Open) else {
        return;
    };
    print("with unknown-pods: allow, a Pod's packets were governed", windows);
}

#[test]
fn where_unknown_pods_are_denied_not_one_packet_of_a_new_pod_passes_ungoverned() {
    let Some(windows) = measure(plan().flags("--unknown-pods deny"), Before::Closed) else {
        return;
    };
    print("with unknown-pods: deny, a Pod could reach what it may", windows);
}

/// What a Pod meets before its object counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Open,
    Closed,
}

/// For each round, how long after its status was written a new Pod was treated as its policy says.
fn measure(plan: ScenarioBuilder, before: Before) -> Option<Vec<Duration>> {
    let cluster = TestCluster::start(plan.pods(u8::try_from(PLACES).unwrap()))?;
    for place in 0..PLACES {
        cluster.delete("pod", &format!("pod{place}"));
    }
    let rules =
        format!("  egress:\n  - toCIDR: [{OPEN}/32]\n    toPorts: [{{ports: [{{port: '443', protocol: TCP}}]}}]\n");
    cluster.control.apply(&policy("new-pods", 0, &rules));
    cluster.wait_condition("new-pods", "Programmed", "True", "Programmed");
    let windows = cluster.control.administer(async |administrator| {
        let mut windows = Vec::new();
        for round in 0..ROUNDS {
            let pod = cluster.pod(round % PLACES);
            // The former holder of the address must be forgotten.
            cluster.wait_until("the address is nobody's", || Tried::now(pod).is(before));
            let name = format!("new-{round}");
            administrator
                .create_pod(&json!({
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {"name": name, "namespace": "shop", "labels": {"app": "pod0"}},
                    "spec": {"nodeName": NODE, "containers": [{"name": "main", "image": "none"}]},
                }))
                .await;
            let probing = Probing::start(pod);
            let written = Instant::now();
            let addresses = [pod.address4().to_string(), pod.address6().to_string()];
            administrator.set_addresses("shop", &name, &addresses).await;
            cluster.wait_until("the Pod is governed", || Tried::now(pod).is_governed());
            let tried = probing.stop();
            let governed = tried.iter().position(Tried::is_governed).expect("it was waited for");
            let (ungoverned, after) = tried.split_at(governed);
            assert!(
                ungoverned.iter().take(SOME).all(|it| it.is(before)),
                "as before it came"
            );
            assert!(tried[governed].ended > written, "governed since its status was written");
            assert!(after.iter().all(Tried::is_governed), "and from then on");
            if before == Before::Closed {
                assert!(
                    !tried.iter().any(|it| it.closed_passed),
                    "nothing passed that the policy forbids"
                );
            }
            windows.push(tried[governed].began.saturating_duration_since(written));
            administrator.delete_pod("shop", &name).await;
        }
        windows
    });
    Some(windows)
}

fn print(what: &str, mut windows: Vec<Duration>) {
    windows.sort_unstable();
    println!(
        "{what} {:.1?} after its status was written, the median of {ROUNDS}; at worst {:.1?}",
        windows[ROUNDS / 2],
        windows[ROUNDS - 1]
    );
}

/// What became of two connections.
struct Tried {
    began: Instant,
    ended: Instant,
    open_passed: bool,
    closed_passed: bool,
}

impl Tried {
    fn now(pod: &Pod) -> Self {
        let passes = |to| pod.connect(ip(to), 443).unwrap().is_connected();
        let began = Instant::now();
        let (closed_passed, open_passed) = (passes(CLOSED), passes(OPEN));
        Self {
            began,
            ended: Instant::now(),
            open_passed,
            closed_passed,
        }
    }

    fn is_governed(&self) -> bool {
        self.open_passed && !self.closed_passed
    }

    fn is(&self, before: Before) -> bool {
        let passes = before == Before::Open;
        (self.open_passed, self.closed_passed) == (passes, passes)
    }
}

/// A process in a Pod that tries again and again.
struct Probing {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Tried>>,
}

impl Probing {
    /// Returns when it has tried [`SOME`] times.
    fn start(pod: &Pod) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (begun, wait) = sync_channel(1);
        let (pod, until) = (pod.clone(), Arc::clone(&over));
        let thread = thread::spawn(move || {
            let mut tried = Vec::new();
            loop {
                // Once more after the end was asked for, so that something comes after whatever was
                // waited for.
                let is_last = until.load(Ordering::Relaxed);
                tried.push(Tried::now(&pod));
                if tried.len() == SOME {
                    begun.send(()).unwrap();
                }
                if is_last {
                    return tried;
                }
            }
        });
        wait.recv().unwrap();
        Self { over, thread }
    }

    fn stop(self) -> Vec<Tried> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
