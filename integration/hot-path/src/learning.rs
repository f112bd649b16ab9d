//! Answers into the ledger.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;
use std::time::Duration;

use clock::Time;
use fqdn_cache::{LearnedAnswer, LeaseOwner, LeaseTiming, Ledger, LedgerLimits, Teacher};
use names::Name;

use crate::BenchIteration;

const NAMES: u32 = 10_000;

/// Each answer was learned before.
pub(crate) fn again() -> BenchIteration {
    let (mut ledger, mut now) = (ledger(), 0);
    let answers: Vec<LearnedAnswer> = (0..NAMES).map(answer).collect();
    for answer in &answers {
        ledger.learn(Time::from_millis(now), answer);
    }
    Box::new(move || {
        now += 1;
        let outcome = ledger.learn(Time::from_millis(now), &answers[now as usize % answers.len()]);
        outcome.leases.len()
    })
}

/// No answer was learned before, and the oldest go to make room.
pub(crate) fn new() -> BenchIteration {
    let mut ledger = ledger();
    let mut next = 0;
    let mut learn = move || {
        next += 1;
        let now = Time::from_millis(next.into());
        let outcome = ledger.learn(now, &answer(next));
        outcome.leases.len() + ledger.evict(now).len()
    };
    for _ in 0..NAMES {
        learn();
    }
    Box::new(learn)
}

fn ledger() -> Ledger {
    let limits = LedgerLimits {
        names: NonZeroUsize::new(NAMES as usize).unwrap(),
        ..LedgerLimits::default()
    };
    Ledger::new(limits, LeaseTiming::default())
}

fn answer(number: u32) -> LearnedAnswer {
    let address = |bits| {
        (
            IpAddr::V4(Ipv4Addr::from_bits(0x1400_0000 + bits)),
            Duration::from_secs(300),
        )
    };
    LearnedAnswer {
        name: Name::parse(&format!("n{number}.example.com")).unwrap(),
        addresses: [2 * number, 2 * number + 1].map(address).into_iter().collect(),
        teacher: Teacher::Trusted(Ipv4Addr::LOCALHOST.into()),
        owner: LeaseOwner(1),
        terms: None,
    }
}
