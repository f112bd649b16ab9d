//! What a full ledger takes, counted by the allocator.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use allocations::in_use;
use clock::Time;
use fqdn_cache::{LearnedAnswer, LeaseOwner, LeaseTiming, Ledger, LedgerLimits, Teacher};
use names::Name;

#[test]
fn a_hundred_thousand_names_with_two_addresses_fit_in_30_mib() {
    const NAMES: u32 = 100_000;
    let before = in_use();
    let mut ledger = Ledger::new(LedgerLimits::default(), LeaseTiming::default());
    for i in 0..NAMES {
        // Spread over the address space, as the addresses of strangers are.
        let spread = i.wrapping_mul(2_654_435_761);
        ledger.learn(
            Time::from_millis(i.into()),
            &LearnedAnswer {
                name: Name::parse(&format!("host-{i:06}.service.example.com")).unwrap(),
                addresses: vec![
                    (Ipv4Addr::from(spread).into(), Duration::from_secs(300)),
                    (
                        IpAddr::from(Ipv6Addr::from(u128::from(spread) << 64 | 1)),
                        Duration::from_secs(300),
                    ),
                ]
                .into(),
                teacher: Teacher::Trusted(Ipv4Addr::new(10, 96, 0, 10).into()),
                owner: LeaseOwner(1),
                terms: None,
            },
        );
    }
    assert_eq!(ledger.size(), (NAMES as usize, 2 * NAMES as usize));
    let bytes = in_use() - before;
    println!("{} bytes a name, {} MiB", bytes / NAMES as usize, bytes >> 20);
    assert!(bytes < 30 << 20, "{bytes} bytes");
    drop(ledger);
    assert!(in_use() - before < 1 << 20, "a dropped ledger leaves nothing");
}
