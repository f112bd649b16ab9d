//! What others do to the table, and what the agent does about it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use clock::{Time, now};
use enforcer::audit::{DamageKind, Integrity};
use enforcer::pod_links::PodLinks;
use enforcer::{DesiredState, Element, Enforcer, FailMode, Interception, ResolverBinding};

use crate::namespace::{inside, kernel_holds, listed, nft, patience, run, seconds, until};
use crate::programs::{ONE, TWO, desired, element, whole};

/// A repair that takes longer fails a test. It is a tenth of that in practice; this machine may be
/// loaded.
const SOON: Duration = Duration::from_secs(10);

/// A desired state with something in every set of the table.
fn full() -> DesiredState {
    let socket = |text: &str| text.parse().unwrap();
    DesiredState {
        intercepted: [[10, 66, 0, 1].into()].into(),
        resolvers: vec![ResolverBinding {
            asked: socket("10.53.0.53:53"),
            listener: socket("169.254.53.53:5301"),
        }],
        cluster: vec!["10.66.0.0/16".parse().unwrap(), "10.96.0.0/12".parse().unwrap()],
        host: [[10, 66, 0, 254].into()].into(),
        unknown: vec!["10.67.0.0/16".parse().unwrap()],
        pod_links: PodLinks {
            links: [7001, 7002, 7003].into(),
            governed: [7001, 7002].into(),
            shared: [7002].into(),
            sources: [(7001, [10, 66, 0, 1].into())].into(),
            networks: ["10.66.0.0/24".parse().unwrap()].into(),
        },
        servers: [socket("10.53.0.53:53")].into(),
        interception: Interception::Dnat,
        fail_mode: FailMode::Open,
        ..desired([ONE, TWO], 1000)
    }
}

fn elements() -> Vec<(Element, Time)> {
    let end = now() + seconds(600);
    vec![
        (element(ONE, 1), end),
        (element(ONE, 2), end),
        (whole(TWO, "10.99.7.7"), end),
        (whole(ONE, "fd99::1"), end),
    ]
}

/// The words of the table as people see it, counted: without what changes by itself, which are the
/// heartbeat's marks and the time that elements have left. Sets tell their elements in no order.
fn table() -> BTreeMap<String, usize> {
    let text = run("nft", &["-s", "list", "table", "inet", "namegate"], "").unwrap_or_default();
    let mut words = BTreeMap::new();
    let mut is_time = false;
    for word in text.split_whitespace().map(|word| word.trim_matches(',')) {
        let is_mark = word.parse::<u8>().is_ok_and(|number| (150..=252).contains(&number));
        if !is_time && !is_mark && !word.is_empty() {
            *words.entry(word.to_owned()).or_default() += 1;
        }
        is_time = ["expires", "timeout"].contains(&word);
    }
    words
}

/// Words that are in one and not in the other, with how often.
fn differences(before: &BTreeMap<String, usize>, after: &BTreeMap<String, usize>) -> Vec<(String, i64)> {
    let words: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let count =
        |words: &BTreeMap<String, usize>, word: &String| i64::try_from(words.get(word).copied().unwrap_or(0)).unwrap();
    let differs = |word: &&String| count(before, word) != count(after, word);
    let told = |word: &String| (word.clone(), count(after, word) - count(before, word));
    words.into_iter().filter(differs).map(told).collect()
}

/// Starts a guarded enforcer with everything in force, and waits until it has looked at it.
async fn guarded() -> Enforcer {
    let enforcer = Enforcer::start_guarded("namegate").unwrap();
    let generation = enforcer.install(full(), Vec::new).await.unwrap();
    let _proof = enforcer.admit(generation, elements(), patience()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(
        *enforcer.integrity().borrow(),
        Integrity::default(),
        "our own work is no damage"
    );
    enforcer
}

/// Waits until something was repaired.
async fn repaired(enforcer: &Enforcer, kind: DamageKind) -> Duration {
    let begun = Instant::now();
    let mut integrity = enforcer.integrity();
    let is_repaired = |integrity: &Integrity| {
        let last = integrity.last.as_ref();
        last.is_some_and(|last| last.damage.iter().any(|damage| damage.kind == kind)) && integrity.damaged.is_empty()
    };
    let waited = tokio::time::timeout(patience(), integrity.wait_for(is_repaired)).await;
    if waited.is_err() {
        panic!(
            "{kind:?} was not repaired: {:?}\n{}",
            *enforcer.integrity().borrow(),
            run("nft", &["list", "table", "inet", "namegate"], "").unwrap_or_default()
        );
    }
    begun.elapsed()
}

/// The figures are part of what the tests show.
#[allow(clippy::print_stdout)]
fn told(what: &str, begun: Instant) {
    println!("{what}: repaired after {:?}", begun.elapsed());
}

/// Does the damage to a table that is in order, and expects it as it was before.
fn is_undone(kind: DamageKind, script: &'static str) {
    inside(move || async move {
        let enforcer = guarded().await;
        let generation = enforcer.generation();
        let before = table();
        let begun = Instant::now();
        nft(script);
        let took = repaired(&enforcer, kind).await;
        told(script, begun);
        patience::assert_took(script, took, SOON);
        assert_eq!(differences(&before, &table()), []);
        for (element, end) in elements() {
            assert!(kernel_holds(&element), "{element:?}");
            let stands = enforcer.already_admitted(generation, &[(element, end)], seconds(120));
            assert!(stands.is_some(), "{element:?} may be relied on");
        }
        assert_eq!(enforcer.generation(), generation, "no plan has to be computed");
        let _proof = enforcer
            .admit(generation, vec![(element(ONE, 3), now() + seconds(60))], patience())
            .await
            .unwrap();
        // One repair did it.
        tokio::time::sleep(Duration::from_millis(350)).await;
        let repairs = enforcer.integrity().borrow().repairs;
        assert!(repairs.iter().all(|count| *count <= 1), "{repairs:?}");
        enforcer.shut_down().await;
    });
}

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
fn a_map_without_elements_is_filled_again() {
    is_undone(DamageKind::Elements, "flush map inet namegate dispatch4");
}

#[test]
fn an_element_of_a_map_that_leads_elsewhere_is_put_right() {
    is_undone(
        DamageKind::Elements,
        "delete element inet namegate dispatch4 { 10.66.0.1 }; add element inet namegate dispatch4 { 10.66.0.1 : goto ep4-0000000000000002 }",
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
fn chains_that_refuse_strangers_and_errors_of_others_are_filled_again() {
    is_undone(
        DamageKind::Rules,
        "flush chain inet namegate strangers; flush chain inet namegate related; flush chain inet namegate before-tracking",
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
fn a_set_of_another_type_in_the_place_of_ours_is_replaced() {
    is_undone(
        DamageKind::Set,
        "flush chain inet namegate ep4-0000000000000001; delete set inet namegate allow4-0000000000000001; \
         add set inet namegate allow4-0000000000000001 { type inet_service; }",
    );
}

#[test]
fn a_set_that_is_gone_is_made_again() {
    is_undone(
        DamageKind::Set,
        "flush table inet namegate; delete set inet namegate pods4; delete set inet namegate allow4-0000000000000002-all",
    );
}

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
fn addresses_of_the_proxy_that_were_removed_are_put_back() {
    inside(|| async {
        let enforcer = guarded().await;
        let listens = |address: &str| {
            let text = run("ip", &["-o", "addr", "show", "dev", "lo"], "").unwrap();
            text.contains(address)
        };
        for (removal, address) in [
            (&["addr", "del", "169.254.53.53/32", "dev", "lo"][..], "169.254.53.53"),
            (
                &["addr", "del", "fd6e:6de7:53a4::53/128", "dev", "lo"],
                "fd6e:6de7:53a4::53",
            ),
            (&["addr", "flush", "dev", "lo"], "169.254.53.53"),
            (&["link", "set", "lo", "down"], "fd6e:6de7:53a4::53"),
        ] {
            assert!(listens(address));
            run("ip", removal, "").unwrap();
            let begun = Instant::now();
            until("the address is back", || listens(address)).await;
            told(&format!("{removal:?}"), begun);
            until("and told", || {
                let integrity = enforcer.integrity();
                let integrity = integrity.borrow();
                let kind = integrity.last.as_ref().map(|last| last.damage[0].kind);
                kind == Some(DamageKind::Address) && integrity.damaged.is_empty()
            })
            .await;
        }
        let lo = run("ip", &["-o", "link", "show", "dev", "lo"], "").unwrap();
        assert!(lo.contains("UP"), "{lo}");
        assert_eq!(listed("alive").len(), 3);
        enforcer.shut_down().await;
    });
}

#[test]
fn rules_and_routes_of_mode_tproxy_that_were_removed_are_put_back() {
    inside(|| async {
        let enforcer = Enforcer::start_guarded("namegate").unwrap();
        let tproxy = DesiredState {
            interception: Interception::Tproxy {
                mark: std::num::NonZeroU32::new(0x100).unwrap(),
                routing_table: 1053,
                port: 5353,
            },
            ..full()
        };
        enforcer.install(tproxy, Vec::new).await.unwrap();
        tokio::time::sleep(Duration::from_millis(250)).await;
        let state = || {
            let show = |arguments: &str| run("ip", &arguments.split(' ').collect::<Vec<_>>(), "").unwrap_or_default();
            ["rule", "-6 rule", "route show table 1053", "-6 route show table 1053"].map(show)
        };
        let before = state();
        for removal in [
            "rule del pref 100",
            "rule del pref 99",
            "-6 rule del pref 100",
            "route flush table 1053",
            "-6 route flush table 1053",
            "route replace unreachable default table 1053",
        ] {
            run("ip", &removal.split(' ').collect::<Vec<_>>(), "").unwrap();
            let begun = Instant::now();
            until(removal, || state() == before).await;
            told(removal, begun);
        }
        until("it is told", || {
            let integrity = enforcer.integrity();
            let integrity = integrity.borrow();
            integrity.repairs[DamageKind::ALL
                .iter()
                .position(|kind| *kind == DamageKind::Route)
                .unwrap()]
                > 0
        })
        .await;
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
