//! The compiled program and the explanation against the plain interpreter of `oracle`, on generated
//! cases.
//!
//! `NAMEGATE_CASES` says how many (500 if it does not; `./test` asks for 10,000), `NAMEGATE_SEED`
//! which ones.

mod compiled;
mod explained;
mod node;
mod objects;

use std::cell::RefCell;
use std::env;
use std::panic::resume_unwind;
use std::thread;

use oracle::generate::{self, Case, Site};
use oracle::{Announced, Direction, Oracle, Policies, Probe, Protocol, Traffic, Verdict};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use compiled::Compiled;
use explained::Explained;
use node::Node;

/// Each with seeds of its own; the cases do not depend on how many of them run at once.
const STREAMS: u64 = 4;

#[test]
fn the_compiled_program_and_the_explanation_say_what_the_interpreter_says() {
    let cases = number("NAMEGATE_CASES").unwrap_or(500);
    let seed = number("NAMEGATE_SEED").unwrap_or(0);
    let streams: Vec<Counts> = thread::scope(|scope| {
        let streams = (0..STREAMS).map(|stream| {
            let part = (cases + STREAMS - 1 - stream) / STREAMS;
            scope.spawn(move || run(part, seed * STREAMS + stream))
        });
        let streams: Vec<_> = streams.collect();
        streams
            .into_iter()
            .map(|stream| stream.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    });
    let sum = |count: fn(&Counts) -> u64| streams.iter().map(count).sum::<u64>();
    let (probes, allowed, refused) = (sum(|it| it.probes), sum(|it| it.allowed), sum(|it| it.refused));
    let explained = sum(|it| it.explained);
    let (announced, let_through) = (sum(|it| it.announced), sum(|it| it.let_through));
    println!(
        "agreement: {cases} cases, {probes} probes, 0 differences ({allowed} allowed, {refused} refused for want of ports), {explained} explained, {announced} announcements ({let_through} let through for them)"
    );
    assert!(cases < 500 || let_through > 0, "nothing passes for what it announces");
    let one_sided = allowed * 5 < probes || allowed * 5 > probes * 4;
    assert!(cases < 1000 || !one_sided, "the cases are too alike");
}

#[derive(Debug, Default)]
struct Counts {
    probes: u64,
    allowed: u64,
    /// See [`may_be_refused`].
    refused: u64,
    /// Probes whose explanation was compared.
    explained: u64,
    /// Connections that announce something.
    announced: u64,
    /// Those among them that pass because of it.
    let_through: u64,
}

fn run(cases: u64, seed: u64) -> Counts {
    let config = Config {
        cases: u32::try_from(cases).expect("so many can be counted"),
        failure_persistence: None,
        max_shrink_iters: 4_000,
        ..Config::default()
    };
    let counts = RefCell::new(Counts::default());
    let mut runner = TestRunner::new_with_rng(config, rng(seed));
    match runner.run(&generate::case(&Site::default()), |case| compare(&case, &counts)) {
        Ok(()) => counts.into_inner(),
        Err(TestError::Fail(reason, _)) => panic!("{reason}"),
        Err(TestError::Abort(reason)) => panic!("no cases could be made: {reason}"),
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is {text:?}, not a number")),
    )
}

fn rng(seed: u64) -> TestRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}

fn compare(case: &Case, counts: &RefCell<Counts>) -> Result<(), TestCaseError> {
    let node =
        Node::new(&case.world).map_err(|reason| TestCaseError::fail(format!("{reason}\n{}", case.world.yaml())))?;
    compare_compiled(case, &node, counts)?;
    compare_announced(case, &node, counts)?;
    compare_explained(case, &node, counts)
}

fn compare_compiled(case: &Case, node: &Node<'_>, counts: &RefCell<Counts>) -> Result<(), TestCaseError> {
    let compiled = Compiled::new(node);
    for policies in [Policies::Enforced, Policies::All] {
        let oracle = Oracle::new(&case.world, policies);
        for (direction, probe) in in_both(case) {
            let Some(plainly) = oracle.decide_in(direction, probe) else {
                continue;
            };
            let verdict = compiled.verdict(direction, probe, policies);
            let verdict = verdict.ok_or_else(|| TestCaseError::fail(format!("{probe}: no {direction:?} program")))?;
            let mut counts = counts.borrow_mut();
            counts.probes += 1;
            counts.allowed += u64::from(verdict == Verdict::Allow);
            if verdict == plainly {
                continue;
            }
            if verdict == Verdict::Deny && may_be_refused(case, probe) {
                counts.refused += 1;
                continue;
            }
            let who = format!("the {direction:?} program ({policies:?})");
            return Err(TestCaseError::fail(case.disagreement(probe, plainly, (&who, verdict))));
        }
    }
    Ok(())
}

/// Connections that somebody looks into.
fn compare_announced(case: &Case, node: &Node<'_>, counts: &RefCell<Counts>) -> Result<(), TestCaseError> {
    let compiled = Compiled::new(node);
    for policies in [Policies::Enforced, Policies::All] {
        let oracle = Oracle::new(&case.world, policies);
        for (direction, probe) in in_both(case) {
            if !matches!(probe.traffic, Traffic::Port(Protocol::Tcp, _)) {
                continue;
            }
            for announced in announcements() {
                let Some(plainly) = oracle.decide_announced(direction, probe, Some(&announced)) else {
                    continue;
                };
                let verdict = compiled.verdict_announced(direction, probe, policies, &announced);
                let verdict =
                    verdict.ok_or_else(|| TestCaseError::fail(format!("{probe}: no {direction:?} program")))?;
                let mut counts = counts.borrow_mut();
                counts.announced += 1;
                // Of these it matters what they announce.
                let without = oracle.decide_in(direction, probe);
                counts.let_through += u64::from(without != Some(plainly));
                if verdict != plainly {
                    let who = format!("the {direction:?} program ({policies:?}), of {announced:?},");
                    return Err(TestCaseError::fail(case.disagreement(probe, plainly, (&who, verdict))));
                }
            }
        }
    }
    Ok(())
}

fn announcements() -> impl Iterator<Item = Announced> {
    let tls = ["a.example", "x.a.example", "b.test"].map(|name| Announced::Tls(name.to_owned()));
    let requests = [
        ("GET", "/users", "a.example"),
        ("HEAD", "/users", "b.test"),
        ("PUT", "/users/1", "a.example"),
        ("PUT", "/users/1", "axexample"),
        ("POST", "/", "b.test"),
    ];
    let requests = requests.map(|(method, path, host)| Announced::Http {
        method: method.to_owned(),
        path: path.to_owned(),
        host: host.to_owned(),
    });
    tls.into_iter().chain(requests).chain([Announced::Other])
}

fn compare_explained(case: &Case, node: &Node<'_>, counts: &RefCell<Counts>) -> Result<(), TestCaseError> {
    let explained = Explained::new(node, &case.world);
    let enforced = Oracle::new(&case.world, Policies::Enforced);
    let all = Oracle::new(&case.world, Policies::All);
    for (direction, probe) in in_both(case) {
        let Some(explanation) = explained.explanation(direction, probe) else {
            continue;
        };
        counts.borrow_mut().explained += 1;
        let who = format!(
            "the explanation of {direction:?} ({:?}: {})",
            explanation.outcome, explanation.decision
        );
        for (oracle, policies) in [(&enforced, Policies::Enforced), (&all, Policies::All)] {
            let Some(plainly) = oracle.decide_in(direction, probe) else {
                continue;
            };
            if let Some(verdict) = explained::verdict(&explanation, policies)
                && verdict != plainly
            {
                return Err(TestCaseError::fail(case.disagreement(probe, plainly, (&who, verdict))));
            }
        }
        if !explained.can_decide(&explanation, direction, probe) {
            let world = case.world.yaml();
            return Err(TestCaseError::fail(format!(
                "{probe}: {who} names a policy that alone does not decide so, with\n{world}"
            )));
        }
    }
    Ok(())
}

/// Each packet, as each of its ends sees it.
fn in_both(case: &Case) -> impl Iterator<Item = (Direction, &Probe)> {
    let directions = [Direction::Egress, Direction::Ingress];
    let probes = case.probes.iter();
    probes.flat_map(move |probe| directions.map(|direction| (direction, probe)))
}

/// What has no ports is refused where it cannot be excepted from all traffic that tier Admin
/// accepts for a name or object.
fn may_be_refused(case: &Case, probe: &Probe) -> bool {
    let mut policies = case.world.of_kind("ClusterNetworkPolicy");
    probe.traffic == Traffic::Other && policies.any(|policy| policy["spec"]["tier"] == "Admin")
}
