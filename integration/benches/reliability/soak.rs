//! A million names that nobody has asked before, each with a lease of five seconds, from two pods.
//! No lookup of a live name may fail, and memory must not grow.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use lab::client::StubResolver;
use lab::{NumberedNames, RESOLVER, dns};
use namegate_integration::Scenario;

use crate::site::{self, Mode, NEW};

/// Clients in each pod: each waits for its answer before it asks again.
const CLIENTS_PER_POD: u32 = 8;
/// The internet of the lab has 198.18.0.0/15 for these names: addresses come again, when their
/// leases are long over.
const ADDRESSES: u32 = 131_072;

/// How many names are asked, and how fast.
#[derive(Debug)]
pub(crate) struct Size {
    /// Names in all.
    pub(crate) names: u32,
    /// Lookups a second of both pods together.
    pub(crate) rate: u32,
}

impl Default for Size {
    fn default() -> Self {
        Self {
            names: 1_000_000,
            rate: 3_000,
        }
    }
}

#[derive(Default)]
struct Tally {
    next: AtomicU32,
    answered: AtomicU32,
    failed: AtomicU32,
    silent: AtomicU32,
    refused: AtomicU32,
    connected: AtomicU32,
}

pub(crate) fn run(size: &Size) {
    let scenario = site::start(Mode::Dnat, "--grace 0s");
    for series in 0..=size.names / ADDRESSES {
        scenario.lab().resolver().synthesize(NumberedNames {
            suffix: format!("s{series}.{NEW}"),
            ttl: 5,
            addresses: 1,
            first4: Ipv4Addr::new(198, 18, 0, 0),
            first6: Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0),
        });
    }
    let tally = Tally::default();
    let clients = 2 * CLIENTS_PER_POD;
    let pace = Duration::from_secs_f64(f64::from(clients) / f64::from(size.rate));
    let begun = Instant::now();
    println!("  seconds   answered  SERVFAIL  silent  connected  refused   elements  agent MiB");
    thread::scope(|scope| {
        for client in 0..clients {
            let (pod, tally) = (scenario.pod(client as usize % 2), &tally);
            scope.spawn(move || pod.namespace().run(|| ask_all(tally, size.names, pace)).unwrap());
        }
        while tally.next.load(Ordering::Relaxed) < size.names {
            thread::sleep(Duration::from_secs(10));
            print_line(begun.elapsed(), &tally, &scenario);
        }
    });
    print_line(begun.elapsed(), &tally, &scenario);
    let failed = tally.failed.into_inner() + tally.refused.into_inner();
    if failed > 0 {
        std::process::exit(1);
    }
}

fn ask_all(tally: &Tally, names: u32, pace: Duration) {
    let stub = StubResolver::new(dns(RESOLVER)).unwrap();
    let mut due = Instant::now();
    loop {
        let number = tally.next.fetch_add(1, Ordering::Relaxed);
        if number >= names {
            return;
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        due += pace;
        let name = format!("n{}.s{}.{NEW}", number % ADDRESSES, number / ADDRESSES);
        let reply = match stub.ask(&name, RecordType::A, true) {
            Ok(reply) => reply,
            Err(_) => {
                tally.silent.fetch_add(1, Ordering::Relaxed);
                continue;
            }
        };
        match (reply.code(), reply.address()) {
            (ResponseCode::NoError, Some(address)) => {
                tally.answered.fetch_add(1, Ordering::Relaxed);
                if number.is_multiple_of(64) {
                    let to = (address, lab::internet::CLOSE_PORT).into();
                    let stands = lab::client::connect(to).is_ok_and(|attempt| attempt.is_connected());
                    let count = if stands { &tally.connected } else { &tally.refused };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
            _ => drop(tally.failed.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

fn print_line(time: Duration, tally: &Tally, scenario: &Scenario) {
    let elements = scenario
        .installation()
        .status()
        .map(|status| status.elements)
        .unwrap_or_default();
    let status = fs::read_to_string(format!("/proc/{}/status", scenario.agent().pid())).unwrap_or_default();
    let resident = status
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmRSS:")?
                .split_whitespace()
                .next()?
                .parse::<f64>()
                .ok()
        })
        .unwrap_or_default();
    let load = |count: &AtomicU32| count.load(Ordering::Relaxed);
    println!(
        "{:>9} {:>10} {:>9} {:>7} {:>10} {:>8} {elements:>10} {:>10.1}",
        time.as_secs(),
        load(&tally.answered),
        load(&tally.failed),
        load(&tally.silent),
        load(&tally.connected),
        load(&tally.refused),
        resident / 1_024.0,
    );
}
