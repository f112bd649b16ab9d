//! Changes that go on while the agent works.

use super::*;

#[test]
fn tables_of_others_that_change_all_the_time_are_no_damage_and_hide_none() {
    inside(|| async {
        let enforcer = guarded().await;
        nft("add table inet other; add set inet other s { type ipv4_addr; }");
        for host in 0..30 {
            nft(&format!("add element inet other s {{ 10.0.0.{host} }}"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(*enforcer.integrity().borrow(), Integrity::default());
        nft("flush set inet namegate pods4");
        for host in 30..200 {
            nft(&format!("add element inet other s {{ 10.0.0.{host} }}"));
            if enforcer.integrity().borrow().last.is_some() {
                break;
            }
        }
        repaired(&enforcer, DamageKind::Elements).await;
        enforcer.shut_down().await;
    });
}

#[test]
fn whoever_damages_again_and_again_is_not_fought_for_ever_and_it_is_said() {
    inside(|| async {
        let enforcer = guarded().await;
        let begun = Instant::now();
        let mut waits = false;
        while !waits {
            assert!(begun.elapsed() < patience(), "{:?}", *enforcer.integrity().borrow());
            nft("flush chain inet namegate forward");
            tokio::time::sleep(Duration::from_millis(20)).await;
            waits = enforcer
                .integrity()
                .borrow()
                .failure
                .as_ref()
                .is_some_and(|failure| failure.contains("again and again"));
        }
        assert!(!enforcer.integrity().borrow().damaged.is_empty());
        // Once it is left alone it is in order again.
        until("it is repaired", || enforcer.integrity().borrow().damaged.is_empty()).await;
        assert_eq!(enforcer.integrity().borrow().failure, None);
        enforcer.shut_down().await;
    });
}

#[test]
fn an_installation_onto_a_damaged_table_does_not_take_the_damage_for_its_own() {
    inside(|| async {
        let enforcer = guarded().await;
        nft("insert rule inet namegate forward accept; flush set inet namegate pods4");
        // At once, before anybody had time to look.
        let mut after = full();
        after.dispatch.egress.insert([10, 66, 0, 9].into(), ONE);
        after.intercepted.insert([10, 66, 0, 9].into());
        enforcer.install(after, elements).await.unwrap();
        until("both are undone", || {
            let text = run("nft", &["list", "table", "inet", "namegate"], "").unwrap();
            let forward = text.split("chain forward").nth(1).unwrap_or_default();
            let forward = forward.split('}').next().unwrap_or_default();
            let pods = text.split("set pods4").nth(1).unwrap_or_default();
            let pods = pods.split("\n\t}").next().unwrap_or_default();
            !forward.lines().any(|line| line.trim() == "accept")
                && pods.contains("10.66.0.1")
                && pods.contains("10.66.0.9")
        })
        .await;
        enforcer.shut_down().await;
    });
}
