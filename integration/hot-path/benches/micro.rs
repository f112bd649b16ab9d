//! The parts of the hot path, each by itself: `./bench micro`.

use divan::{Bencher, black_box};
use hickory_proto::op::Message;
use hot_path::{BENCH_CASES, BenchCase};

fn main() {
    divan::main();
}

#[divan::bench(args = BENCH_CASES.iter().map(|part| part.name))]
fn part(bencher: Bencher, name: &str) {
    if let Some(part) = BenchCase::named(name) {
        bencher.bench_local(part.prepare());
    }
}

/// What a full decoder would take for the answer alone.
#[divan::bench]
fn decode_answer_with_hickory(bencher: Bencher) {
    let (_, answer) = hot_path::packets("www.example.com.");
    bencher.bench_local(|| Message::from_vec(black_box(&answer)));
}
