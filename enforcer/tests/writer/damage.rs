//! Changes that others make to the table, and their repair.

mod agents;
mod elements;
mod interference;
mod routing;
mod structure;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use clock::{Time, now};
use enforcer::audit::{DamageKind, Integrity};
use enforcer::pod_links::PodLinks;
use enforcer::{DesiredState, Element, Enforcer, FailMode, Interception, ResolverBinding};
use policy::PerDirection;

use crate::namespace::{inside, kernel_holds, listed, nft, patience, run, seconds, until};
use crate::programs::{ONE, TWO, desired, element, whole};

/// A repair that takes longer fails a test. It is a tenth of that in practice; this machine may be
/// loaded.
const SOON: Duration = Duration::from_secs(10);

/// A desired state with something in every set of the table.
fn full() -> DesiredState {
    let socket = |text: &str| text.parse().unwrap();
    let both = desired([ONE, TWO], 1000);
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
            bridged: Default::default(),
        },
        servers: [socket("10.53.0.53:53")].into(),
        interception: Interception::Dnat,
        fail_mode: FailMode::Open,
        dispatch: PerDirection {
            ingress: [([10, 66, 0, 3].into(), ONE)].into(),
            ..both.dispatch.clone()
        },
        ..both
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
