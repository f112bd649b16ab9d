//! What a lease is: how long it lives, and whose it is.

use super::*;

#[test]
fn what_a_private_server_says_of_a_name_has_leases_of_its_own() {
    let mut ledger = ledger(10, 10);
    let private = |number: u8, addresses: &[(&str, u64)]| LearnedAnswer {
        teacher: Teacher::Private([203, 0, 113, number].into()),
        ..answer("a.example", addresses)
    };
    ledger.learn(at(0), &answer("a.example", &[("192.0.2.1", 90)]));
    let of_one = ledger.learn(at(1), &private(1, &[("192.0.2.1", 86_400), ("192.0.2.2", 60)]));
    let of_other = ledger.learn(at(2), &private(2, &[("192.0.2.1", 10)]));
    assert_eq!(of_one.leases[0], (ip("192.0.2.1"), at(86_401)));
    assert_eq!(
        of_other.leases[0],
        (ip("192.0.2.1"), at(12)),
        "nor is it lengthened by another's"
    );
    let mut other_resolver = answer("a.example", &[("192.0.2.1", 20)]);
    other_resolver.teacher = Teacher::Trusted(ip("10.96.0.11"));
    assert_eq!(
        ledger.learn(at(3), &other_resolver).leases[..],
        [(ip("192.0.2.1"), at(90))]
    );

    let held: Vec<_> = ledger.addresses(at(3), &name("a.example")).collect();
    let shown: Vec<_> = held.iter().map(|it| (it.address, it.expires, it.teacher)).collect();
    let [one, other] = [1, 2].map(|number| Teacher::Private([203, 0, 113, number].into()));
    assert_eq!(
        shown,
        [
            (ip("192.0.2.1"), at(90), other_resolver.teacher),
            (ip("192.0.2.1"), at(86_401), one),
            (ip("192.0.2.2"), at(61), one),
            (ip("192.0.2.1"), at(12), other),
        ]
    );
    assert!(ledger.is_learned(at(90), ip("192.0.2.1"), |teacher| teacher == one));
    assert!(!ledger.is_learned(at(90), ip("192.0.2.1"), |teacher| teacher != one));
    assert_eq!(ledger.size(), (3, 4));
}

#[test]
fn an_answer_is_held_until_its_leases_end_each_by_itself() {
    let mut ledger = ledger(10, 10);
    let outcome = ledger.learn(
        at(100),
        &answer(
            "b.example",
            &[("192.0.2.2", 60), ("2001:db8::1", 30), ("192.0.2.1", 60)],
        ),
    );
    assert_eq!(
        outcome,
        LearnOutcome {
            leases: vec![
                (ip("192.0.2.2"), at(160)),
                (ip("2001:db8::1"), at(130)),
                (ip("192.0.2.1"), at(160))
            ]
            .into(),
            left_out: 0,
            evicted_addresses: 0
        }
    );
    ledger.learn(at(101), &answer("a.example", &[("192.0.2.1", 10)]));
    assert_eq!(
        held(&ledger, at(101)),
        [
            "a.example 192.0.2.1",
            "b.example 192.0.2.1",
            "b.example 192.0.2.2",
            "b.example 2001:db8::1"
        ]
    );
    assert_eq!(names_of(&ledger, at(101), "192.0.2.1"), ["a.example", "b.example"]);

    assert_eq!(ledger.next_deadline(), Some(at(111)));
    assert_eq!(names_of(&ledger, at(111), "192.0.2.1"), ["b.example"]);
    assert_eq!(
        ledger.size(),
        (2, 4),
        "what has ended is no longer live, but still held"
    );
    assert_eq!(ledger.expire(at(111)), [(name("a.example"), ip("192.0.2.1"))]);
    assert_eq!(ledger.size(), (1, 3));
    assert_eq!(ledger.expire(at(159)), [(name("b.example"), ip("2001:db8::1"))]);
    assert!(is_learned(&ledger, at(159), "192.0.2.1"));
    assert!(!is_learned(&ledger, at(160), "192.0.2.1"));
    assert_eq!(ledger.expire(at(160)).len(), 2);
    assert_eq!((ledger.size(), ledger.next_deadline()), ((0, 0), None));
}

#[test]
fn a_name_may_have_terms_of_its_own() {
    let mut ledger = ledger(10, 10);
    let terms = LeaseTiming {
        min_ttl: secs(60),
        grace: secs(5),
        ..LeaseTiming::default()
    };
    let own = LearnedAnswer {
        terms: Some(terms),
        ..answer("a.example", &[("192.0.2.1", 10)])
    };
    assert_eq!(ledger.learn(at(0), &own).leases[..], [(ip("192.0.2.1"), at(65))]);
    let others = ledger.learn(at(0), &answer("b.example", &[("192.0.2.1", 10)]));
    assert_eq!(others.leases[..], [(ip("192.0.2.1"), at(10))]);
}

#[test]
fn what_has_ended_is_remembered_until_it_is_learned_again() {
    let mut ledger = ledger(10, 10);
    ledger.learn(at(0), &answer("a.example", &[("192.0.2.1", 10), ("192.0.2.2", 60)]));
    ledger.learn(at(0), &answer("b.example", &[("192.0.2.1", 20)]));
    assert_eq!(ledger.ended(at(5)).count(), 0);
    ledger.expire(at(10));
    ledger.expire(at(20));
    let ended = |ledger: &Ledger, now| -> Vec<String> {
        let shown = |it: &EndedLease| format!("{} {} {}", it.name, it.address, it.at.as_millis() / 1_000);
        ledger.ended(now).map(shown).collect()
    };
    assert_eq!(
        ended(&ledger, at(30)),
        ["b.example 192.0.2.1 20", "a.example 192.0.2.1 10"]
    );
    ledger.learn(at(30), &answer("a.example", &[("192.0.2.1", 10)]));
    assert_eq!(ended(&ledger, at(30)), ["b.example 192.0.2.1 20"]);
}

#[test]
fn learning_again_extends_a_lease_and_never_shortens_it() {
    let mut ledger = ledger(10, 10);
    ledger.learn(at(0), &answer("a.example", &[("192.0.2.1", 100)]));
    let shorter = ledger.learn(at(50), &answer("a.example", &[("192.0.2.1", 10)]));
    assert_eq!(shorter.leases[..], [(ip("192.0.2.1"), at(100))]);
    let entry = ledger.addresses(at(50), &name("a.example")).next().unwrap();
    assert_eq!(
        (entry.learned, entry.expires, entry.teacher),
        (at(50), at(100), resolver())
    );
    let longer = ledger.learn(at(60), &answer("a.example", &[("192.0.2.1", 100)]));
    assert_eq!(longer.leases[..], [(ip("192.0.2.1"), at(160))]);
    assert_eq!(ledger.next_deadline(), Some(at(160)));
}

#[test]
fn an_address_that_an_answer_repeats_has_the_longest_of_its_leases() {
    let mut ledger = ledger(10, 10);
    let outcome = ledger.learn(at(0), &answer("a.example", &[("192.0.2.1", 10), ("192.0.2.1", 20)]));
    assert_eq!(
        outcome.leases[..],
        [(ip("192.0.2.1"), at(20)), (ip("192.0.2.1"), at(20))]
    );
    assert_eq!(ledger.size(), (1, 1));
}

#[test]
fn an_answer_without_addresses_changes_nothing() {
    let mut ledger = ledger(1, 1);
    ledger.learn(at(0), &answer("a.example", &[("192.0.2.1", 10)]));
    ledger.learn(at(1), &answer("b.example", &[]));
    assert_eq!(ledger.evict(at(1)), []);
    assert_eq!(held(&ledger, at(1)), ["a.example 192.0.2.1"]);
}

#[test]
fn a_lease_of_no_length_is_never_live() {
    let mut ledger = ledger(2, 1);
    let outcome = ledger.learn(at(5), &answer("a.example", &[("192.0.2.1", 0), ("192.0.2.2", 0)]));
    assert_eq!(
        (outcome.leases.len(), outcome.left_out),
        (0, 2),
        "more than fit, and none of them lives"
    );
    assert_eq!(held(&ledger, at(5)), [] as [&str; 0]);
    assert_eq!(ledger.size(), (0, 0));
}
