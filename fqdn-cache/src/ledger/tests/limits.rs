//! What gives way when the ledger, or a name in it, is full.

use super::*;

#[test]
fn leases_in_all_are_bounded_and_the_names_learned_longest_ago_give_way() {
    let mut ledger = ledger(2, 5);
    let many =
        |first: u8| -> Vec<(String, u64)> { (first..first + 5).map(|last| (format!("192.0.2.{last}"), 60)).collect() };
    let learn = |ledger: &mut Ledger, who: &str, first: u8| {
        let addresses = many(first);
        let addresses: Vec<(&str, u64)> = addresses.iter().map(|(ip, ttl)| (ip.as_str(), *ttl)).collect();
        let outcome = ledger.learn(at(0), &answer(who, &addresses));
        (outcome.leases.len(), ledger.evict(at(0)))
    };
    assert_eq!(ledger.limits.leases(), 8);
    assert_eq!(learn(&mut ledger, "a.example", 0), (5, vec![]));
    assert_eq!(learn(&mut ledger, "b.example", 100), (5, vec![name("a.example")]));
    assert_eq!(ledger.size(), (1, 5));
}

#[test]
fn the_name_learned_longest_ago_makes_room() {
    let mut ledger = ledger(2, 10);
    ledger.learn(at(0), &answer("a.example", &[("192.0.2.1", 100)]));
    ledger.learn(at(1), &answer("b.example", &[("192.0.2.1", 200), ("192.0.2.2", 200)]));
    ledger.learn(at(2), &answer("a.example", &[("192.0.2.1", 100)]));
    ledger.learn(at(3), &answer("c.example", &[("192.0.2.3", 100)]));
    assert_eq!(ledger.evict(at(3)), [name("b.example")]);
    assert_eq!(held(&ledger, at(3)), ["a.example 192.0.2.1", "c.example 192.0.2.3"]);
    assert!(!is_learned(&ledger, at(3), "192.0.2.2"));
    assert_eq!(ledger.size(), (2, 2));
    assert_eq!(ledger.next_deadline(), Some(at(102)));
}

#[test]
fn long_names_drive_out_names_of_their_own_owner() {
    let mut ledger = ledger(100, 10);
    let by = |owner, name: &str, addresses: &[(&str, u64)]| LearnedAnswer {
        owner: LeaseOwner(owner),
        ..answer(name, addresses)
    };
    let two = [("192.0.2.1", 3_600), ("192.0.2.2", 3_600)];
    let neighbours: Vec<String> = (0..30).map(|number| format!("n{number}.example")).collect();
    for name in &neighbours {
        ledger.learn(at(0), &by(1, name, &two));
    }
    let label = "x".repeat(60);
    for number in 0..1_000 {
        let name = format!("n{number}.{label}.{label}.{label}.example");
        ledger.learn(at(number), &by(2, &name, &two[..1]));
        ledger.evict(at(number));
    }
    // 100 names of 64 octets on average.
    assert!(ledger.names.octets() <= 6_400);
    assert!(ledger.size().0 > 55, "{:?}", ledger.size());
    for name in &neighbours {
        let held = ledger.addresses(at(1_000), &super::name(name)).count();
        assert_eq!(held, 2, "{name}");
    }
    // What is counted is what there is.
    let held: usize = ledger.names.iter().map(|record| record.name.as_str().len()).sum();
    assert_eq!(ledger.names.octets(), held);
}

#[test]
fn who_learns_a_great_many_names_drives_out_its_own() {
    let mut ledger = ledger(100, 10);
    let by = |owner, name: &str| LearnedAnswer {
        owner: LeaseOwner(owner),
        ..answer(name, &[("192.0.2.1", 3_600)])
    };
    for name in ["a.example", "b.example"] {
        ledger.learn(at(0), &by(1, name));
    }
    for number in 0..1_000 {
        ledger.learn(at(number), &by(2, &format!("n{number}.example")));
        if number > 10 {
            // It asks for a neighbour's name too, and does not come to own it by that.
            ledger.learn(at(number), &by(2, "b.example"));
        }
        ledger.evict(at(number));
    }
    for name in ["a.example", "b.example", "n999.example"] {
        assert_eq!(ledger.addresses(at(1_000), &super::name(name)).count(), 1, "{name}");
    }
    assert_eq!(ledger.size(), (100, 100));
    // What can be taken of each in turn is each one's newest.
    let first: Vec<_> = ledger
        .fairly(at(1_000))
        .take(3)
        .map(|(_, entry)| entry.name.to_string())
        .collect();
    assert_eq!(first, ["b.example", "n999.example", "a.example"]);
    // A name of the flood that a neighbour needs is the neighbour's from then on.
    ledger.learn(at(1_000), &by(3, "n950.example"));
    for number in 1_000..2_000 {
        ledger.learn(at(number), &by(2, &format!("n{number}.example")));
        ledger.evict(at(number));
    }
    assert_eq!(ledger.addresses(at(2_000), &super::name("n950.example")).count(), 1);
}

#[test]
fn what_has_ended_makes_room_before_what_is_live() {
    let mut ledger = ledger(2, 2);
    ledger.learn(at(0), &answer("old.example", &[("192.0.2.1", 100)]));
    ledger.learn(at(1), &answer("ended.example", &[("192.0.2.2", 5)]));
    ledger.learn(at(6), &answer("new.example", &[("192.0.2.3", 4), ("192.0.2.4", 50)]));
    assert_eq!(ledger.evict(at(6)), []);
    assert_eq!(ledger.size(), (2, 3));

    let outcome = ledger.learn(at(10), &answer("new.example", &[("192.0.2.5", 60)]));
    assert_eq!(outcome.evicted_addresses, 0, "192.0.2.3 had ended");
    assert_eq!(ledger.addresses(at(10), &name("new.example")).count(), 2);
}

#[test]
fn a_name_with_too_many_addresses_loses_those_that_end_first() {
    let mut ledger = ledger(10, 2);
    ledger.learn(at(0), &answer("a.example", &[("192.0.2.1", 100), ("192.0.2.2", 50)]));
    let outcome = ledger.learn(at(1), &answer("a.example", &[("192.0.2.3", 60)]));
    assert_eq!(outcome.evicted_addresses, 1);
    assert_eq!(held(&ledger, at(1)), ["a.example 192.0.2.1", "a.example 192.0.2.3"]);
    assert!(!is_learned(&ledger, at(1), "192.0.2.2"));

    let many: Vec<(String, u64)> = (1..=20).map(|host| (format!("198.51.100.{host}"), host)).collect();
    let many: Vec<(&str, u64)> = many.iter().map(|(address, ttl)| (address.as_str(), *ttl)).collect();
    let outcome = ledger.learn(at(2), &answer("many.example", &many));
    assert_eq!(
        outcome.leases[..],
        [(ip("198.51.100.19"), at(21)), (ip("198.51.100.20"), at(22))],
        "what is not kept is not to be opened"
    );
    assert_eq!((outcome.left_out, outcome.evicted_addresses), (18, 0));
    assert_eq!(
        ledger
            .addresses(at(2), &name("many.example"))
            .map(|entry| entry.address)
            .collect::<Vec<_>>(),
        [ip("198.51.100.19"), ip("198.51.100.20")]
    );
}

#[test]
fn thousands_of_names_may_share_an_address() {
    let mut ledger = ledger(5_000, 10);
    for i in 0..10_000 {
        ledger.learn(at(i), &answer(&format!("n{i}.example"), &[("192.0.2.1", 86_400)]));
        ledger.evict(at(i));
    }
    assert_eq!(ledger.size(), (5_000, 5_000));
    assert_eq!(ledger.holders(at(10_000), ip("192.0.2.1")).len(), 5_000);
    assert_eq!(ledger.expire(at(200_000)).len(), 5_000);
    assert!(!is_learned(&ledger, at(200_000), "192.0.2.1"));
}
