//! Tables, chains, rules and sets that somebody changed.

use super::*;

#[test]
fn a_table_without_rules_is_filled_again() {
    is_undone(DamageKind::Rules, "flush table inet namegate");
}

#[test]
fn a_table_that_is_gone_is_made_again() {
    is_undone(DamageKind::Table, "delete table inet namegate");
}

#[test]
fn a_flushed_ruleset_is_made_again() {
    is_undone(DamageKind::Table, "flush ruleset");
}

#[test]
fn a_table_that_sleeps_is_woken() {
    is_undone(DamageKind::Table, "add table inet namegate { flags dormant; }");
}

#[test]
fn a_chain_without_rules_is_filled_again() {
    is_undone(DamageKind::Rules, "flush chain inet namegate forward");
}

#[test]
fn a_chain_of_a_program_without_rules_is_filled_again() {
    is_undone(DamageKind::Rules, "flush chain inet namegate ep4-0000000000000001");
}

#[test]
fn a_chain_of_a_receivers_program_without_rules_is_filled_again() {
    is_undone(DamageKind::Rules, "flush chain inet namegate in4-0000000000000001");
}

#[test]
fn the_way_to_receivers_programs_is_opened_again() {
    for script in [
        "flush chain inet namegate dispatch-in",
        "insert rule inet namegate dispatch-in accept",
        "flush chain inet namegate refuse-in",
    ] {
        is_undone(DamageKind::Rules, script);
    }
}

#[test]
fn a_rule_of_somebody_else_is_removed() {
    is_undone(DamageKind::Rules, "insert rule inet namegate forward accept");
}

#[test]
fn a_rule_of_somebody_else_in_a_program_is_removed() {
    is_undone(
        DamageKind::Rules,
        "insert rule inet namegate ep4-0000000000000002 accept",
    );
}

#[test]
fn a_chain_in_another_place_is_put_back() {
    is_undone(
        DamageKind::Chain,
        "flush chain inet namegate forward; delete chain inet namegate forward; \
         add chain inet namegate forward { type filter hook forward priority 50; }",
    );
}

#[test]
fn a_chain_that_hangs_nowhere_is_hung_up_again() {
    is_undone(
        DamageKind::Chain,
        "flush chain inet namegate forward; delete chain inet namegate forward; add chain inet namegate forward",
    );
}

#[test]
fn a_chain_that_drops_everything_is_put_back() {
    is_undone(
        DamageKind::Chain,
        "add chain inet namegate forward { type filter hook forward priority 0; policy drop; }",
    );
}

#[test]
fn chains_that_refuse_strangers_and_errors_of_others_are_filled_again() {
    is_undone(
        DamageKind::Rules,
        "flush chain inet namegate strangers; flush chain inet namegate related; flush chain inet namegate before-tracking",
    );
}

#[test]
fn a_set_of_another_type_in_the_place_of_ours_is_replaced() {
    is_undone(
        DamageKind::Set,
        "flush chain inet namegate ep4-0000000000000001; flush chain inet namegate in4-0000000000000001; \
         delete set inet namegate allow4-0000000000000001; \
         add set inet namegate allow4-0000000000000001 { type inet_service; }",
    );
}

#[test]
fn a_set_that_is_gone_is_made_again() {
    is_undone(
        DamageKind::Set,
        "flush table inet namegate; delete map inet namegate dispatch-in6; delete set inet namegate pods4; delete set inet namegate allow4-0000000000000002-all",
    );
}

#[test]
fn a_program_that_goes_and_comes_back_is_no_damage() {
    inside(|| async {
        let enforcer = guarded().await;
        let without = desired([ONE], 1000);
        // Faster than the table is looked at.
        for _ in 0..20 {
            enforcer.install(without.clone(), Vec::new).await.unwrap();
            enforcer.install(full(), Vec::new).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(*enforcer.integrity().borrow(), Integrity::default());
    });
}
