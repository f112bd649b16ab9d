//! What it costs an agent that somebody watches: its CPU time for each lookup and for each new
//! flow, with no reader of events, with one and with ten.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use api::{EventQuery, ask};
use lab::cpu_time;
use namegate_integration::{Scenario, ScenarioBuilder, SetOnDrop};

/// Below what is recorded of a Pod, so that each lookup and each flow becomes an event.
const A_SECOND: u32 = 90;
const SECONDS: u32 = 20;

/// Measures and prints.
pub(crate) fn run(binary: &str) {
    let scenario = ScenarioBuilder::new(binary)
        .allow(0, &["*.example"])
        .records(&["a.example 60 A 198.51.100.1"])
        .start();
    let address = scenario.learn(0, "a.example");
    println!("CPU time of the agent, {A_SECOND} a second for {SECONDS} s:");
    for readers in [0, 1, 10] {
        with_readers(&scenario, readers, || {
            let nothing = cost(&scenario, || ());
            let lookup = cost(&scenario, || {
                scenario.learn(0, "a.example");
            });
            let flow = cost(&scenario, || assert!(scenario.connect(0, address).is_connected()));
            println!(
                "  {readers} readers: a lookup {:.1} µs, a new flow {:.1} µs, idle {:.2} ms a second",
                (lookup - nothing) / f64::from(A_SECOND * SECONDS),
                (flow - nothing) / f64::from(A_SECOND * SECONDS),
                nothing / f64::from(SECONDS) / 1_000.0,
            );
        });
    }
}

/// Microseconds of CPU time that the agent takes while something is done so many times.
fn cost(scenario: &Scenario, once: impl Fn()) -> f64 {
    let before = cpu_time::of(scenario.agent().pid());
    let begun = Instant::now();
    for number in 0..A_SECOND * SECONDS {
        let due = begun + Duration::from_secs(1) * number / A_SECOND;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        once();
    }
    // What is late counts too.
    thread::sleep(Duration::from_secs(1));
    let used = cpu_time::of(scenario.agent().pid()) - before;
    used.as_secs_f64() * 1e6
}

/// Does something while so many follow all events.
fn with_readers(scenario: &Scenario, readers: usize, work: impl FnOnce()) {
    let client = scenario.installation().api();
    let (stop, reading) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|threads| {
        let _end = EndReaders(scenario, SetOnDrop(&stop));
        for _ in 0..readers {
            threads.spawn(|| {
                let query = EventQuery {
                    follow: true,
                    ..EventQuery::default()
                };
                let mut is_first = true;
                let read = client.events(&query, |_| {
                    if std::mem::take(&mut is_first) {
                        reading.fetch_add(1, Ordering::Relaxed);
                    }
                    match stop.load(Ordering::Relaxed) {
                        true => ControlFlow::Break(()),
                        false => ControlFlow::Continue(()),
                    }
                });
                ask(read).unwrap().unwrap();
            });
        }
        scenario.wait_until("all read", || {
            scenario.learn(0, "a.example");
            reading.load(Ordering::Relaxed) == readers
        });
        work();
    });
}

/// Tells readers to end, and brings about an event, without which they would not look.
struct EndReaders<'a>(&'a Scenario, SetOnDrop<'a>);

impl Drop for EndReaders<'_> {
    fn drop(&mut self) {
        self.1.0.store(true, Ordering::Relaxed);
        self.0.learn(0, "a.example");
    }
}
