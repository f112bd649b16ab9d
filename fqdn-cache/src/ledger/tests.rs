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

fn resolver() -> IpAddr {
    ip("10.96.0.10")
}

fn answer(text: &str, addresses: &[(&str, u64)]) -> Answer {
    Answer {
        name: name(text),
        addresses: addresses
            .iter()
            .map(|&(address, ttl)| (ip(address), secs(ttl)))
            .collect(),
        source: resolver(),
        terms: None,
    }
}

/// Leases are TTLs here: no bounds, no grace.
fn ledger(names: usize, addresses_per_name: usize) -> Ledger {
    let limits = Limits {
        names: NonZeroUsize::new(names).unwrap(),
        addresses_per_name: NonZeroUsize::new(addresses_per_name).unwrap(),
    };
    let terms = LeaseTerms {
        grace: Duration::ZERO,
        ..LeaseTerms::default()
    };
    Ledger::new(limits, terms)
}

fn held(ledger: &Ledger, now: Time) -> Vec<String> {
    ledger
        .entries(now)
        .map(|entry| format!("{} {}", entry.name, entry.address))
        .collect()
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
        Outcome {
            leases: vec![
                (ip("192.0.2.2"), at(160)),
                (ip("2001:db8::1"), at(130)),
                (ip("192.0.2.1"), at(160))
            ]
            .into(),
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
    assert_eq!(
        ledger.names_of(at(101), ip("192.0.2.1")),
        [&name("a.example"), &name("b.example")]
    );

    assert_eq!(ledger.next_deadline(), Some(at(111)));
    assert_eq!(ledger.names_of(at(111), ip("192.0.2.1")), [&name("b.example")]);
    assert_eq!(
        ledger.size(),
        (2, 4),
        "what has ended is no longer live, but still held"
    );
    assert_eq!(ledger.expire(at(111)), [(name("a.example"), ip("192.0.2.1"))]);
    assert_eq!(ledger.size(), (1, 3));
    assert_eq!(ledger.expire(at(159)), [(name("b.example"), ip("2001:db8::1"))]);
    assert!(ledger.is_learned(at(159), ip("192.0.2.1")));
    assert!(!ledger.is_learned(at(160), ip("192.0.2.1")));
    assert_eq!(ledger.expire(at(160)).len(), 2);
    assert_eq!((ledger.size(), ledger.next_deadline()), ((0, 0), None));
}

#[test]
fn a_name_may_have_terms_of_its_own() {
    let mut ledger = ledger(10, 10);
    let terms = LeaseTerms {
        min_ttl: secs(60),
        grace: secs(5),
        ..LeaseTerms::default()
    };
    let own = Answer {
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
        let shown = |it: &Ended| format!("{} {} {}", it.name, it.address, it.at.as_millis() / 1_000);
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
        (entry.learned, entry.expires, entry.source),
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
    assert!(!ledger.is_learned(at(3), ip("192.0.2.2")));
    assert_eq!(ledger.size(), (2, 2));
    assert_eq!(ledger.next_deadline(), Some(at(102)));
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
    assert!(!ledger.is_learned(at(1), ip("192.0.2.2")));

    let many: Vec<(String, u64)> = (1..=20).map(|host| (format!("198.51.100.{host}"), host)).collect();
    let many: Vec<(&str, u64)> = many.iter().map(|(address, ttl)| (address.as_str(), *ttl)).collect();
    let outcome = ledger.learn(at(2), &answer("many.example", &many));
    assert_eq!(outcome.leases.len(), 20, "every address of the answer has a lease");
    assert_eq!(outcome.evicted_addresses, 18);
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
    assert_eq!(outcome.leases.len(), 2);
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
    assert_eq!(ledger.names_of(at(10_000), ip("192.0.2.1")).len(), 5_000);
    assert_eq!(ledger.expire(at(200_000)).len(), 5_000);
    assert!(!ledger.is_learned(at(200_000), ip("192.0.2.1")));
}

/// The ledger as a list: what it must do, at any cost.
struct Model {
    limits: (usize, usize),
    /// Name, address, learned, expires, source.
    leases: Vec<(Name, IpAddr, Time, Time, IpAddr)>,
    /// The most recently learned last.
    order: Vec<Name>,
}

impl Model {
    fn learn(&mut self, now: Time, answer: &Answer) -> Outcome {
        for &(address, ttl) in &answer.addresses {
            self.order.retain(|name| *name != answer.name);
            self.order.push(answer.name.clone());
            let mut expires = now + ttl;
            if let Some(at) = self.position(&answer.name, address) {
                expires = expires.max(self.leases.remove(at).3);
            }
            self.leases
                .push((answer.name.clone(), address, now, expires, answer.source));
        }
        let leases = answer
            .addresses
            .iter()
            .map(|&(address, _)| (address, self.leases[self.position(&answer.name, address).unwrap()].3))
            .collect();

        let mut evicted_addresses = 0;
        let of_name = |model: &Self| model.leases.iter().filter(|(name, ..)| *name == answer.name).count();
        if of_name(self) > self.limits.1 {
            self.leases
                .retain(|(name, _, _, expires, _)| *name != answer.name || *expires > now);
            while of_name(self) > self.limits.1 {
                let (_, _, first) = self
                    .leases
                    .iter()
                    .filter(|(name, ..)| *name == answer.name)
                    .map(|(_, address, learned, expires, _)| (*expires, *learned, *address))
                    .min()
                    .unwrap();
                self.leases.remove(self.position(&answer.name, first).unwrap());
                evicted_addresses += 1;
            }
            self.forget_empty();
        }
        Outcome {
            leases,
            evicted_addresses,
        }
    }

    fn evict(&mut self, now: Time) -> Vec<Name> {
        if self.order.len() > self.limits.0 {
            self.expire(now);
        }
        let beyond = self.order.len().saturating_sub(self.limits.0);
        let evicted: Vec<Name> = self.order.drain(..beyond).collect();
        self.leases.retain(|(name, ..)| !evicted.contains(name));
        evicted
    }

    fn expire(&mut self, now: Time) -> BTreeSet<(Name, IpAddr)> {
        let ended = |lease: &&(Name, IpAddr, Time, Time, IpAddr)| lease.3 <= now;
        let dropped = self.leases.iter().filter(ended).map(|l| (l.0.clone(), l.1)).collect();
        self.leases.retain(|lease| !ended(&lease));
        self.forget_empty();
        dropped
    }

    fn forget_empty(&mut self) {
        self.order
            .retain(|name| self.leases.iter().any(|lease| lease.0 == *name));
    }

    fn position(&self, name: &Name, address: IpAddr) -> Option<usize> {
        self.leases
            .iter()
            .position(|lease| lease.0 == *name && lease.1 == address)
    }

    fn live(&self, now: Time) -> Vec<(Name, IpAddr, Time, Time, IpAddr)> {
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
    },
    Wait(u64),
    Evict,
    Expire,
}

/// Few names, few addresses of both families, and limits small enough to be met all the time.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let learn =
        (0..8_u8, prop::collection::vec((0..8_u8, 0..40_u64), 0..6), 0..3_u8).prop_map(|(name, addresses, source)| {
            Step::Learn {
                name,
                addresses,
                source,
            }
        });
    let step = prop_oneof![
        6 => learn,
        2 => (0..20_u64).prop_map(Step::Wait),
        4 => Just(Step::Evict),
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_ledger_agrees_with_a_list(steps in steps(), names in 1..6_usize, addresses in 1..5_usize) {
        let mut ledger = ledger(names, addresses);
        let mut model = Model { limits: (names, addresses), leases: Vec::new(), order: Vec::new() };
        let mut now = at(1_000);
        for step in steps {
            match step {
                Step::Learn { name: number, addresses, source } => {
                    let answer = Answer {
                        name: name(&format!("n{number}.example")),
                        addresses: addresses.iter().map(|&(number, ttl)| (host(number), secs(ttl))).collect(),
                        source: host(source),
                        terms: None,
                    };
                    prop_assert_eq!(ledger.learn(now, &answer), model.learn(now, &answer));
                }
                Step::Wait(pause) => now = now + secs(pause),
                Step::Evict => prop_assert_eq!(ledger.evict(now), model.evict(now)),
                Step::Expire => {
                    let dropped = ledger.expire(now);
                    let count = dropped.len();
                    let dropped: BTreeSet<(Name, IpAddr)> = dropped.into_iter().collect();
                    prop_assert_eq!(dropped.len(), count, "each once");
                    prop_assert_eq!(dropped, model.expire(now));
                }
            }
            let live = model.live(now);
            let entries: Vec<_> =
                ledger.entries(now).map(|e| (e.name.clone(), e.address, e.learned, e.expires, e.source)).collect();
            prop_assert_eq!(&entries, &live);
            prop_assert_eq!(ledger.size(), (model.order.len(), model.leases.len()));
            prop_assert_eq!(ledger.next_deadline(), model.leases.iter().map(|lease| lease.3).min());
            for number in 0..8 {
                let holders: Vec<&Name> = live.iter().filter(|lease| lease.1 == host(number)).map(|lease| &lease.0).collect();
                prop_assert_eq!(ledger.is_learned(now, host(number)), !holders.is_empty());
                prop_assert_eq!(ledger.names_of(now, host(number)), holders);
                let of_name = name(&format!("n{number}.example"));
                let addresses: Vec<IpAddr> = ledger.addresses(now, &of_name).map(|entry| entry.address).collect();
                let expected: Vec<IpAddr> = live.iter().filter(|lease| lease.0 == of_name).map(|lease| lease.1).collect();
                prop_assert_eq!(addresses, expected);
            }
        }
    }
}
