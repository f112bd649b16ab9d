//! The writer's own life: heartbeat, adoption, loss, end.

use std::time::Duration;

use clock::now;
use enforcer::writer::{Generation, clean_up};
use enforcer::{AdmitError, Enforcer, Renewal};
use policy::PerDirection;

use crate::namespace::{inside, kernel_holds, listed, nft, patience, run, seconds, until};
use crate::programs::{ONE, TWO, desired, element, whole};

#[test]
fn the_heart_beats_from_the_first_installation_until_the_end() {
    heart_beats(Renewal::Refresh);
}

#[test]
fn the_heart_beats_where_elements_must_be_replaced() {
    heart_beats(Renewal::Replace);
}

fn heart_beats(renewal: Renewal) {
    inside(|| async {
        let enforcer = Enforcer::start_with("namegate", renewal).unwrap();
        enforcer.install(desired([ONE], 10), Vec::new).await.unwrap();
        let names: Vec<String> = listed("alive").into_iter().map(|(name, _)| name).collect();
        let [mark, tcp, udp] = &names[..] else {
            panic!("{names:?} as soon as the rules stand");
        };
        assert_eq!([tcp, udp], ["tcp", "udp"], "what is intercepted");
        assert!(mark.parse::<u8>().is_ok_and(|mark| mark >= 150), "{mark}: who beats");
        // For as long as one beat lasts; without a renewal its last second would be seen.
        let begun = now();
        until("as long as a beat lasts", || {
            let beats = listed("alive");
            let passed = now().since(begun);
            assert_eq!(beats.len(), 3, "{beats:?} after {passed:?}");
            assert!(beats.iter().all(|(_, left)| *left >= 1), "{beats:?} after {passed:?}");
            passed > seconds(4)
        })
        .await;
        enforcer.shut_down().await;
        assert_eq!(listed("alive"), [], "removed at once");
        assert!(
            run("nft", &["list", "table", "inet", "namegate"], "").is_ok(),
            "enforcement stays"
        );
        let ended = enforcer.admit(enforcer.generation(), vec![], patience()).await;
        assert_eq!(ended.unwrap_err(), AdmitError::Stopped);
    });
}

#[test]
fn the_heart_beats_while_an_installation_takes_long() {
    inside(|| async {
        let enforcer = Enforcer::start("namegate").unwrap();
        enforcer.install(desired([ONE], 10), Vec::new).await.unwrap();
        let slow = || {
            std::thread::sleep(seconds(7));
            Vec::new()
        };
        let begun = now();
        let beating = until("longer than a beat lasts", || {
            let beats = listed("alive");
            let passed = now().since(begun);
            assert_eq!(beats.len(), 3, "{beats:?} after {passed:?}");
            passed > seconds(6)
        });
        let (installed, ()) = tokio::join!(enforcer.install(desired([ONE, TWO], 10), slow), beating);
        installed.unwrap();
    });
}

#[test]
fn the_heart_goes_on_beating_where_another_agent_has_taken_over() {
    inside(|| async {
        let old = Enforcer::start("namegate").unwrap();
        old.install(desired([ONE], 10), Vec::new).await.unwrap();
        let new = Enforcer::start("namegate").unwrap();
        new.install(desired([ONE], 10), Vec::new).await.unwrap();
        old.shut_down().await;
        let names: Vec<String> = listed("alive").into_iter().map(|(name, _)| name).collect();
        assert_eq!(names[1..], ["tcp", "udp"], "the other one's");
        new.shut_down().await;
        assert_eq!(listed("alive"), [], "nobody is left");
    });
}

#[test]
fn a_mark_that_a_crashed_agent_left_does_not_keep_interception_on() {
    inside(|| async {
        let crashed = Enforcer::start("namegate").unwrap();
        crashed.install(desired([ONE], 10), Vec::new).await.unwrap();
        // Without a word to the kernel.
        drop(crashed);
        let enforcer = Enforcer::start("namegate").unwrap();
        enforcer.install(desired([ONE], 10), Vec::new).await.unwrap();
        enforcer.stop_heartbeat().await;
        let names: Vec<String> = listed("alive").into_iter().map(|(name, _)| name).collect();
        assert!(!names.iter().any(|name| name == "udp"), "{names:?}: nobody is there");
        enforcer.shut_down().await;
    });
}

#[test]
fn a_new_enforcer_adopts_what_the_one_before_left() {
    inside(|| async {
        let elements = vec![
            (element(ONE, 1), now() + seconds(60)),
            (element(ONE, 2), now() + seconds(90)),
            (whole(ONE, "fd99::1"), now() + seconds(60)),
        ];
        let before = Enforcer::start("namegate").unwrap();
        let generation = before.install(desired([ONE], 10), Vec::new).await.unwrap();
        let _proof = before.admit(generation, elements.clone(), patience()).await.unwrap();
        drop(before);

        let after = Enforcer::start("namegate").unwrap();
        let adopted = after.elements();
        let names = |elements: &[(_, _)]| elements.iter().map(|(element, _)| *element).collect::<Vec<_>>();
        assert_eq!(names(&adopted), names(&elements));
        for ((_, asked), (element, end)) in elements.iter().zip(&adopted) {
            assert!(
                *end <= *asked + Duration::from_millis(50),
                "{element:?} is not believed in too long"
            );
            assert!(*end + seconds(1) >= *asked, "{element:?}: {end:?} for {asked:?}");
        }
        let generation = after.install(desired([ONE], 10), Vec::new).await.unwrap();
        assert!(after.already_admitted(generation, &elements, seconds(1)).is_some());
        // What it adopted it renews.
        let _proof = after
            .admit(generation, vec![(element(ONE, 1), now() + seconds(600))], patience())
            .await
            .unwrap();
        assert!(
            listed(&element(ONE, 1).set.to_string())
                .iter()
                .any(|(_, left)| *left > 500)
        );
    });
}

#[test]
fn a_ruleset_flushed_by_somebody_is_noticed_and_can_be_installed_again() {
    inside(|| async {
        let enforcer = Enforcer::start("namegate").unwrap();
        let generation = enforcer.install(desired([ONE], 10), Vec::new).await.unwrap();
        let elements = vec![(element(ONE, 1), now() + seconds(60))];
        let _proof = enforcer.admit(generation, elements.clone(), patience()).await.unwrap();
        nft("flush ruleset");
        tokio::time::timeout(patience(), enforcer.table_lost()).await.unwrap();
        assert_eq!(enforcer.elements(), []);
        assert!(
            enforcer
                .already_admitted(generation, &elements, Duration::ZERO)
                .is_none()
        );

        let end = elements[0].1;
        let again = enforcer
            .install(desired([ONE], 10), move || vec![(element(ONE, 1), end)])
            .await
            .unwrap();
        assert!(again > generation);
        assert!(kernel_holds(&element(ONE, 1)));
        assert!(enforcer.already_admitted(again, &elements, Duration::ZERO).is_some());
    });
}

#[test]
fn an_admission_notices_the_loss_too() {
    inside(|| async {
        let enforcer = Enforcer::start("namegate").unwrap();
        let generation = enforcer.install(desired([ONE], 10), Vec::new).await.unwrap();
        nft("flush ruleset");
        let outcome = enforcer
            .admit(generation, vec![(element(ONE, 1), now() + seconds(60))], patience())
            .await;
        assert!(
            matches!(
                outcome,
                Err(AdmitError::Rejected {
                    errno: libc::ENOENT,
                    ..
                })
            ),
            "{outcome:?}"
        );
        tokio::time::timeout(patience(), enforcer.table_lost()).await.unwrap();
    });
}

#[test]
fn an_enforcer_without_rules_admits_answers_that_open_nothing() {
    inside(|| async {
        let enforcer = Enforcer::start("namegate").unwrap();
        assert_eq!(enforcer.generation(), Generation::default());
        assert!(
            enforcer
                .already_admitted(Generation::default(), &[], Duration::ZERO)
                .is_some()
        );
        let _proof = enforcer.admit(Generation::default(), vec![], patience()).await.unwrap();
        let _proof = enforcer.admit_nothing();
        assert_eq!(
            run("nft", &["list", "ruleset"], "").unwrap(),
            "",
            "starting leaves nothing behind"
        );
    });
}

#[test]
fn refused_packets_are_read_from_the_counters() {
    inside(|| async {
        let enforcer = Enforcer::start("namegate").unwrap();
        assert_eq!(enforcer.refused_packets(), None);
        enforcer.install(desired([ONE], 10), Vec::new).await.unwrap();
        let nothing = PerDirection {
            egress: [0, 0],
            ingress: [0, 0],
        };
        assert_eq!(enforcer.refused_packets(), Some(nothing));
        nft("add chain inet namegate out { type filter hook output priority 0; }
             add rule inet namegate out udp dport 9 goto refuse
             add rule inet namegate out udp dport 10 goto refuse-in");
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let refused = |port| {
            let _ = socket.send_to(b"?", ("127.0.0.1", port));
            let PerDirection { egress, ingress } = enforcer.refused_packets().unwrap();
            [egress[0] > 0, ingress[0] > 0]
        };
        assert_eq!(refused(9), [true, false]);
        assert_eq!(refused(10), [true, true]);
    });
}

#[test]
fn cleaning_up_removes_our_table_and_no_other() {
    inside(|| async {
        nft("table inet other { }");
        clean_up("namegate").unwrap();
        let enforcer = Enforcer::start("namegate").unwrap();
        enforcer.install(desired([ONE], 10), Vec::new).await.unwrap();
        enforcer.shut_down().await;
        clean_up("namegate").unwrap();
        assert_eq!(run("nft", &["list", "tables"], "").unwrap().trim(), "table inet other");
    });
}
