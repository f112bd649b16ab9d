//! What the leases of a ledger open under a plan.

use std::num::NonZeroU32;
use std::time::Duration;

use clock::Time;
use enforcer::writer::{Holder, LeaseScope};
use fqdn_cache::{LearnedAnswer, LeaseOwner, Ledger};

use super::*;

#[test]
fn what_a_private_resolver_says_changes_no_lease_that_others_have() {
    let settings = settings();
    let objects = |with_own: bool| {
        let own = if with_own {
            format!("{OWN_RESOLVER}, ")
        } else {
            String::new()
        };
        [
            pod("a", "10.0.0.1"),
            pod("b", "10.0.0.2"),
            policy_of(
                "a",
                &format!("{own}{}", names("{matchName: x.example}, {matchName: a.example}")),
            ),
            allow("b", "x.example"),
        ]
    };
    let with_own = plan_with(&objects(true), &settings);
    let mut ledger = Ledger::new(settings.limits, settings.lease);
    let (now, seconds) = (Time::from_millis(0), Duration::from_secs);
    for (source, address, ttl) in [
        ("192.0.2.53", "198.51.100.1", 60),
        ("203.0.113.53", "198.51.100.1", 86_400),
        ("203.0.113.53", "198.51.100.2", 86_400),
    ] {
        let answer = LearnedAnswer {
            name: name("x.example"),
            addresses: vec![(ip(address), seconds(ttl))].into(),
            teacher: with_own.teacher(ip(source)),
            owner: LeaseOwner(1),
            terms: None,
        };
        ledger.learn(now, &answer);
    }
    let ends = |plan: &Plan, pod: &str| -> Vec<(IpAddr, Time)> {
        let elements = plan.all_elements(&ledger, now);
        let program = &plan.desired.programs[&program(plan, pod)];
        let own = elements.into_iter().filter(|(element, ..)| looks_up(program, element));
        own.map(|(element, end, _)| (element.key.address, end)).collect()
    };
    let (short, long) = (
        now + settings.lease.lease(seconds(60)),
        now + settings.lease.lease(seconds(86_400)),
    );
    assert_eq!(
        ends(&with_own, "10.0.0.2"),
        [(ip("198.51.100.1"), short)],
        "not lengthened"
    );
    assert_eq!(
        ends(&with_own, "10.0.0.1"),
        [(ip("198.51.100.1"), long), (ip("198.51.100.2"), long)]
    );
    for settings in [settings.clone(), tproxy()] {
        let without = plan_with(&objects(false), &settings);
        for pod in ["10.0.0.1", "10.0.0.2"] {
            assert_eq!(
                ends(&without, pod),
                [(ip("198.51.100.1"), short)],
                "what it alone taught is closed, no more"
            );
        }
    }
}

#[test]
fn the_ledger_opens_what_the_plan_in_force_says_until_the_last_lease_ends() {
    let settings = settings();
    let objects = [
        pod("a", "10.0.0.1"),
        policy_of("a", &names("{matchName: a.example}, {matchName: b.example}")),
    ];
    let plan = plan_with(&objects, &settings);
    let mut ledger = Ledger::new(settings.limits, settings.lease);
    let now = Time::from_millis(0);
    let mut learn = |learned: &str, address: &str, seconds: u64, source: &str| {
        let answer = LearnedAnswer {
            name: name(learned),
            addresses: vec![(ip(address), Duration::from_secs(seconds))].into(),
            teacher: plan.teacher(ip(source)),
            owner: LeaseOwner(1),
            terms: None,
        };
        ledger.learn(now, &answer);
    };
    learn("a.example", "198.51.100.1", 60, "192.0.2.53");
    learn("b.example", "198.51.100.1", 600, "192.0.2.53");
    learn("a.example", "198.51.100.2", 60, "203.0.113.99");
    learn("b.example", "10.0.0.1", 60, "192.0.2.53");
    learn("z.example", "198.51.100.3", 60, "192.0.2.53");
    let elements: Vec<_> = plan
        .all_elements(&ledger, now)
        .into_iter()
        .map(|(element, end, _)| (element.key.address, element.key.port.map(|(_, port)| port), end))
        .collect();
    let end = now + settings.lease.lease(Duration::from_secs(600));
    assert_eq!(
        elements,
        // The port is the program's to test.
        [(ip("198.51.100.1"), None, end)],
        "neither from a server that is not known, nor a pod's address, nor a name that nobody selects"
    );
}

#[test]
fn what_one_pod_has_learned_leaves_room_for_the_others_and_is_never_built_whole() {
    let settings = Settings {
        capacity: NonZeroU32::new(1_000).unwrap(),
        ..settings()
    };
    let allowed = names("{matchPattern: '*.example'}");
    let plan = plan_with(
        &[
            pod("a", "10.0.0.1"),
            policy_of("a", &allowed),
            pod("b", "10.0.0.2"),
            policy_of("b", &allowed),
        ],
        &settings,
    );
    let mut ledger = Ledger::new(settings.limits, settings.lease);
    let now = Time::from_millis(0);
    for number in (0..50_000u32).chain(100_000..100_010) {
        let own = u32::from(number < 100_000);
        let answer = LearnedAnswer {
            name: name(&format!("n{number}.example")),
            addresses: vec![(
                IpAddr::from((number + (203 << 24)).to_be_bytes()),
                Duration::from_secs(60),
            )]
            .into(),
            teacher: plan.teacher(ip("192.0.2.53")),
            owner: LeaseOwner(own),
            terms: None,
        };
        ledger.learn(now, &answer);
    }
    let elements = plan.all_elements(&ledger, now);
    assert_eq!(elements.len(), 1_000);
    assert_eq!(elements.iter().filter(|(.., holder)| *holder == Holder(0)).count(), 10);
}

#[test]
fn of_some_addresses_and_of_some_tiers_the_ledger_opens_what_it_opens_of_everything() {
    let settings = settings();
    let plan = plan_with(
        &[
            pod("a", "10.0.0.1"),
            policy_of("a", &names("{matchPattern: '*.example'}")),
            pod("b", "10.0.0.2"),
            policy_of("b", &names("{matchName: n1.example}")),
        ],
        &settings,
    );
    let mut ledger = Ledger::new(settings.limits, settings.lease);
    let now = Time::from_millis(0);
    for number in 0..4_u8 {
        let addresses = [number, number + 1].map(|last| (IpAddr::from([203, 0, 113, last]), Duration::from_secs(60)));
        let answer = LearnedAnswer {
            name: name(&format!("n{number}.example")),
            addresses: addresses.into_iter().collect(),
            teacher: plan.teacher(ip("192.0.2.53")),
            owner: LeaseOwner(1),
            terms: None,
        };
        ledger.learn(now, &answer);
    }
    let all = plan.all_elements(&ledger, now);
    let of_some = |addresses: &[u8], tiers: &[ProgramId]| {
        let addresses: BTreeSet<IpAddr> = addresses
            .iter()
            .map(|last| IpAddr::from([203, 0, 113, *last]))
            .collect();
        let tiers: BTreeSet<ProgramId> = tiers.iter().copied().collect();
        let is_asked =
            |element: &Element| addresses.contains(&element.key.address) || tiers.contains(&element.set.program);
        let mut expected = all.clone();
        expected.retain(|(element, ..)| is_asked(element));
        let scope = LeaseScope::Some { tiers, addresses };
        assert_eq!(plan.elements_in(&ledger, &scope, now), expected);
        expected.len()
    };
    let programs = plan.desired.programs.values();
    let tiers: Vec<ProgramId> = programs
        .flat_map(|program| program.enforced.looked_up().filter(|id| *id != program.enforced.id))
        .collect();
    assert_eq!(of_some(&[], &[]), 0);
    assert!((1..all.len()).contains(&of_some(&[1, 9], &[])));
    assert!((1..all.len()).contains(&of_some(&[], &tiers[..1])));
    assert_eq!(of_some(&[0], &tiers), all.len());
}
