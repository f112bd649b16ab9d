//! Elements that somebody added, removed or changed, and those that end by themselves.

use super::*;

#[test]
fn a_map_without_elements_is_filled_again() {
    is_undone(DamageKind::Elements, "flush map inet namegate dispatch4");
    is_undone(DamageKind::Elements, "flush map inet namegate dispatch-in4");
}

#[test]
fn an_element_of_a_map_that_leads_elsewhere_is_put_right() {
    is_undone(
        DamageKind::Elements,
        "delete element inet namegate dispatch4 { 10.66.0.1 }; add element inet namegate dispatch4 { 10.66.0.1 : goto ep4-0000000000000002 }",
    );
    is_undone(
        DamageKind::Elements,
        "delete element inet namegate dispatch-in4 { 10.66.0.3 }; add element inet namegate dispatch-in4 { 10.66.0.3 : goto ep4-0000000000000002 }",
    );
}

#[test]
fn a_foreign_range_is_removed() {
    is_undone(
        DamageKind::Elements,
        "add element inet namegate cluster4 { 203.0.113.0/24 }",
    );
}

#[test]
fn a_pod_that_is_not_intercepted_any_more_is_again() {
    is_undone(DamageKind::Elements, "flush set inet namegate pods4");
}

#[test]
fn what_is_known_of_links_flows_and_resolvers_is_known_again() {
    for script in [
        "flush set inet namegate pod-links",
        "flush set inet namegate governed-links",
        "flush set inet namegate shared-links",
        "flush set inet namegate link-sources4",
        "flush set inet namegate link-networks4",
        "flush set inet namegate servers4",
        "flush set inet namegate ends4",
    ] {
        is_undone(DamageKind::Elements, script);
    }
}

#[test]
fn a_learned_set_without_elements_is_filled_again() {
    is_undone(DamageKind::Elements, "flush set inet namegate allow4-0000000000000001");
}

#[test]
fn a_learned_address_is_put_back() {
    is_undone(
        DamageKind::Elements,
        "delete element inet namegate allow4-0000000000000001 { 10.99.0.2 . udp . 443 }",
    );
}

#[test]
fn an_address_that_nobody_has_taught_is_closed() {
    is_undone(
        DamageKind::Elements,
        "add element inet namegate allow4-0000000000000001 { 203.0.113.9 . tcp . 443 timeout 1h }",
    );
}

#[test]
fn an_address_that_somebody_has_opened_without_an_end_is_closed() {
    is_undone(
        DamageKind::Elements,
        "add element inet namegate allow4-0000000000000002-all { 203.0.113.9 }",
    );
}

#[test]
fn a_lease_that_somebody_has_lengthened_is_shortened() {
    is_undone(
        DamageKind::Elements,
        "delete element inet namegate allow4-0000000000000001 { 10.99.0.2 . udp . 443 }; \
         add element inet namegate allow4-0000000000000001 { 10.99.0.2 . udp . 443 timeout 1d }",
    );
}

#[test]
fn what_is_deleted_because_its_lease_is_over_hides_no_damage() {
    inside(|| async {
        let enforcer = guarded().await;
        let generation = enforcer.generation();
        for round in 0..12u16 {
            // Some lease ends at any time, so that the writer meets the damage before it was looked
            // at. Those that ended before that are forgotten, or they would fill the set after two
            // rounds.
            for batch in 0..20u16 {
                let end = now() + Duration::from_millis(1_000 + 50 * u64::from(batch));
                let short = (0..30).map(|number| (element(ONE, 1_000 + round * 600 + batch * 30 + number), end));
                let _proof = enforcer.admit(generation, short.collect(), patience()).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(1_400 + 37 * u64::from(round))).await;
            nft("flush set inet namegate allow4-0000000000000001");
            until("what is not over is back", || {
                elements().iter().all(|(element, _)| kernel_holds(element))
            })
            .await;
        }
        enforcer.shut_down().await;
    });
}

#[test]
fn leases_that_end_and_are_deleted_are_no_damage() {
    inside(|| async {
        let enforcer = guarded().await;
        let generation = enforcer.generation();
        let end = now() + seconds(2);
        let short = (100..400).map(|number| (element(ONE, number), end)).collect();
        let _proof = enforcer.admit(generation, short, patience()).await.unwrap();
        nft("add table inet other");
        while enforcer.stats().elements > 4 {
            // Somebody's changes make the guard look at the sets all the while.
            nft("add table inet another; delete table inet another");
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(now() < end + seconds(20), "{:?}", enforcer.stats());
        }
        assert_eq!(*enforcer.integrity().borrow(), Integrity::default());
        enforcer.shut_down().await;
    });
}
