//! Admissions: what the kernel holds when they return.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use clock::{Time, now};
use enforcer::layout::IpFamily;
use enforcer::writer::{AdmissionRequest, Generation, Holder};
use enforcer::{AdmitError, Element, ElementKey, Enforcer, Renewal};
use tokio::sync::oneshot;

use crate::namespace::{guard, inside, kernel_holds, listed, passes, patience, seconds, until};
use crate::programs::{ONE, TWO, desired, element, exact, group, whole};

/// An enforcer with program [`ONE`] installed.
async fn installed(capacity: u32) -> (Enforcer, Generation) {
    let enforcer = Enforcer::start("namegate").unwrap();
    let generation = enforcer.install(desired([ONE], capacity), Vec::new).await.unwrap();
    (enforcer, generation)
}

fn lease(elements: impl IntoIterator<Item = Element>, life: Duration) -> Vec<(Element, Time)> {
    elements.into_iter().map(|element| (element, now() + life)).collect()
}

#[test]
fn an_admitted_element_is_in_the_kernel_until_the_end_of_its_lease() {
    inside(|| async {
        let (enforcer, generation) = installed(100).await;
        let elements = lease(
            [element(ONE, 1), whole(ONE, "10.99.0.2"), whole(ONE, "fd99::3")],
            seconds(60),
        );
        assert!(
            enforcer
                .already_admitted(generation, &elements, Duration::ZERO)
                .is_none()
        );
        let _proof = enforcer.admit(generation, elements.clone(), patience()).await.unwrap();

        for (set, value) in [
            (exact(ONE), "10.99.0.1.udp.443"),
            (group(ONE, IpFamily::V4), "10.99.0.2"),
            (group(ONE, IpFamily::V6), "fd99::3"),
        ] {
            let listed = listed(&set.to_string());
            assert_eq!(listed.len(), 1, "{listed:?}");
            assert_eq!(listed[0].0, value);
            assert!(
                (63..=65).contains(&listed[0].1),
                "{listed:?}: somewhat longer than its lease"
            );
        }
        assert!(
            enforcer
                .already_admitted(generation, &elements, Duration::ZERO)
                .is_some()
        );
        let stats = enforcer.stats();
        assert_eq!((stats.elements, stats.capacity, stats.transactions), (3, 400, 1));
        // What is there already costs no transaction.
        let _proof = enforcer.admit(generation, elements, patience()).await.unwrap();
        assert_eq!(enforcer.stats().transactions, 1);
    });
}

#[test]
fn the_packet_that_follows_an_admission_passes_ten_thousand_times() {
    inside(|| async {
        let (enforcer, generation) = installed(20_000).await;
        guard(&exact(ONE));
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let first = element(ONE, 0).key.address;
        assert!(!passes(&socket, first, 443), "the guard stands");

        // A hundred clients at once, each with a hundred answers one after the other.
        let clients = (0..100u16).map(|client| {
            let (enforcer, socket) = (&enforcer, &socket);
            async move {
                for answer in 0..100 {
                    let element = element(ONE, client * 100 + answer);
                    let _proof = enforcer
                        .admit(generation, lease([element], seconds(60)), patience())
                        .await
                        .unwrap();
                    assert!(passes(socket, element.key.address, 443), "{element:?}");
                    assert!(!passes(socket, element.key.address, 444), "{element:?}");
                }
            }
        });
        futures::future::join_all(clients).await;
        assert_eq!(enforcer.stats().elements, 10_000);
    });
}

#[test]
fn an_answer_by_itself_is_committed_before_the_call_returns() {
    inside(|| async {
        let (enforcer, generation) = installed(1_000).await;
        guard(&exact(ONE));
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for answer in 0..500 {
            let element = element(ONE, answer);
            let mut elements = lease([element], seconds(60));
            // Not while the heart beats.
            until("nobody writes", || {
                enforcer.admit_now(generation, &mut elements, Holder(1)).is_some()
            })
            .await;
            assert!(passes(&socket, element.key.address, 443), "{answer}");
        }
        assert_eq!(enforcer.stats().transactions, 500);

        let other = enforcer.install(desired([ONE, TWO], 1_000), Vec::new).await.unwrap();
        let mut elements = lease([element(ONE, 1)], seconds(60));
        assert!(
            enforcer.admit_now(generation, &mut elements, Holder(1)).is_none(),
            "stale"
        );
        until("nobody writes", || {
            enforcer.admit_now(other, &mut elements, Holder(1)).is_some()
        })
        .await;
    });
}

#[test]
fn answers_that_are_submitted_together_share_a_transaction() {
    inside(|| async {
        let (enforcer, generation) = installed(20_000).await;
        guard(&exact(ONE));
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();

        // The first go in by the caller's hand, the second are too many for that and go to the
        // writer's thread.
        for (transactions, answers) in [(1, 0..100u16), (2, 100..1_100)] {
            let (submissions, outcomes): (Vec<_>, Vec<_>) = answers
                .clone()
                .map(|answer| {
                    let (answered, outcome) = oneshot::channel();
                    let submission = AdmissionRequest {
                        generation,
                        elements: lease([element(ONE, answer)], seconds(60)),
                        holder: Holder(1),
                        deadline: patience(),
                        answer: Box::new(answered),
                    };
                    (submission, outcome)
                })
                .unzip();
            enforcer.submit(submissions);
            for (answer, outcome) in answers.zip(outcomes) {
                let _proof = outcome.await.unwrap().unwrap();
                assert!(passes(&socket, element(ONE, answer).key.address, 443), "{answer}");
            }
            assert_eq!(enforcer.stats().transactions, transactions);
        }
    });
}

#[test]
fn ten_thousand_elements_of_one_admission_are_committed() {
    inside(|| async {
        let (enforcer, generation) = installed(20_000).await;
        let elements = lease((0..10_000).map(|number| element(ONE, number)), seconds(60));
        let _proof = enforcer.admit(generation, elements.clone(), patience()).await.unwrap();
        assert_eq!(listed(&exact(ONE).to_string()).len(), 10_000);
        assert!(
            enforcer
                .already_admitted(generation, &elements, Duration::ZERO)
                .is_some()
        );
    });
}

#[test]
fn an_element_is_renewed_in_both_ways_and_never_shortened() {
    for renewal in [Renewal::Refresh, Renewal::Replace] {
        inside(|| async {
            let enforcer = Enforcer::start_with("namegate", renewal).unwrap();
            let generation = enforcer.install(desired([ONE], 100), Vec::new).await.unwrap();
            let set = exact(ONE).to_string();
            for (life, left) in [(30, 33..=35), (90, 93..=95), (10, 93..=95)] {
                // A neighbour that is new each time travels in the same transaction.
                let elements = lease([element(ONE, 1), element(ONE, 100 + life)], seconds(life.into()));
                let _proof = enforcer.admit(generation, elements, patience()).await.unwrap();
                let listed = listed(&set);
                let (_, expires) = listed.iter().find(|(value, _)| value == "10.99.0.1.udp.443").unwrap();
                assert!(left.contains(expires), "{renewal:?} to {life}: {listed:?}");
            }
            assert_eq!(enforcer.stats().elements, 4);
        });
    }
}

#[test]
fn renewing_never_closes_an_address_for_a_packet() {
    inside(|| async {
        let enforcer = Enforcer::start_with("namegate", Renewal::Replace).unwrap();
        let generation = enforcer.install(desired([ONE], 100), Vec::new).await.unwrap();
        guard(&exact(ONE));
        let element = element(ONE, 1);
        let _proof = enforcer
            .admit(generation, lease([element], seconds(30)), patience())
            .await
            .unwrap();
        // A socket stays in the namespace that it was made in, whichever thread uses it.
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
        for renewal in 1..500 {
            let elements = vec![(element, now() + seconds(30 + renewal))];
            let _proof = enforcer.admit(generation, elements, patience()).await.unwrap();
        }
        stop.store(true, Relaxed);
        assert!(sender.join().unwrap() > 0);
    });
}

#[test]
fn an_element_ends_with_its_lease_and_leaves_the_mirror() {
    inside(|| async {
        let (enforcer, generation) = installed(100).await;
        let elements = lease([element(ONE, 1)], seconds(1));
        let (_, end) = elements[0];
        let _proof = enforcer.admit(generation, elements, patience()).await.unwrap();
        until("the element ends", || !kernel_holds(&element(ONE, 1))).await;
        assert!(now() >= end, "it ended at {:?}, and was to live until {end:?}", now());
        until("the mirror forgets it", || enforcer.stats().elements == 0).await;
        assert_eq!(enforcer.elements(), []);
    });
}

#[test]
fn a_lease_that_is_over_already_still_opens_for_a_moment() {
    inside(|| async {
        let (enforcer, generation) = installed(100).await;
        let elements = vec![(element(ONE, 1), Time::from_millis(1))];
        let _proof = enforcer.admit(generation, elements, patience()).await.unwrap();
        assert!(kernel_holds(&element(ONE, 1)));
    });
}

#[test]
fn a_full_set_refuses_what_can_never_fit_and_leaves_the_others_working() {
    inside(|| async {
        let (enforcer, generation) = installed(10).await;
        let admit = |elements| enforcer.admit(generation, elements, patience());
        let _proof = admit(lease((0..9).map(|n| element(ONE, n)), seconds(60)))
            .await
            .unwrap();
        // More than the set holds.
        let many = || (20..31).map(|n| element(ONE, n));
        let before = enforcer.stats().transactions;
        let full = AdmitError::Full {
            set: exact(ONE).to_string(),
            capacity: 10,
        };
        let with_another = lease(many().chain([whole(ONE, "10.99.0.9")]), seconds(60));
        assert_eq!(admit(with_another).await.unwrap_err(), full);
        assert_eq!(enforcer.stats().transactions, before);
        assert!(!kernel_holds(&element(ONE, 20)) && !kernel_holds(&whole(ONE, "10.99.0.9")));
        // One fits; what is in may be renewed; other sets have room.
        let _proof = admit(lease([element(ONE, 20)], seconds(60))).await.unwrap();
        let _proof = admit(lease([element(ONE, 3)], seconds(90))).await.unwrap();
        let _proof = admit(lease([whole(ONE, "10.99.0.9")], seconds(60))).await.unwrap();
        // The same at once.
        let (refused, admitted) = tokio::join!(
            admit(lease(many(), seconds(60))),
            admit(lease([whole(ONE, "10.99.0.10")], seconds(60)))
        );
        assert_eq!(refused.unwrap_err(), full);
        let _proof = admitted.unwrap();
        assert!(
            (0..9).all(|n| kernel_holds(&element(ONE, n))),
            "nobody gave way to what was refused"
        );
        // Now there is no room, and what was learned longest ago gives way.
        let _proof = admit(lease([element(ONE, 40)], seconds(60))).await.unwrap();
        assert!(kernel_holds(&element(ONE, 40)) && kernel_holds(&element(ONE, 3)));
        assert_eq!(
            (enforcer.stats().evictions, listed(&exact(ONE).to_string()).len()),
            (1, 10)
        );
    });
}

#[test]
fn a_set_that_the_kernel_finds_full_refuses_only_those_who_need_it() {
    inside(|| async {
        let (enforcer, generation) = installed(10).await;
        // The kernel has room for twenty; somebody else takes them.
        for number in 100..120u8 {
            crate::namespace::nft(&format!(
                "add element inet namegate {} {{ 10.98.0.{number} . udp . 1 timeout 60s }}",
                exact(ONE)
            ));
        }
        let admit = |elements| enforcer.admit(generation, elements, patience());
        let (first, second, other) = tokio::join!(
            admit(lease([element(ONE, 1)], seconds(60))),
            admit(lease([element(ONE, 2)], seconds(60))),
            admit(lease([whole(ONE, "10.99.0.9")], seconds(60)))
        );
        for refused in [first, second] {
            assert!(matches!(refused, Err(AdmitError::Full { .. })), "{refused:?}");
        }
        let _proof = other.unwrap();
        assert!(kernel_holds(&whole(ONE, "10.99.0.9")));
        assert!(enforcer.stats().failures >= 1);
    });
}

#[test]
fn one_bad_request_does_not_take_others_with_it() {
    inside(|| async {
        let (enforcer, generation) = installed(1000).await;
        // An IPv4 key in a set of IPv6 addresses: the kernel refuses its length.
        let bad = Element {
            set: group(ONE, IpFamily::V6),
            key: ElementKey {
                address: [10, 99, 0, 1].into(),
                port: None,
            },
        };
        let requests = (0..200u16).map(|number| {
            let elements = match number % 10 {
                0 => lease([bad, element(ONE, number)], seconds(60)),
                _ => lease(
                    [element(ONE, number), whole(ONE, &format!("fd99::{number}"))],
                    seconds(60),
                ),
            };
            enforcer.admit(generation, elements, patience())
        });
        let outcomes = futures::future::join_all(requests).await;
        for (number, outcome) in (0u16..).zip(outcomes) {
            if number % 10 == 0 {
                let Err(AdmitError::Rejected { set, errno, .. }) = outcome else {
                    panic!("{number}: {outcome:?}");
                };
                assert_eq!((set, errno), (bad.set.to_string(), libc::EINVAL));
            } else {
                assert!(outcome.is_ok(), "{number}: {outcome:?}");
            }
        }
        let listed = listed(&exact(ONE).to_string());
        assert_eq!(listed.len(), 180, "nothing of a refused request was opened");
    });
}

#[test]
fn a_set_that_was_never_installed_is_refused_without_asking_the_kernel() {
    inside(|| async {
        let (enforcer, generation) = installed(10).await;
        let outcome = enforcer
            .admit(generation, lease([element(TWO, 1)], seconds(60)), patience())
            .await;
        assert!(
            matches!(
                &outcome,
                Err(AdmitError::Rejected {
                    errno: libc::ENOENT,
                    ..
                })
            ),
            "{outcome:?}"
        );
        assert_eq!(enforcer.stats().failures, 0);
    });
}
