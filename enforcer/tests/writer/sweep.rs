//! What becomes of elements whose lease is over.

use std::time::{Duration, Instant};

use clock::now;
use enforcer::Enforcer;
use enforcer::writer::{Generation, Holder};

use crate::namespace::{inside, kernel_holds, listed, patience, seconds, until};
use crate::programs::{ONE, desired, element, exact};

async fn installed(capacity: u32) -> (Enforcer, Generation) {
    let enforcer = Enforcer::start("namegate").unwrap();
    let generation = enforcer.install(desired([ONE], capacity), Vec::new).await.unwrap();
    (enforcer, generation)
}

#[test]
fn a_set_holds_as_many_names_as_live_at_a_time_however_fast_they_come() {
    inside(|| async {
        // The kernel has room for twice as many, and collects nothing while the rules change all
        // the time.
        let (enforcer, generation) = installed(6_000).await;
        let begun = Instant::now();
        let mut due = begun;
        for number in 0..30_000u16 {
            // 3,000 a second, each with a lease of one second. What a busy machine delays is not
            // made up for, or more would live at a time.
            while Instant::now() < due {
                std::hint::spin_loop();
            }
            due = Instant::now() + Duration::from_micros(333);
            let mut elements = vec![(element(ONE, number), now() + seconds(1))];
            if enforcer.admit_now(generation, &mut elements, Holder(1)).is_none() {
                let admitted = enforcer.admit(generation, elements, patience()).await;
                assert!(
                    admitted.is_ok(),
                    "the {number}th after {:?}: {admitted:?}",
                    begun.elapsed()
                );
            }
        }
        let stats = enforcer.stats();
        assert_eq!((stats.failures, stats.evictions), (0, 0), "nobody gave way");
    });
}

#[test]
fn an_element_is_deleted_when_its_lease_is_over() {
    inside(|| async {
        let (enforcer, generation) = installed(10).await;
        // The writer has looked whether it is alone.
        tokio::time::sleep(seconds(2)).await;
        let end = now() + seconds(2);
        let _proof = enforcer
            .admit(generation, vec![(element(ONE, 1), end)], patience())
            .await
            .unwrap();
        let (_, left) = listed(&exact(ONE).to_string())[0];
        assert!(left > 4, "{left}: the kernel is the safety net");
        until("the lease is over", || now() >= end || !kernel_holds(&element(ONE, 1))).await;
        assert!(now() >= end, "not before");
        until("it is deleted", || !kernel_holds(&element(ONE, 1))).await;
        assert!(now() < end + seconds(4), "before the kernel would have ended it");
        assert_eq!(enforcer.stats().elements, 0);
    });
}

#[test]
fn beside_another_agent_nothing_is_deleted() {
    inside(|| async {
        let (old, generation) = installed(10).await;
        tokio::time::sleep(seconds(2)).await;
        let end = now() + seconds(2);
        let _proof = old
            .admit(generation, vec![(element(ONE, 1), end)], patience())
            .await
            .unwrap();
        // It has read that the lease ends soon, and does not hear that the old one renews it.
        let (new, _) = installed(10).await;
        let _proof = old
            .admit(generation, vec![(element(ONE, 1), now() + seconds(60))], patience())
            .await
            .unwrap();
        until("the old lease is over by far", || now() > end + seconds(2)).await;
        assert!(kernel_holds(&element(ONE, 1)));
        drop(old);
        until("the new one is alone by far", || now() > end + seconds(8)).await;
        assert!(kernel_holds(&element(ONE, 1)));
        drop(new);
    });
}

#[test]
fn who_fills_a_set_gives_way_to_others_and_to_itself() {
    inside(|| async {
        let (enforcer, generation) = installed(10).await;
        let end = now() + seconds(60);
        let admit = |number, holder| {
            let (enforcer, mut elements) = (enforcer.clone(), vec![(element(ONE, number), end)]);
            async move {
                if enforcer.admit_now(generation, &mut elements, holder).is_none() {
                    let _proof = enforcer
                        .admit_for(holder, generation, elements, patience())
                        .await
                        .unwrap();
                }
                // Elements of one hundredth of a second are equally old.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let (flood, quiet) = (Holder(1), Holder(2));
        admit(100, quiet).await;
        for number in 0..40 {
            admit(number, flood).await;
        }
        admit(101, quiet).await;
        assert!(kernel_holds(&element(ONE, 100)) && kernel_holds(&element(ONE, 101)));
        assert!(kernel_holds(&element(ONE, 39)) && !kernel_holds(&element(ONE, 30)));
        assert_eq!(listed(&exact(ONE).to_string()).len(), 10);
        assert_eq!(enforcer.stats().evictions, 32);
        let gone = vec![(element(ONE, 30), end)];
        assert!(enforcer.already_admitted(generation, &gone, Duration::ZERO).is_none());
    });
}
