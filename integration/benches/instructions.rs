//! Runs one part of the hot path so many times and does nothing else, for `instructions.sh` to count its instructions.

// Benchmarks are no tests for clippy.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod hot_path;

use std::hint::black_box;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [part, times] = &arguments[..] else {
        // `cargo bench` and `cargo test --benches` start every benchmark.
        return;
    };
    let Ok(times) = times.parse::<u64>() else { return };
    let mut run: Box<dyn FnMut() -> usize> = match part.as_str() {
        "forwarded" => lookup(hot_path::forwarded()),
        "cached" => lookup(hot_path::cached()),
        "denied" => lookup(hot_path::denied()),
        "match-10" => matching(10),
        "match-10000" => matching(10_000),
        _ => return eprintln!("there is no part {part}"),
    };
    for _ in 0..times {
        black_box(run());
    }
}

fn lookup(mut lookup: hot_path::Lookup) -> Box<dyn FnMut() -> usize> {
    Box::new(move || lookup.run())
}

fn matching(count: usize) -> Box<dyn FnMut() -> usize> {
    let (index, name) = hot_path::selectors(count);
    Box::new(move || usize::from(index.any_match(black_box(&name))))
}
