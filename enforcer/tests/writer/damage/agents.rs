//! Agents that start onto a damaged table, or share it.

use super::*;

#[test]
fn an_agent_that_starts_onto_empty_chains_fills_them_and_keeps_what_was_learned() {
    inside(|| async {
        let before = Enforcer::start_guarded("namegate").unwrap();
        let generation = before.install(full(), Vec::new).await.unwrap();
        let _proof = before.admit(generation, elements(), patience()).await.unwrap();
        let rules = table();
        before.shut_down().await;
        drop(before);
        nft("flush table inet namegate; flush set inet namegate pods4; \
             add rule inet namegate ep4-0000000000000001 accept; add table inet namegate { flags dormant; }");
        let after = Enforcer::start_guarded("namegate").unwrap();
        let generation = after.install(full(), Vec::new).await.unwrap();
        assert_eq!(differences(&rules, &table()), []);
        assert!(after.already_admitted(generation, &elements(), seconds(120)).is_some());
        after.shut_down().await;
    });
}

#[test]
fn an_agent_that_starts_onto_sets_of_another_type_makes_them_anew_and_keeps_the_others() {
    inside(|| async {
        let before = Enforcer::start_guarded("namegate").unwrap();
        let generation = before.install(full(), Vec::new).await.unwrap();
        let _proof = before.admit(generation, elements(), patience()).await.unwrap();
        before.shut_down().await;
        drop(before);
        nft(
            "flush table inet namegate; delete set inet namegate allow4-0000000000000001; delete set inet namegate host4; \
             add set inet namegate allow4-0000000000000001 { type inet_service; }; add set inet namegate host4 { type mark; }",
        );
        let after = Enforcer::start_guarded("namegate").unwrap();
        after.install(full(), Vec::new).await.unwrap();
        assert!(!kernel_holds(&element(ONE, 1)), "nobody knows it any more");
        assert!(kernel_holds(&whole(TWO, "10.99.7.7")), "its set was sound");
        let before = table();
        nft("flush table inet namegate");
        repaired(&after, DamageKind::Rules).await;
        assert_eq!(differences(&before, &table()), [], "it is whole");
        after.shut_down().await;
    });
}

#[test]
fn two_agents_that_overlap_do_not_fight() {
    inside(|| async {
        let old = guarded().await;
        let new = Enforcer::start_guarded("namegate").unwrap();
        let generation = new.install(full(), Vec::new).await.unwrap();
        let end = now() + seconds(300);
        // Lookups that still come to the old one.
        let of_old = vec![(element(ONE, 50), end)];
        let _proof = old.admit(old.generation(), of_old.clone(), patience()).await.unwrap();
        let _proof = new
            .admit(generation, vec![(element(ONE, 51), end)], patience())
            .await
            .unwrap();
        // Time has to pass: nothing is to happen in it.
        tokio::time::sleep(Duration::from_secs(2)).await;
        for agent in [&old, &new] {
            assert_eq!(*agent.integrity().borrow(), Integrity::default());
        }
        old.shut_down().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(*new.integrity().borrow(), Integrity::default());
        assert!(kernel_holds(&element(ONE, 50)), "what the old one had opened is open");
        assert!(
            new.already_admitted(generation, &of_old, seconds(1)).is_some(),
            "and known"
        );

        nft("flush chain inet namegate forward");
        repaired(&new, DamageKind::Rules).await;
        new.shut_down().await;
    });
}

#[test]
fn an_agent_whose_successor_crashed_keeps_the_table_again() {
    inside(|| async {
        let old = guarded().await;
        let new = Enforcer::start_guarded("namegate").unwrap();
        new.install(full(), Vec::new).await.unwrap();
        drop(new);
        until("it takes the table back", || old.integrity().borrow().last.is_some()).await;
        nft("flush table inet namegate");
        let before = old.integrity().borrow().repairs;
        until("it is filled again", || {
            run("nft", &["list", "chain", "inet", "namegate", "forward"], "")
                .is_ok_and(|text| text.contains("dispatch"))
        })
        .await;
        until("and told", || old.integrity().borrow().repairs != before).await;
        old.shut_down().await;
    });
}
