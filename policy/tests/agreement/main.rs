//! The compiled program against the plain interpreter of `oracle`, on generated cases.
//!
//! `NAMEGATE_CASES` says how many (10,000 if it does not), `NAMEGATE_SEED` which ones.

mod compiled;
mod objects;

use std::cell::RefCell;
use std::env;

use oracle::generate::{self, Case, Site};
use oracle::{Oracle, Policies, Probe, Traffic, Verdict};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use compiled::Compiled;

#[derive(Debug, Default)]
struct Counts {
    verdicts: u64,
    allowed: u64,
    /// See [`may_be_refused`].
    refused: u64,
}

#[test]
fn the_compiled_program_says_what_the_interpreter_says() {
    let cases = number("NAMEGATE_CASES").unwrap_or(10_000);
    let config = Config {
        cases: u32::try_from(cases).expect("so many can be counted"),
        failure_persistence: None,
        max_shrink_iters: 4_000,
        ..Config::default()
    };
    let counts = RefCell::new(Counts::default());
    let mut runner = TestRunner::new_with_rng(config, rng(number("NAMEGATE_SEED").unwrap_or(0)));
    match runner.run(&generate::case(&Site::default()), |case| compare(&case, &counts)) {
        Ok(()) => {}
        Err(TestError::Fail(reason, _)) => panic!("{reason}"),
        Err(TestError::Abort(reason)) => panic!("no cases could be made: {reason}"),
    }
    let Counts {
        verdicts,
        allowed,
        refused,
    } = counts.into_inner();
    println!(
        "agreement: {cases} cases, {verdicts} probes, 0 differences ({allowed} allowed, {refused} refused for want of ports)"
    );
    assert!(
        allowed * 5 > verdicts && allowed * 5 < verdicts * 4,
        "the cases are one-sided"
    );
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
    let compiled =
        Compiled::new(&case.world).map_err(|reason| TestCaseError::fail(format!("{reason}\n{}", case.world.yaml())))?;
    for policies in [Policies::Enforced, Policies::All] {
        let oracle = Oracle::new(&case.world, policies);
        for probe in &case.probes {
            let plainly = oracle.decide(probe);
            let verdict = compiled.verdict(probe, policies);
            let mut counts = counts.borrow_mut();
            counts.verdicts += 1;
            counts.allowed += u64::from(verdict == Verdict::Allow);
            if verdict == plainly {
                continue;
            }
            if verdict == Verdict::Deny && may_be_refused(case, probe) {
                counts.refused += 1;
                continue;
            }
            let who = format!("the program ({policies:?})");
            return Err(TestCaseError::fail(case.disagreement(probe, plainly, (&who, verdict))));
        }
    }
    Ok(())
}

/// What has no ports is refused where it cannot be excepted from all traffic that tier Admin accepts for a name or object.
fn may_be_refused(case: &Case, probe: &Probe) -> bool {
    let mut policies = case.world.of_kind("ClusterNetworkPolicy");
    probe.traffic == Traffic::Other && policies.any(|policy| policy["spec"]["tier"] == "Admin")
}
