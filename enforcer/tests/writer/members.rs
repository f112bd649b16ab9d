//! The elements of objects, which stay as long as they are desired, beside leases of the same
//! elements.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clock::now;
use enforcer::writer::LeaseScope;
use enforcer::{DesiredState, Element, Enforcer, InstallError, Renewal};
use policy::ProgramId;

use crate::namespace::{guard, inside, kernel_holds, passes, patience, run, seconds, until};
use crate::programs::{ONE, TWO, desired, element, exact};

/// Program [`ONE`] with these members.
fn with(members: impl IntoIterator<Item = Element>) -> DesiredState {
    DesiredState {
        members: [(ONE, members.into_iter().collect())].into(),
        ..desired([ONE], 100)
    }
}

/// The elements of the exact set as nft prints them.
fn listing(program: ProgramId) -> String {
    run(
        "nft",
        &["list", "set", "inet", "namegate", &exact(program).to_string()],
        "",
    )
    .unwrap()
}

fn has_an_end(element: &Element) -> bool {
    let address = element.key.address.to_string();
    let listing = listing(element.set.program);
    let element = listing
        .split([',', '{', '}'])
        .find(|element| element.contains(&address));
    element.is_some_and(|element| element.contains("expires"))
}

#[test]
fn members_fill_new_sets_and_follow_in_sets_that_stay() {
    inside(|| async {
        let enforcer = Enforcer::start("namegate").unwrap();
        enforcer
            .install(with([element(ONE, 1), element(ONE, 2)]), Vec::new)
            .await
            .unwrap();
        assert!(kernel_holds(&element(ONE, 1)) && !has_an_end(&element(ONE, 1)));
        enforcer
            .install(with([element(ONE, 2), element(ONE, 3)]), Vec::new)
            .await
            .unwrap();
        let held = [1, 2, 3].map(|number| kernel_holds(&element(ONE, number)));
        assert_eq!(held, [false, true, true]);
        assert!(!has_an_end(&element(ONE, 3)));
        assert_eq!(enforcer.stats().elements, 2);
        enforcer.install(desired([ONE], 100), Vec::new).await.unwrap();
        assert_eq!(enforcer.stats().elements, 0);
        assert!(!kernel_holds(&element(ONE, 2)));
    });
}

#[test]
fn a_lease_does_not_shorten_a_member_and_takes_over_when_it_goes() {
    for renewal in [Renewal::Refresh, Renewal::Replace] {
        inside(|| async {
            let enforcer = Enforcer::start_with("namegate", renewal).unwrap();
            let generation = enforcer
                .install(with([element(ONE, 1), element(ONE, 2)]), Vec::new)
                .await
                .unwrap();
            let lease = vec![(element(ONE, 1), now() + seconds(60))];
            let _proof = enforcer.admit(generation, lease.clone(), patience()).await.unwrap();
            assert!(enforcer.already_admitted(generation, &lease, Duration::ZERO).is_some());
            assert!(!has_an_end(&element(ONE, 1)));
            assert_eq!(enforcer.stats().transactions, 0, "it is there, longer than asked");

            let ledger = lease.clone();
            let generation = enforcer.install(desired([ONE], 100), move || ledger).await.unwrap();
            assert!(kernel_holds(&element(ONE, 1)) && has_an_end(&element(ONE, 1)));
            assert!(!kernel_holds(&element(ONE, 2)), "nobody leased it");
            assert!(enforcer.already_admitted(generation, &lease, Duration::ZERO).is_some());
        });
    }
}

/// A ledger may hold hundreds of thousands of leases.
#[test]
fn of_a_change_of_members_the_ledger_is_asked_for_their_addresses_alone() {
    inside(|| async {
        let enforcer = Enforcer::start("namegate").unwrap();
        let scopes = Arc::new(Mutex::new(Vec::new()));
        let install = async |members: &[u16]| {
            let scopes = Arc::clone(&scopes);
            let members = members.iter().map(|number| element(ONE, *number));
            let ask = move |scope: &LeaseScope| {
                scopes.lock().unwrap().push(scope.clone());
                Vec::new()
            };
            enforcer.install_held(with(members), ask).await.unwrap();
        };
        let addresses = |numbers: &[u16]| LeaseScope::Some {
            tiers: BTreeSet::new(),
            addresses: numbers.iter().map(|number| element(ONE, *number).key.address).collect(),
        };
        install(&[1, 2]).await;
        assert_eq!(scopes.lock().unwrap().drain(..).as_slice(), [LeaseScope::Everything]);
        install(&[2, 3]).await;
        assert_eq!(scopes.lock().unwrap().drain(..).as_slice(), [addresses(&[1, 3])]);
    });
}

#[test]
fn a_leased_element_that_becomes_a_member_outlives_its_lease() {
    for renewal in [Renewal::Refresh, Renewal::Replace] {
        inside(|| async {
            let enforcer = Enforcer::start_with("namegate", renewal).unwrap();
            let generation = enforcer.install(desired([ONE], 100), Vec::new).await.unwrap();
            let lease = |number| (element(ONE, number), now() + seconds(1));
            let _proof = enforcer
                .admit(generation, vec![lease(1), lease(2)], patience())
                .await
                .unwrap();
            enforcer.install(with([element(ONE, 1)]), Vec::new).await.unwrap();
            assert!(!has_an_end(&element(ONE, 1)) && has_an_end(&element(ONE, 2)));
            until("the other lease ends", || !kernel_holds(&element(ONE, 2))).await;
            until("the mirror forgets it", || enforcer.stats().elements == 1).await;
            assert!(kernel_holds(&element(ONE, 1)));
        });
    }
}

#[test]
fn no_packet_meets_the_moment_between_member_and_lease() {
    inside(|| async {
        let enforcer = Enforcer::start("namegate").unwrap();
        let element = element(ONE, 1);
        enforcer.install(with([element]), Vec::new).await.unwrap();
        guard(&exact(ONE));
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let sender = std::thread::spawn(move || {
            let mut sent = 0u32;
            while !stopped.load(Relaxed) {
                assert!(passes(&socket, element.key.address, 443), "packet {sent}");
                sent += 1;
            }
            sent
        });
        for _ in 0..100 {
            let end = now() + seconds(60);
            enforcer
                .install(desired([ONE], 100), move || vec![(element, end)])
                .await
                .unwrap();
            enforcer.install(with([element]), Vec::new).await.unwrap();
        }
        stop.store(true, Relaxed);
        assert!(sender.join().unwrap() > 0);
    });
}

#[test]
fn another_process_adopts_members_and_removes_those_that_nobody_desires() {
    inside(|| async {
        let before = Enforcer::start("namegate").unwrap();
        before
            .install(with([element(ONE, 1), element(ONE, 2)]), Vec::new)
            .await
            .unwrap();
        drop(before);
        let after = Enforcer::start("namegate").unwrap();
        assert_eq!(after.stats().elements, 2);
        after.install(with([element(ONE, 2)]), Vec::new).await.unwrap();
        assert!(!kernel_holds(&element(ONE, 1)));
        assert!(kernel_holds(&element(ONE, 2)) && !has_an_end(&element(ONE, 2)));
        assert_eq!(after.stats().elements, 1);
    });
}

#[test]
fn a_member_without_a_set_is_refused_before_anything_changes() {
    inside(|| async {
        let enforcer = Enforcer::start("namegate").unwrap();
        let generation = enforcer.install(desired([ONE], 100), Vec::new).await.unwrap();
        let outcome = enforcer.install(with([element(TWO, 1)]), Vec::new).await;
        assert!(
            matches!(&outcome, Err(InstallError::Refused(text)) if text.contains(&exact(TWO).to_string())),
            "{outcome:?}"
        );
        assert_eq!(enforcer.generation(), generation);
    });
}

#[test]
fn ten_thousand_members_come_and_go() {
    inside(|| async {
        let enforcer = Enforcer::start("namegate").unwrap();
        let many = |numbers: std::ops::Range<u16>| DesiredState {
            capacity: 20_000.try_into().unwrap(),
            ..with(numbers.map(|number| element(ONE, number)))
        };
        enforcer.install(many(0..10_000), Vec::new).await.unwrap();
        assert_eq!(enforcer.stats().elements, 10_000);
        enforcer.install(many(5_000..15_000), Vec::new).await.unwrap();
        assert_eq!(enforcer.stats().elements, 10_000);
        let held = [4_999, 5_000, 14_999].map(|number| kernel_holds(&element(ONE, number)));
        assert_eq!(held, [false, true, true]);
    });
}
