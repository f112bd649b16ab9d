//! The parts of a lookup, each by itself: `./bench micro`.

// Benchmarks are no tests for clippy.
#![allow(clippy::unwrap_used)]

mod hot_path;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use divan::{Bencher, black_box};
use fqdn_cache::{Answer, LeaseTerms, Ledger, Limits, Time};
use hickory_proto::op::Message;
use policy::Name;

fn main() {
    divan::main();
}

#[divan::bench]
fn lookup_forwarded(bencher: Bencher) {
    let mut lookup = hot_path::forwarded();
    bencher.bench_local(|| lookup.run());
}

#[divan::bench]
fn lookup_cached(bencher: Bencher) {
    let mut lookup = hot_path::cached();
    bencher.bench_local(|| lookup.run());
}

#[divan::bench]
fn lookup_denied(bencher: Bencher) {
    let mut lookup = hot_path::denied();
    bencher.bench_local(|| lookup.run());
}

/// What a full decoder would take for the answer alone.
#[divan::bench]
fn decode_answer_with_hickory(bencher: Bencher) {
    let (_, answer) = hot_path::packets("www.example.com.");
    bencher.bench_local(|| Message::from_vec(black_box(&answer)).unwrap());
}

#[divan::bench(args = [10, 10_000])]
fn match_name_against_selectors(bencher: Bencher, count: usize) {
    let (index, name) = hot_path::selectors(count);
    bencher.bench_local(|| index.any_match(black_box(&name)));
}

/// Of 10,000 names, each learned before.
#[divan::bench]
fn learn_again(bencher: Bencher) {
    let mut ledger = Ledger::new(Limits::default(), LeaseTerms::default());
    let answers: Vec<Answer> = (0..10_000u32)
        .map(|i| Answer {
            name: Name::parse(&format!("n{i}.example.com")).unwrap(),
            addresses: [2 * i, 2 * i + 1]
                .map(|bits| {
                    (
                        IpAddr::V4(Ipv4Addr::from_bits(0x1400_0000 + bits)),
                        Duration::from_secs(300),
                    )
                })
                .into(),
            source: Ipv4Addr::LOCALHOST.into(),
            terms: None,
        })
        .collect();
    let mut now = 0;
    bencher.bench_local(|| {
        now += 1;
        ledger.learn(Time::from_millis(now), &answers[now as usize % answers.len()])
    });
}
