//! Replacing rules while addresses are learned.

use std::task::{Context, Waker};
use std::time::Duration;

use clock::now;
use enforcer::{AdmitError, Enforcer, InstallError};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::namespace::{inside, kernel_holds, listed, nft, patience, run, seconds};
use crate::programs::{ONE, TWO, desired, element, exact, whole};

#[test]
fn installing_the_same_again_touches_nothing() {
    inside(|| async {
        let enforcer = Enforcer::start("namegate").unwrap();
        let first = enforcer.install(desired([ONE], 10), Vec::new).await.unwrap();
        let again = enforcer
            .install(desired([ONE], 10), || panic!("the ledger is not even read"))
            .await
            .unwrap();
        assert_eq!((first, enforcer.generation()), (again, first));
        assert_eq!(enforcer.stats().installs, 1);
    });
}

/// To look for elements that have timed out the kernel goes through a whole set, once a second if
/// it is not told otherwise.
#[test]
fn the_kernel_sweeps_a_learned_set_every_ten_seconds() {
    inside(|| async {
        let enforcer = Enforcer::start("namegate").unwrap();
        enforcer.install(desired([ONE], 10), Vec::new).await.unwrap();
        let set = exact(ONE).to_string();
        let declared = run("nft", &["list", "set", "inet", "namegate", &set], "").unwrap();
        assert!(declared.contains("gc-interval 10s"), "{declared}");
    });
}

#[test]
fn a_set_of_another_type_in_the_place_of_ours_is_refused_until_it_is_gone() {
    inside(|| async {
        let enforcer = Enforcer::start("namegate").unwrap();
        enforcer.install(desired([ONE], 10), Vec::new).await.unwrap();
        let foreign = format!("inet namegate {}", element(TWO, 1).set);
        nft(&format!("add set {foreign} {{ type inet_service; }}"));
        for _ in 0..3 {
            let refused = enforcer.install(desired([ONE, TWO], 10), Vec::new).await.unwrap_err();
            assert!(matches!(refused, InstallError::Refused(_)), "{refused:?}");
        }
        nft(&format!("delete set {foreign}"));
        let generation = enforcer.install(desired([ONE, TWO], 10), Vec::new).await.unwrap();
        let elements = vec![(element(TWO, 1), now() + seconds(60))];
        let _proof = enforcer.admit(generation, elements, patience()).await.unwrap();
        assert!(kernel_holds(&element(TWO, 1)));
    });
}

#[test]
fn a_new_generation_makes_admissions_of_the_old_one_stale() {
    inside(|| async {
        let enforcer = Enforcer::start("namegate").unwrap();
        let old = enforcer.install(desired([ONE], 10), Vec::new).await.unwrap();
        let elements = vec![(element(ONE, 1), now() + seconds(60))];
        let _proof = enforcer.admit(old, elements.clone(), patience()).await.unwrap();
        let new = enforcer.install(desired([ONE, TWO], 10), Vec::new).await.unwrap();
        assert!(new > old);
        assert!(enforcer.already_admitted(old, &elements, Duration::ZERO).is_none());
        assert_eq!(
            enforcer.admit(old, elements.clone(), patience()).await.unwrap_err(),
            AdmitError::Stale
        );
        // The set stayed, and what it held is still known.
        assert!(enforcer.already_admitted(new, &elements, Duration::ZERO).is_some());
        assert!(kernel_holds(&element(ONE, 1)));
    });
}

#[test]
fn an_admission_that_waits_for_an_installation_is_stale_after_it() {
    inside(|| async {
        let enforcer = Enforcer::start("namegate").unwrap();
        let old = enforcer.install(desired([ONE], 10), Vec::new).await.unwrap();
        let elements = vec![(element(ONE, 1), now() + seconds(60))];
        let _proof = enforcer.admit(old, elements.clone(), patience()).await.unwrap();
        let during = enforcer.clone();
        let (begun, admission) = oneshot::channel();
        let runtime = Handle::current();
        let install = enforcer.install(desired([ONE, TWO], 10), move || {
            // The ledger is being read: from now on the fast path is shut, though the generation is
            // the same.
            assert_eq!(during.generation(), old);
            assert!(during.already_admitted(old, &elements, Duration::ZERO).is_none());
            // Asked for here, and not beside the installation: a caller may commit it before the
            // writer's thread begins.
            let _clock = runtime.enter();
            let mut admitted = Box::pin(async move { during.admit(old, elements, patience()).await });
            let polled = admitted.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_pending(), "it waits for the installation");
            begun.send(admitted).map_err(drop).unwrap();
            Vec::new()
        });
        install.await.unwrap();
        assert_eq!(admission.await.unwrap().await.unwrap_err(), AdmitError::Stale);
    });
}

#[test]
fn new_sets_are_filled_and_sets_that_are_gone_are_forgotten() {
    inside(|| async {
        let enforcer = Enforcer::start("namegate").unwrap();
        let end = now() + seconds(60);
        let old = enforcer.install(desired([ONE], 10), Vec::new).await.unwrap();
        let _proof = enforcer
            .admit(old, vec![(element(ONE, 1), end)], patience())
            .await
            .unwrap();
        let learned = vec![
            (element(TWO, 1), end),
            (whole(TWO, "fd99::1"), end),
            (element(TWO, 1), now() + seconds(5)),
        ];
        let new = enforcer.install(desired([TWO], 10), move || learned).await.unwrap();

        let elements = [(element(TWO, 1), end), (whole(TWO, "fd99::1"), end)];
        assert!(enforcer.already_admitted(new, &elements, Duration::ZERO).is_some());
        assert_eq!(enforcer.elements(), elements);
        let listed = listed(&exact(TWO).to_string());
        assert_eq!(listed.len(), 1);
        assert!((63..=66).contains(&listed[0].1), "{listed:?}");
        assert!(kernel_holds(&whole(TWO, "fd99::1")));
        let gone = run("nft", &["list", "set", "inet", "namegate", &exact(ONE).to_string()], "");
        assert!(gone.is_err());
    });
}

#[test]
fn a_set_that_stays_gets_back_what_it_lacks() {
    inside(|| async {
        let enforcer = Enforcer::start("namegate").unwrap();
        enforcer.install(desired([ONE], 10), Vec::new).await.unwrap();
        let end = now() + seconds(60);
        let new = enforcer
            .install(desired([ONE, TWO], 10), move || vec![(element(ONE, 7), end)])
            .await
            .unwrap();
        assert!(kernel_holds(&element(ONE, 7)));
        assert!(
            enforcer
                .already_admitted(new, &[(element(ONE, 7), end)], Duration::ZERO)
                .is_some()
        );
    });
}

#[test]
fn more_learned_addresses_than_a_set_holds_do_not_stop_an_installation() {
    inside(|| async {
        let enforcer = Enforcer::start("namegate").unwrap();
        let begin = now() + seconds(60);
        let learned = move || {
            (0..50u16)
                .map(|n| (element(ONE, n), begin + seconds(n.into())))
                .collect()
        };
        enforcer.install(desired([ONE], 10), learned).await.unwrap();
        let held: Vec<_> = enforcer.elements().into_iter().map(|(element, _)| element).collect();
        assert_eq!(
            held,
            (40..50).map(|n| element(ONE, n)).collect::<Vec<_>>(),
            "those that end last"
        );
        assert_eq!(listed(&exact(ONE).to_string()).len(), 10);
    });
}

#[test]
fn an_installation_that_fails_leaves_everything_as_it_was() {
    inside(|| async {
        let enforcer = Enforcer::start("namegate").unwrap();
        let generation = enforcer.install(desired([ONE], 10), Vec::new).await.unwrap();
        let elements = vec![(element(ONE, 1), now() + seconds(60))];
        let mut broken = desired([TWO], 10);
        // More than a set may hold is refused only when the program's other sets stand already.
        let members = (0..30).map(|number| element(TWO, number));
        broken.members = [(TWO, members.collect())].into();
        let (installed, admitted) = tokio::join!(
            enforcer.install(broken, Vec::new),
            enforcer.admit(generation, elements.clone(), patience())
        );
        let Err(InstallError::Refused(text)) = installed else {
            panic!("{installed:?}");
        };
        assert!(text.contains("full"), "{text}");
        let _proof = admitted.unwrap();
        assert_eq!(enforcer.generation(), generation);
        assert!(
            enforcer
                .already_admitted(generation, &elements, Duration::ZERO)
                .is_some()
        );
        assert!(kernel_holds(&element(ONE, 1)));
    });
}
