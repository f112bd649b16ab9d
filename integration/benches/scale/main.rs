//! What the size of a cluster costs. `./bench scale` at the top runs it; `--only change`, `start`,
//! `answers`, `memory`, `events`, `watch`, `watchers` or `check` a part of it.
//!
//! `--write DIRECTORY --pods N --policies N …` writes the generated objects and measures nothing,
//! for a look at them. `--change TEXT` makes the changes alone that have this in their name, of
//! which a profiler sees nothing but with many `--rounds`.

// A program that measures, not a library: it ends with a message when something is not as it must
// be.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod answers;
mod change;
mod check;
mod common_pattern;
mod events;
mod list_watch_server;
mod memory;
mod objects;
mod start;
mod usage;
mod watch;
mod watchers;

use std::path::PathBuf;
use std::time::Duration;

use objects::ClusterShape;
use usage::Usage;

fn main() {
    // `cargo test --benches` starts every benchmark; this one is for `./bench`.
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some(change::INSIDE) {
        let [pods, rounds, which] = std::array::from_fn(|_| words.next().unwrap());
        return change::inside(pods.parse().unwrap(), rounds.parse().unwrap(), &which);
    }
    let arguments = Arguments::read();
    if let Some(directory) = &arguments.write {
        std::fs::create_dir_all(directory).unwrap();
        return arguments.shape.write(directory, arguments.files).unwrap();
    }
    if !arguments.wanted {
        return;
    }
    if arguments.wants("change") {
        change::run(arguments.rounds, &arguments.change);
    }
    let binary = std::env::var("NAMEGATE_BINARY").unwrap_or(env!("CARGO_BIN_EXE_namegate-under-test").into());
    if arguments.wants("start") {
        start::run(&binary, arguments.rounds);
    }
    if arguments.wants("answers") {
        answers::run(&binary, arguments.rounds);
    }
    if arguments.wants("memory") {
        memory::run(&binary, arguments.rounds);
    }
    if arguments.wants("events") {
        events::run(&binary, 60);
    }
    if arguments.wants("watch") {
        watch::run();
    }
    if arguments.wants("watchers") {
        watchers::run(&binary);
    }
    if arguments.wants("check") {
        let ClusterShape { pods, policies, .. } = check::REPOSITORY;
        let runs = check::run(&binary, arguments.rounds);
        println!(
            "namegate check, {pods} pods, {policies} policies, with lints: {}",
            shown(&runs)
        );
        let median = median(&runs, |run| run.cpu);
        println!(
            "  at most {:?} of CPU: {}",
            check::GOAL,
            if median <= check::GOAL {
                "reached"
            } else {
                "NOT REACHED"
            }
        );
    }
}

/// Medians, and the worst.
fn shown(runs: &[Usage]) -> String {
    let cpu = median(runs, |run| run.cpu);
    let worst = runs.iter().map(|run| run.cpu).max().unwrap_or_default();
    let elapsed = median(runs, |run| run.elapsed);
    let peak = runs.iter().map(|run| run.peak).max().unwrap_or_default() >> 20;
    format!("{cpu:.0?} of CPU (worst {worst:.0?}), {elapsed:.0?} elapsed, at most {peak} MiB")
}

fn median(runs: &[Usage], figure: impl Fn(&Usage) -> Duration) -> Duration {
    median_of(runs.iter().map(figure))
}

fn median_of(figures: impl Iterator<Item = Duration>) -> Duration {
    let mut figures: Vec<Duration> = figures.collect();
    figures.sort_unstable();
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

/// `--rounds N --only TEXT --change TEXT`, or
/// `--write DIRECTORY --files N` and a number for each kind of object.
struct Arguments {
    wanted: bool,
    rounds: usize,
    only: Vec<String>,
    change: String,
    write: Option<PathBuf>,
    files: usize,
    shape: ClusterShape,
}

impl Arguments {
    fn read() -> Self {
        let mut read = Self {
            wanted: false,
            rounds: 5,
            only: Vec::new(),
            change: String::new(),
            write: None,
            files: check::POD_FILES,
            shape: check::REPOSITORY,
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
            match word.as_str() {
                "--run" => read.wanted = true,
                "--rounds" => read.rounds = value().parse().unwrap(),
                "--only" => read.only.push(value()),
                "--change" => read.change = value(),
                "--write" => read.write = Some(value().into()),
                "--files" => read.files = value().parse().unwrap(),
                "--namespaces" => read.shape.namespaces = value().parse().unwrap(),
                "--apps" => read.shape.apps = value().parse().unwrap(),
                "--pods" => read.shape.pods = value().parse().unwrap(),
                "--services" => read.shape.services = value().parse().unwrap(),
                "--policies" => read.shape.policies = value().parse().unwrap(),
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
