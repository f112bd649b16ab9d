//! The ledger as its callers see it.

mod leases;
mod limits;
mod model;

use super::*;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn at(secs: u64) -> Time {
    Time::from_millis(secs * 1_000)
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn resolver() -> Teacher {
    Teacher::Trusted(ip("10.96.0.10"))
}

fn answer(text: &str, addresses: &[(&str, u64)]) -> LearnedAnswer {
    LearnedAnswer {
        name: name(text),
        addresses: addresses
            .iter()
            .map(|&(address, ttl)| (ip(address), secs(ttl)))
            .collect(),
        teacher: resolver(),
        owner: LeaseOwner(1),
        terms: None,
    }
}

/// Leases are TTLs here: no bounds, no grace.
fn ledger(names: usize, addresses_per_name: usize) -> Ledger {
    let limits = LedgerLimits {
        names: NonZeroUsize::new(names).unwrap(),
        addresses_per_name: NonZeroUsize::new(addresses_per_name).unwrap(),
    };
    let terms = LeaseTiming {
        grace: Duration::ZERO,
        ..LeaseTiming::default()
    };
    Ledger::new(limits, terms)
}

fn held(ledger: &Ledger, now: Time) -> Vec<String> {
    ledger
        .entries(now)
        .map(|entry| format!("{} {}", entry.name, entry.address))
        .collect()
}

fn names_of(ledger: &Ledger, now: Time, address: &str) -> Vec<String> {
    let holders = ledger.holders(now, ip(address));
    holders.iter().map(|entry| entry.name.to_string()).collect()
}

fn is_learned(ledger: &Ledger, now: Time, address: &str) -> bool {
    ledger.is_learned(now, ip(address), |_| true)
}
