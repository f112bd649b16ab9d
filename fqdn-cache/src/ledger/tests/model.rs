//! The ledger beside a model of it, through random steps.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// A ledger that is a list, and obviously right.
struct LedgerModel {
    limits: (usize, usize),
    leases: Vec<ModelLease>,
    /// Names with their owners, the most recently learned last.
    order: Vec<(ModelKey, LeaseOwner)>,
}

/// A name, and the private teacher that its leases are bound to.
type ModelKey = (Name, Option<Teacher>);

/// Key, address, when it was learned, when it ends, teacher.
type ModelLease = (ModelKey, IpAddr, Time, Time, Teacher);

fn key(name: &Name, teacher: Teacher) -> ModelKey {
    (
        name.clone(),
        Some(teacher).filter(|teacher| matches!(teacher, Teacher::Private(_))),
    )
}

impl LedgerModel {
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
            let most = owners.max_by_key(|owner| (self.weight_of(*owner), *owner)).unwrap();
            let oldest = self.order.iter().position(|(_, owner)| *owner == most).unwrap();
            let (key, _) = self.order.remove(oldest);
            self.leases.retain(|(of, ..)| *of != key);
            evicted.push(key.0);
        }
        evicted
    }

    /// Four leases take as much as a name of 64 octets.
    fn weight_of(&self, owner: LeaseOwner) -> usize {
        let names = self.order.iter().filter(|(_, by)| *by == owner);
        let octets: usize = names.map(|(key, _)| key.0.as_str().len()).sum();
        self.leases_of(owner) + octets / 16
    }

    fn leases_of(&self, owner: LeaseOwner) -> usize {
        let is_owned = |key: &ModelKey| self.order.iter().any(|(held, by)| held == key && *by == owner);
        self.leases.iter().filter(|(key, ..)| is_owned(key)).count()
    }

    fn expire(&mut self, now: Time) -> Vec<(Name, IpAddr)> {
        let ended = |lease: &&ModelLease| lease.3 <= now;
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

    fn position(&self, key: &ModelKey, address: IpAddr) -> Option<usize> {
        self.leases
            .iter()
            .position(|lease| lease.0 == *key && lease.1 == address)
    }

    fn live(&self, now: Time) -> Vec<ModelLease> {
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
    /// An address of a name was not opened after all: name, address, teacher.
    Retract(u8, u8, u8),
    Wait(u64),
    Evict,
    Expire,
}

/// Few names and addresses of both families, so that the limits are met all the time.
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

/// Teachers 0 and 1 are trusted, the others private.
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
        let mut model = LedgerModel { limits: (names, addresses), leases: Vec::new(), order: Vec::new() };
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
