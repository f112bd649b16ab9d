use std::collections::BTreeSet;
use std::io::Cursor;
use std::num::NonZeroUsize;
use std::time::Duration;

use proptest::prelude::*;

use crate::{LearnedAnswer, LeaseTiming, LedgerEntry, LedgerLimits};

use super::*;

const BOOT: &str = "0f1e2d3c";

fn at(secs: u64) -> Time {
    Time::from_millis(secs * 1_000)
}

fn limits(names: usize, addresses_per_name: usize) -> LedgerLimits {
    LedgerLimits {
        names: NonZeroUsize::new(names).unwrap(),
        addresses_per_name: NonZeroUsize::new(addresses_per_name).unwrap(),
    }
}

fn empty() -> Ledger {
    Ledger::new(LedgerLimits::default(), LeaseTiming::default())
}

fn teach(ledger: &mut Ledger, now: Time, name: &str, addresses: &[&str], ttl: u64) {
    ledger.learn(
        now,
        &LearnedAnswer {
            name: Name::parse(name).unwrap(),
            addresses: addresses
                .iter()
                .map(|address| (address.parse().unwrap(), Duration::from_secs(ttl)))
                .collect(),
            teacher: Teacher::Trusted("10.0.0.53".parse().unwrap()),
            owner: LeaseOwner(1),
            terms: None,
        },
    );
    ledger.evict(now);
}

fn sample() -> Ledger {
    let mut ledger = empty();
    teach(&mut ledger, at(1), "a.example", &["192.0.2.1", "2001:db8::1"], 60);
    teach(&mut ledger, at(2), "b.example", &["192.0.2.2"], 300);
    teach(&mut ledger, at(3), "gone.example", &["192.0.2.3"], 0);
    ledger
}

fn bytes(ledger: &Ledger, now: Time) -> Vec<u8> {
    let (mut snapshot, mut bytes) = (LedgerSnapshot::new(BOOT), Vec::new());
    while let Some(part) = snapshot.next_part(ledger, now) {
        bytes.extend_from_slice(part);
    }
    bytes
}

/// Without their order.
fn lines(bytes: &[u8]) -> BTreeSet<&[u8]> {
    bytes.split(|octet| *octet == b'\n').collect()
}

fn entries(ledger: &Ledger, now: Time) -> Vec<LedgerEntry<'_>> {
    ledger.entries(now).collect()
}

#[test]
fn a_snapshot_carries_what_is_live() {
    let ledger = sample();
    let bytes = bytes(&ledger, at(40));
    let mut restored = empty();
    assert_eq!(restored.restore(at(50), BOOT, Cursor::new(&bytes)).unwrap(), 3);
    assert_eq!(entries(&restored, at(50)), entries(&ledger, at(50)));
    assert_eq!(restored.next_deadline(), Some(at(91)));
}

#[test]
fn a_large_ledger_is_free_between_the_parts_of_its_snapshot() {
    let mut ledger = empty();
    for name in 0..2_000 {
        teach(&mut ledger, at(1), &format!("n{name}.example"), &["192.0.2.1"], 60);
    }
    let (mut snapshot, mut bytes, mut parts) = (LedgerSnapshot::new(BOOT), Vec::new(), 0);
    while let Some(part) = snapshot.next_part(&ledger, at(2)) {
        assert!(part.len() < 2 * PART);
        bytes.extend_from_slice(part);
        parts += 1;
        // Not each time: a part may hold no more than what the last one left, and then there
        // would always be another.
        if parts <= 10 {
            teach(&mut ledger, at(2), &format!("later{parts}.example"), &["192.0.2.2"], 60);
        }
    }
    assert!(parts > 10, "{parts}");
    let mut restored = empty();
    restored.restore(at(3), BOOT, Cursor::new(&bytes)).unwrap();
    for name in 0..2_000 {
        let name = Name::parse(&format!("n{name}.example")).unwrap();
        assert_eq!(restored.addresses(at(3), &name).count(), 1);
    }
}

#[test]
fn leases_that_ended_in_between_do_not_come_back() {
    let bytes = bytes(&sample(), at(4));
    let mut restored = empty();
    assert_eq!(restored.restore(at(91), BOOT, Cursor::new(&bytes)).unwrap(), 1);
    assert_eq!(restored.size(), (1, 1));
}

#[test]
fn names_with_octets_that_no_policy_can_write_come_back() {
    let labels: [&[u8]; 2] = [b"a.\\b\"\xff", b"example"];
    let name = Name::from_wire_labels(labels);
    let mut ledger = empty();
    ledger.learn(
        at(0),
        &LearnedAnswer {
            name: name.clone(),
            addresses: vec![("192.0.2.1".parse().unwrap(), Duration::ZERO)].into(),
            teacher: Teacher::Trusted("10.0.0.53".parse().unwrap()),
            owner: LeaseOwner(1),
            terms: None,
        },
    );
    let mut restored = empty();
    restored
        .restore(at(1), BOOT, Cursor::new(&bytes(&ledger, at(1))))
        .unwrap();
    assert_eq!(restored.addresses(at(1), &name).count(), 1);
}

#[test]
fn other_boots_and_other_versions_are_refused() {
    let bytes = bytes(&sample(), at(4));
    let mut ledger = empty();
    assert!(matches!(
        ledger.restore(at(4), "another", Cursor::new(&bytes)),
        Err(LedgerSnapshotError::OtherBoot)
    ));
    let later = String::from_utf8(bytes)
        .unwrap()
        .replace("\"version\":3", "\"version\":4");
    assert!(matches!(
        ledger.restore(at(4), BOOT, Cursor::new(later.as_bytes())),
        Err(LedgerSnapshotError::Version(4))
    ));
    assert!(matches!(
        ledger.restore(at(4), BOOT, Cursor::new(b"{\"version\":7,\"names\":{}}\n")),
        Err(LedgerSnapshotError::Version(7))
    ));
    assert_eq!(ledger.size(), (0, 0));
}

#[test]
fn what_private_servers_taught_comes_back_as_theirs() {
    let mut ledger = sample();
    let private = Teacher::Private("203.0.113.53".parse().unwrap());
    ledger.learn(
        at(3),
        &LearnedAnswer {
            name: Name::parse("a.example").unwrap(),
            addresses: vec![("192.0.2.1".parse().unwrap(), Duration::from_secs(3_600))].into(),
            teacher: private,
            owner: LeaseOwner(1),
            terms: None,
        },
    );
    let mut restored = empty();
    restored
        .restore(at(4), BOOT, Cursor::new(&bytes(&ledger, at(4))))
        .unwrap();
    assert_eq!(entries(&restored, at(4)), entries(&ledger, at(4)));
    assert_eq!(entries(&restored, at(4))[2].teacher, private);
}

#[test]
fn the_version_before_is_read_and_what_it_holds_is_nobodys_but_each_teachers() {
    let before = format!(
        "{{\"version\":2,\"boot_id\":\"{BOOT}\"}}\n{{\"name\":\"a.example.\",\"leases\":[\
         {{\"address\":\"192.0.2.1\",\"learned\":1000,\"expires\":90000,\"source\":\"10.0.0.53\"}},\
         {{\"address\":\"192.0.2.2\",\"learned\":1000,\"expires\":90000,\"source\":\"10.0.0.54\"}},\
         {{\"address\":\"192.0.2.3\",\"learned\":1000,\"expires\":90000,\"source\":\"10.0.0.53\"}}]}}\n"
    );
    let mut ledger = empty();
    assert_eq!(ledger.restore(at(5), BOOT, Cursor::new(before.as_bytes())).unwrap(), 3);
    let held = entries(&ledger, at(5));
    let of = |last: u8| {
        held.iter()
            .filter(move |entry| entry.teacher == Teacher::Private([10, 0, 0, last].into()))
    };
    assert_eq!((of(53).count(), of(54).count()), (2, 1));
}

#[test]
fn a_malformed_snapshot_changes_nothing() {
    let good = String::from_utf8(bytes(&sample(), at(4))).unwrap();
    let mut ledger = empty();
    for bad in [
        String::new(),
        "null".to_owned(),
        "[".repeat(10_000),
        good.replace("b.example.", "b..example."),
        good.replace("b.example.", "\\\\999.example."),
        good.replace("192.0.2.2", "192.0.2.256"),
        good.replace("\"leases\"", "\"laeses\""),
        good[..good.len() - 1].to_owned(),
        good.clone() + "x",
    ] {
        assert!(
            matches!(
                ledger.restore(at(4), BOOT, Cursor::new(bad.as_bytes())),
                Err(LedgerSnapshotError::Malformed(_))
            ),
            "{bad:.80}"
        );
        assert_eq!(ledger.size(), (0, 0));
    }
}

#[test]
fn the_limits_hold_and_the_names_learned_last_come_back() {
    let mut ledger = empty();
    for (second, name) in ["a.example", "b.example", "c.example", "a.example"]
        .into_iter()
        .enumerate()
    {
        teach(
            &mut ledger,
            at(second as u64),
            name,
            &["192.0.2.1", "192.0.2.2", "192.0.2.3"],
            300,
        );
    }
    let mut small = Ledger::new(limits(2, 2), LeaseTiming::default());
    assert_eq!(
        small.restore(at(4), BOOT, Cursor::new(&bytes(&ledger, at(4)))).unwrap(),
        4
    );
    let names: Vec<String> = small.entries(at(4)).map(|entry| entry.name.to_string()).collect();
    assert_eq!(names, ["a.example", "a.example", "c.example", "c.example"]);
    // And their order came back: the next name takes the place of c.
    teach(&mut small, at(5), "d.example", &["192.0.2.9"], 300);
    assert_eq!(small.addresses(at(5), &Name::parse("c.example").unwrap()).count(), 0);
}

#[test]
fn what_is_held_already_stays_and_is_not_shortened() {
    let bytes = bytes(&sample(), at(4));
    let mut ledger = Ledger::new(limits(2, 10), LeaseTiming::default());
    teach(&mut ledger, at(10), "z.example", &["192.0.2.99"], 60);
    teach(&mut ledger, at(11), "b.example", &["192.0.2.2"], 3_600);
    assert_eq!(ledger.restore(at(12), BOOT, Cursor::new(&bytes)).unwrap(), 0);
    let held = entries(&ledger, at(12));
    assert_eq!(held.len(), 2);
    assert_eq!((held[0].learned, held[0].expires), (at(11), at(11 + 3_600 + 30)));
}

#[test]
fn no_lease_comes_back_longer_than_the_terms_allow() {
    let forged = format!(
        "{{\"version\":2,\"boot_id\":\"{BOOT}\"}}\n{{\"name\":\"a.example.\",\"leases\":[\
         {{\"address\":\"192.0.2.1\",\"learned\":{max},\"expires\":{max},\"source\":\"::1\"}}]}}\n",
        max = u64::MAX
    );
    let mut ledger = empty();
    assert_eq!(ledger.restore(at(5), BOOT, Cursor::new(forged.as_bytes())).unwrap(), 1);
    let held = entries(&ledger, at(5));
    assert_eq!((held[0].learned, held[0].expires), (at(5), at(5 + 86_400 + 30)));
}

proptest! {
    #[test]
    fn any_bytes_give_a_result(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = empty().restore(at(5), BOOT, Cursor::new(&bytes));
    }

    #[test]
    fn a_damaged_snapshot_gives_a_result_within_the_limits(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut bytes = bytes(&sample(), at(4));
        for (place, octet) in damage {
            let place = place.index(bytes.len());
            bytes[place] = octet;
        }
        let mut ledger = Ledger::new(limits(1, 1), LeaseTiming::default());
        let _ = ledger.restore(at(5), BOOT, Cursor::new(&bytes));
        prop_assert!(ledger.size() <= (1, 1));
        prop_assert_eq!(ledger.size().1, ledger.entries(at(5)).count());
    }

    #[test]
    fn any_ledger_comes_back_as_it_was(
        taught in prop::collection::vec((0..30_u8, 0..6_u8, 0..400_u64), 0..40),
        pause in 0..500_u64,
    ) {
        let mut ledger = empty();
        for (second, (name, host, ttl)) in taught.into_iter().enumerate() {
            teach(&mut ledger, at(second as u64), &format!("n{name}.example"), &[&format!("192.0.2.{host}")], ttl);
        }
        let saved = at(40);
        let now = saved + Duration::from_secs(pause);
        let mut restored = empty();
        restored.restore(now, BOOT, Cursor::new(&bytes(&ledger, saved))).unwrap();
        prop_assert_eq!(entries(&restored, now), entries(&ledger, now));
        ledger.expire(now);
        prop_assert_eq!(restored.next_deadline(), ledger.next_deadline());
        let (again, once) = (bytes(&restored, now), bytes(&ledger, now));
        prop_assert_eq!(lines(&again), lines(&once));
    }
}
