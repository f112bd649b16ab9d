//! Runs one part of the hot path so many times and does nothing else, for `instructions` to count
//! its instructions.

// What is printed is its output.
#![allow(clippy::print_stdout)]

use std::hint::black_box;

use hot_path::{BENCH_CASES, BenchCase};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["names"] => BENCH_CASES.iter().for_each(|part| println!("{}", part.name)),
        [name, times] => {
            let (Some(part), Ok(times)) = (BenchCase::named(name), times.parse::<u64>()) else {
                return;
            };
            let mut pass = part.prepare();
            for _ in 0..times {
                black_box(pass());
            }
        }
        // `cargo bench` and `cargo test --benches` start every benchmark.
        _ => {}
    }
}
