//! The kernel against the plain interpreter of `oracle`: packets of every kind, sent by pods of a
//! lab whose node runs the agent with generated objects. Needs root.
//!
//! `NAMEGATE_KERNEL_CASES` says how many (500 if it does not), `NAMEGATE_SEED` which ones.

// Clippy's exceptions for tests do not reach the functions that they share.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod packet;
mod site;
mod witness;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::env;

use oracle::generate::{self, Case};
use oracle::{Oracle, Policies, Probe, Traffic, Verdict};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use packet::Token;
use site::Node;

#[test]
fn the_kernel_does_what_the_interpreter_says() {
    let cases = number("NAMEGATE_KERNEL_CASES").unwrap_or(500);
    let config = Config {
        cases: u32::try_from(cases).expect("so many can be counted"),
        failure_persistence: None,
        max_shrink_iters: 300,
        ..Config::default()
    };
    let node = RefCell::new(Node::start());
    let site = node.borrow().site();
    let counts = RefCell::new(Counts::default());
    let mut runner = TestRunner::new_with_rng(config, rng(number("NAMEGATE_SEED").unwrap_or(0)));
    let result = runner.run(&generate::case(&site), |case| {
        let case = node.borrow_mut().enter(case);
        compare(&case, &mut node.borrow_mut(), &mut counts.borrow_mut())
    });
    match result {
        Ok(()) => {}
        Err(TestError::Fail(reason, _)) => panic!("{reason}"),
        Err(TestError::Abort(reason)) => panic!("no cases could be made: {reason}"),
    }
    let Counts {
        allowed,
        refused,
        narrowed,
    } = counts.into_inner();
    let late = node.borrow_mut().arrived().intersection(&refused).count();
    assert_eq!(late, 0, "packets arrived after they were thought refused");
    let probes = allowed.len() + refused.len();
    println!(
        "agreement with the kernel: {cases} cases, {probes} probes, 0 differences ({} allowed, {narrowed} refused for want of ports)",
        allowed.len()
    );
}

#[derive(Default)]
struct Counts {
    /// Packets that arrived, as they should.
    allowed: BTreeSet<Token>,
    /// Packets that did not.
    refused: BTreeSet<Token>,
    /// Of these; see [`may_be_refused`].
    narrowed: u64,
}

fn compare(case: &Case, node: &mut Node, counts: &mut Counts) -> Result<(), TestCaseError> {
    let oracle = Oracle::new(&case.world, Policies::Enforced);
    let probes: Vec<&Probe> = case.probes.iter().filter(|probe| node.can_be_told(probe)).collect();
    let sent: Vec<(Token, Verdict, &Probe)> = probes
        .into_iter()
        .map(|probe| (node.send(probe), oracle.decide(probe), probe))
        .collect();
    let allowed: BTreeSet<Token> = sent
        .iter()
        .filter(|(_, verdict, _)| *verdict == Verdict::Allow)
        .map(|(token, ..)| *token)
        .collect();
    let arrived = node.wait_for(&allowed);
    for (token, plainly, probe) in sent {
        let verdict = if arrived.contains(&token) {
            Verdict::Allow
        } else {
            Verdict::Deny
        };
        if verdict == Verdict::Allow {
            counts.allowed.insert(token);
        } else {
            counts.refused.insert(token);
        }
        if plainly == verdict {
            continue;
        }
        if verdict == Verdict::Allow || !may_be_refused(case, probe) {
            return Err(TestCaseError::fail(case.disagreement(
                probe,
                plainly,
                ("the kernel", verdict),
            )));
        }
        counts.narrowed += 1;
    }
    Ok(())
}

/// What has no ports is refused where it cannot be excepted from all traffic that tier Admin
/// accepts for a name or object.
fn may_be_refused(case: &Case, probe: &Probe) -> bool {
    let mut policies = case.world.of_kind("ClusterNetworkPolicy");
    probe.traffic == Traffic::Other && policies.any(|policy| policy["spec"]["tier"] == "Admin")
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
