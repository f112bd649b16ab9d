//! What a lookup costs, beside the fastest in the field, in one interleaved run, and what a new
//! connection does. `./bench` at the top runs it.
//!
//! Cost is CPU time (user and system) of the server for each answered query: on a
//! machine that others use too, queries per second mean little, and only ratios within one run mean
//! anything. docs/performance.md tells the method and what came of it.

// A program that measures, not a library: it ends with a message when something is not as it must
// be.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod agents;
mod connections;
mod flame;
mod latency;
mod load;
mod peers;
mod rates;
mod report;
mod slow;
mod spread;
mod zone;

use std::collections::BTreeMap;
use std::path::PathBuf;

use lab::process::is_root;

use agents::{Kind, Node};
use latency::Times;
use load::{Load, Run};
use report::{Goal, Goals, Report};
use zone::Zone;

/// The works that are measured, interleaved; every ratio of the table is between two of them.
const WORKS: [&str; 13] = [
    "dnsdist forwarding",
    "known, listening",
    "known, two workers",
    "known, tproxy",
    "known, dnat",
    "unbound cache",
    "cached",
    "dnsmasq --nftset",
    "new addresses",
    "dnsdist cache",
    "denied",
    peers::BUILT[0].0,
    peers::BUILT[1].0,
];

/// What must be reached.
const GOALS: Goals = Goals {
    ratios: &[
        Goal::new("known, listening", "dnsdist forwarding", 1.0),
        Goal::new("known, two workers", "known, listening", 1.1),
        Goal::new("known, tproxy", "dnsdist forwarding", 1.3),
        Goal::new("known, dnat", "dnsdist forwarding", 1.3),
        Goal::new("cached", "unbound cache", 1.0),
        Goal::new("new addresses", "dnsdist forwarding", 1.5),
        Goal::new("new addresses", "dnsmasq --nftset", 0.25),
        Goal::new("denied", "unbound cache", 0.7),
        Goal::new("cached", "dnsdist cache", 1.0),
    ],
    latency: &[
        (
            "known",
            Times {
                median: 40.0,
                p99: 150.0,
            },
        ),
        (
            "new",
            Times {
                median: 60.0,
                p99: 250.0,
            },
        ),
    ],
    // From 10 to 11.7 µs: the smaller ratio counts.
    yardstick: ("dnsdist forwarding", 11.7),
    memory: &[("idle", 16.0), ("100,000 names", 64.0)],
};

fn main() {
    // `cargo test --benches` starts every benchmark; this one is for `./bench`.
    let arguments = Arguments::read();
    if !arguments.wanted {
        return;
    }
    assert!(is_root(), "the benchmark needs root: run ./bench");
    if let Some(directory) = &arguments.flame {
        return flame::record(directory, arguments.seconds);
    }
    if arguments.rates {
        return rates::run(arguments.rounds, arguments.seconds);
    }
    let mut report = Report::default();
    if arguments.wants("connections") {
        report.connections(connections::run());
    }
    if WORKS.iter().chain(&["latency"]).any(|work| arguments.wants(work)) {
        lookups(&arguments, &mut report);
    }
    if arguments.wants("slow upstream") {
        report.slow(slow::run());
    }
    report.print(&GOALS);
    if let Some(file) = &arguments.json {
        std::fs::write(file, report.json(&GOALS)).unwrap();
    }
}

fn lookups(arguments: &Arguments, report: &mut Report) {
    let zone = Zone::new(arguments.rounds);
    let listening = Node::start(Kind::Listening, &zone);
    report.idle(&listening);
    let others: BTreeMap<&str, Node> = [
        ("known, two workers", Kind::Workers(2)),
        ("known, tproxy", Kind::Tproxy),
        ("known, dnat", Kind::Dnat),
        ("cached", Kind::Cached),
    ]
    .into_iter()
    .filter(|(work, _)| arguments.wants(work))
    .map(|(work, kind)| (work, Node::start(kind, &zone)))
    .collect();
    let bare = Node::start(Kind::Bare, &zone);
    let peers = peers::start(&bare, &zone, |work| arguments.wants(work));

    for round in 0..arguments.rounds {
        for work in WORKS.iter().filter(|work| arguments.wants(work)) {
            let load = |node, server, queries| Load::of(node, server, queries, arguments.seconds);
            let run: Option<Run> = match *work {
                "known, listening" => Some(load(&listening, listening.server(), zone.known()).run(listening.pid())),
                "denied" => Some(
                    load(&listening, listening.server(), zone.denied())
                        .denied()
                        .run(listening.pid()),
                ),
                "new addresses" => {
                    let names = zone.next_new(round);
                    Some(load(&listening, listening.server(), names).once().run(listening.pid()))
                }
                other => match (others.get(other), peers.get(other)) {
                    (Some(node), _) => Some(load(node, node.server(), zone.known()).run(node.pid())),
                    (_, Some(peer)) => Some(load(&bare, peer.server, zone.known()).run(peer.pid())),
                    _ => None,
                },
            };
            if let Some(run) = run {
                eprintln!("round {}: {work}: {run}", round + 1);
                report.add(work, run);
            }
        }
        if arguments.wants("latency") {
            report.latency("known", latency::known(&listening, &bare, &zone));
            report.latency("new", latency::new(&listening, &bare, &zone, round));
        }
        if arguments.only.is_empty() {
            report.resident(round, &listening);
        }
    }
}

/// `--rounds N --seconds N --only TEXT --json FILE --rates --flame DIRECTORY`
struct Arguments {
    wanted: bool,
    rounds: usize,
    seconds: u32,
    only: Vec<String>,
    json: Option<PathBuf>,
    /// Few lookups a second are measured, and nothing else.
    rates: bool,
    /// Nothing is measured; samples go there.
    flame: Option<PathBuf>,
}

impl Arguments {
    fn read() -> Self {
        let mut read = Self {
            wanted: false,
            rounds: 5,
            seconds: 2,
            only: Vec::new(),
            json: None,
            rates: false,
            flame: None,
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
            match word.as_str() {
                "--run" => read.wanted = true,
                "--rounds" => read.rounds = value().parse().unwrap(),
                "--seconds" => read.seconds = value().parse().unwrap(),
                "--only" => read.only.push(value()),
                "--json" => read.json = Some(value().into()),
                "--rates" => read.rates = true,
                "--flame" => read.flame = Some(value().into()),
                // What cargo says to every benchmark.
                "--bench" | "--test" => {}
                other => panic!("there is no option {other}"),
            }
        }
        read
    }

    fn wants(&self, work: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| work.contains(only.as_str()))
    }
}
