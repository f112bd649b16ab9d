//! How long it takes from the start of an agent to its first answer.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use hickory_proto::rr::RecordType;
use lab::client::LookupTransport;
use lab::process::{Installation, PATIENCE};
use lab::{Lab, NODE4, RESOLVER};

use crate::{common_pattern, median_of};

/// What must be reached.
const GOAL: Duration = Duration::from_millis(250);

/// What an agent finds when it starts.
struct StartShape {
    what: &'static str,
    /// Pods with a program each, of which the first asks.
    programs: usize,
    /// Names of each program's own.
    selectors: usize,
    flags: &'static [&'static str],
}

const SHAPES: [StartShape; 4] = [
    StartShape {
        what: "10 selectors",
        programs: 1,
        selectors: 10,
        flags: &[],
    },
    StartShape {
        what: "10,000 selectors",
        programs: 1,
        selectors: 10_000,
        flags: &[],
    },
    StartShape {
        what: "100 programs",
        programs: 100,
        selectors: 10,
        flags: &[],
    },
    StartShape {
        what: "100 programs, a capacity of a million",
        programs: 100,
        selectors: 10,
        flags: &["--set-capacity", "1000000"],
    },
];

/// Measures, and prints the table.
pub(crate) fn run(binary: &str, rounds: usize) {
    println!("first answer after the start, at most {GOAL:?}:");
    for shape in &SHAPES {
        let times: Vec<Duration> = (0..rounds).map(|_| first_answer(binary, shape)).collect();
        let median = median_of(times.iter().copied());
        let worst = times.iter().max().copied().unwrap_or_default();
        let verdict = if median <= GOAL { "reached" } else { "NOT REACHED" };
        println!("  {}: {median:.0?} (worst {worst:.0?}): {verdict}", shape.what);
    }
}

fn first_answer(binary: &str, shape: &StartShape) -> Duration {
    let lab = Lab::builder().pods(1).build().unwrap();
    lab.resolver().set(&["name.every.example 300 A 198.51.100.7"]).unwrap();
    let installation = Installation::new(binary, lab.node()).unwrap();
    installation
        .write_object(
            "objects.yaml",
            &common_pattern::objects(&lab, shape.programs, shape.selectors, 1),
        )
        .unwrap();
    let listen = SocketAddr::new(IpAddr::V4(NODE4), 5300);
    let (upstream, address) = (RESOLVER.to_string(), listen.to_string());
    let flags = ["--upstream", &upstream, "--listen", &address];
    let begun = Instant::now();
    let mut agent = installation.start(flags.iter().chain(shape.flags)).unwrap();
    loop {
        let reply = lab
            .pod(0)
            .resolve(listen, "name.every.example", RecordType::A, LookupTransport::Udp);
        if reply.is_ok_and(|reply| reply.address().is_some()) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "no answer: {:?}", agent.log());
        // Nobody listens yet.
        thread::sleep(Duration::from_millis(1));
    }
    let took = begun.elapsed();
    agent.terminate().unwrap();
    took
}
