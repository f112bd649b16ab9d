use std::collections::BTreeSet;

use proptest::prelude::*;

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
fn an_answer_without_addresses_changes_nothing() {
    let mut ledger = ledger(1, 1);
    ledger.learn(at(0), &answer("a.example", &[("192.0.2.1", 10)]));
    ledger.learn(at(1), &answer("b.example", &[]));
    assert_eq!(ledger.evict(at(1)), []);
    assert_eq!(held(&ledger, at(1)), ["a.example 192.0.2.1"]);
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
        assert_eq!(
            ledger.addresses(at(1_000), &super::tests::name(name)).count(),
            1,
            "{name}"
        );
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
    assert_eq!(
        ledger.addresses(at(2_000), &super::tests::name("n950.example")).count(),
        1
    );
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

/// The ledger as a list: what it must do, at any cost.
struct Model {
    limits: (usize, usize),
    /// Record, address, learned, expires, teacher.
    leases: Vec<(Key, IpAddr, Time, Time, Teacher)>,
    /// The most recently learned last.
    order: Vec<(Key, LeaseOwner)>,
}

/// A name, and who has leases of his own for it.
type Key = (Name, Option<Teacher>);

fn key(name: &Name, teacher: Teacher) -> Key {
    (
        name.clone(),
        Some(teacher).filter(|teacher| matches!(teacher, Teacher::Private(_))),
    )
}

impl Model {
    fn learn(&mut self, now: Time, answer: &LearnedAnswer) -> LearnOutcome {
        let key = key(&answer.name, answer.teacher);
        if !answer.addresses.is_empty() {
            let owner = self
                .order
                .iter()
                .find(|(held, _)| *held == key)
                .map(|(_, owner)| *owner);
            let owner = owner.filter(|owner| self.leases_of(answer.owner) >= self.leases_of(*owner));
            self.order.retain(|(held, _)| *held != key);
            self.order.push((key.clone(), owner.unwrap_or(answer.owner)));
        }
        for &(address, ttl) in &answer.addresses {
            let mut expires = now + ttl;
            if let Some(at) = self.position(&key, address) {
                expires = expires.max(self.leases.remove(at).3);
            }
            self.leases.push((key.clone(), address, now, expires, answer.teacher));
        }
        let mut evicted_addresses = 0;
        let of_name = |model: &Self| model.leases.iter().filter(|(of, ..)| *of == key).count();
        if of_name(self) > self.limits.1 {
            self.leases
                .retain(|(of, _, _, expires, _)| *of != key || *expires > now);
            while of_name(self) > self.limits.1 {
                let (_, _, first) = self
                    .leases
                    .iter()
                    .filter(|(of, ..)| *of == key)
                    .map(|(_, address, learned, expires, _)| (*expires, *learned, *address))
                    .min()
                    .unwrap();
                self.leases.remove(self.position(&key, first).unwrap());
                if !answer.addresses.iter().any(|(address, _)| *address == first) {
                    evicted_addresses += 1;
                }
            }
            self.forget_empty();
        }
        let expires = |address| Some((address, self.leases[self.position(&key, address)?].3));
        let answered: BTreeSet<IpAddr> = answer.addresses.iter().map(|(address, _)| *address).collect();
        let left_out = answered.iter().filter(|address| expires(**address).is_none()).count();
        LearnOutcome {
            leases: answer
                .addresses
                .iter()
                .filter_map(|(address, _)| expires(*address))
                .collect(),
            left_out,
            evicted_addresses,
        }
    }

    fn evict(&mut self, now: Time) -> Vec<Name> {
        if self.order.len() > self.limits.0 {
            self.expire(now);
        }
        let mut evicted = Vec::new();
        while self.order.len() > self.limits.0 {
            let owners = self.order.iter().map(|(_, owner)| *owner);
            let most = owners.max_by_key(|owner| (self.leases_of(*owner), *owner)).unwrap();
            let oldest = self.order.iter().position(|(_, owner)| *owner == most).unwrap();
            let (key, _) = self.order.remove(oldest);
            self.leases.retain(|(of, ..)| *of != key);
            evicted.push(key.0);
        }
        evicted
    }

    fn leases_of(&self, owner: LeaseOwner) -> usize {
        let is_owned = |key: &Key| self.order.iter().any(|(held, by)| held == key && *by == owner);
        self.leases.iter().filter(|(key, ..)| is_owned(key)).count()
    }

    fn expire(&mut self, now: Time) -> Vec<(Name, IpAddr)> {
        let ended = |lease: &&(Key, IpAddr, Time, Time, Teacher)| lease.3 <= now;
        let mut dropped: Vec<_> = self.leases.iter().filter(ended).map(|l| (l.0.0.clone(), l.1)).collect();
        dropped.sort_unstable();
        self.leases.retain(|lease| !ended(&lease));
        self.forget_empty();
        dropped
    }

    fn forget_empty(&mut self) {
        self.order
            .retain(|(key, _)| self.leases.iter().any(|lease| lease.0 == *key));
    }

    fn position(&self, key: &Key, address: IpAddr) -> Option<usize> {
        self.leases
            .iter()
            .position(|lease| lease.0 == *key && lease.1 == address)
    }

    fn live(&self, now: Time) -> Vec<(Key, IpAddr, Time, Time, Teacher)> {
        let mut live: Vec<_> = self.leases.iter().filter(|lease| lease.3 > now).cloned().collect();
        live.sort();
        live
    }
}

#[derive(Debug, Clone)]
enum Step {
    Learn {
        name: u8,
        addresses: Vec<(u8, u64)>,
        source: u8,
        owner: u8,
    },
    /// That an address of a name was not opened after all.
    Retract(u8, u8, u8),
    Wait(u64),
    Evict,
    Expire,
}

/// Few names, few addresses of both families, and limits small enough to be met all the time.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let addresses = prop::collection::vec((0..8_u8, 0..40_u64), 0..6);
    let learn = (0..8_u8, addresses, 0..4_u8, 0..3_u8).prop_map(|(name, addresses, source, owner)| Step::Learn {
        name,
        addresses,
        source,
        owner,
    });
    let step = prop_oneof![
        6 => learn,
        2 => (0..20_u64).prop_map(Step::Wait),
        4 => Just(Step::Evict),
        1 => (0..8_u8, 0..8_u8, 0..4_u8).prop_map(|(name, address, source)| Step::Retract(name, address, source)),
        1 => Just(Step::Expire),
    ];
    prop::collection::vec(step, 0..60)
}

fn host(number: u8) -> IpAddr {
    if number.is_multiple_of(2) {
        ip(&format!("192.0.2.{number}"))
    } else {
        ip(&format!("2001:db8::{number}"))
    }
}

/// Two that are trusted, two that are not.
fn teacher(number: u8) -> Teacher {
    match number {
        0 | 1 => Teacher::Trusted(host(number)),
        _ => Teacher::Private(host(number)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_ledger_agrees_with_a_list(steps in steps(), names in 1..6_usize, addresses in 1..5_usize) {
        let mut ledger = ledger(names, addresses);
        let mut model = Model { limits: (names, addresses), leases: Vec::new(), order: Vec::new() };
        let mut now = at(1_000);
        for step in steps {
            match step {
                Step::Retract(number, address, source) => {
                    let name = name(&format!("n{number}.example"));
                    ledger.retract(&name, teacher(source), host(address));
                    model.leases.retain(|lease| (&lease.0, lease.1) != (&key(&name, teacher(source)), host(address)));
                    model.forget_empty();
                }
                Step::Learn { name: number, addresses, source, owner } => {
                    let answer = LearnedAnswer {
                        name: name(&format!("n{number}.example")),
                        addresses: addresses.iter().map(|&(number, ttl)| (host(number), secs(ttl))).collect(),
                        teacher: teacher(source),
                        owner: LeaseOwner(owner.into()),
                        terms: None,
                    };
                    prop_assert_eq!(ledger.learn(now, &answer), model.learn(now, &answer));
                }
                Step::Wait(pause) => now = now + secs(pause),
                Step::Evict => prop_assert_eq!(ledger.evict(now), model.evict(now)),
                Step::Expire => {
                    let mut dropped = ledger.expire(now);
                    dropped.sort_unstable();
                    prop_assert_eq!(dropped, model.expire(now));
                }
            }
            let live = model.live(now);
            let mut fairly: Vec<_> = ledger
                .fairly(now)
                .map(|(_, e)| (key(e.name, e.teacher), e.address, e.learned, e.expires, e.teacher))
                .collect();
            fairly.sort_unstable();
            prop_assert_eq!(&fairly, &live);
            let entries: Vec<_> =
                ledger.entries(now).map(|e| (key(e.name, e.teacher), e.address, e.learned, e.expires, e.teacher)).collect();
            prop_assert_eq!(&entries, &live);
            prop_assert_eq!(ledger.size(), (model.order.len(), model.leases.len()));
            prop_assert_eq!(ledger.next_deadline(), model.leases.iter().map(|lease| lease.3).min());
            for number in 0..8 {
                let mut holders: Vec<(&Name, Teacher)> =
                    live.iter().filter(|lease| lease.1 == host(number)).map(|lease| (&lease.0.0, lease.4)).collect();
                holders.sort_unstable();
                for who in 0..4 {
                    let by_one = holders.iter().any(|(_, held)| *held == teacher(who));
                    prop_assert_eq!(ledger.is_learned(now, host(number), |it| it == teacher(who)), by_one);
                }
                let found: Vec<(&Name, Teacher)> =
                    ledger.holders(now, host(number)).iter().map(|entry| (entry.name, entry.teacher)).collect();
                prop_assert_eq!(found, holders);
                let of_name = name(&format!("n{number}.example"));
                let mut addresses: Vec<(IpAddr, Teacher)> =
                    ledger.addresses(now, &of_name).map(|entry| (entry.address, entry.teacher)).collect();
                let mut expected: Vec<(IpAddr, Teacher)> =
                    live.iter().filter(|lease| lease.0.0 == of_name).map(|lease| (lease.1, lease.4)).collect();
                addresses.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(addresses, expected);
            }
        }
    }
}
