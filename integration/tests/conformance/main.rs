//! Other people's suites, as they are, on a real node with the shipped DaemonSet. Skipped in one
//! line where no node can run, or where the suites cannot be built. Needs root.

// Clippy's exceptions for tests do not reach the functions that they share.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod netpol;
mod network_policy_api;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use namegate_integration::node::NodeCluster;
use namegate_integration::suites::{self, SuiteOutcome, SuiteTest};
use parking_lot::{Mutex, MutexGuard};

/// A Go pattern of the tests that run, in place of those of the short form: `.` for all.
const TESTS_VARIABLE: &str = "NAMEGATE_CONFORMANCE";

/// The node of all suites. Theirs are the definitions of ClusterNetworkPolicy, and what is denied
/// is dropped, which they demand. `None` where no node can run.
fn shared() -> Option<MutexGuard<'static, NodeCluster>> {
    // It ends with this process: nothing drops a static.
    static SHARED: LazyLock<Option<Mutex<NodeCluster>>> = LazyLock::new(|| {
        let programs = suites::programs()?;
        let agent = Path::new(env!("CARGO_BIN_EXE_namegate-under-test"));
        let node = NodeCluster::start_for_suites(agent, &programs.join("agnhost"))?;
        let definitions = fs::read_to_string(programs.join("crds.yaml")).unwrap();
        node.control.apply(&definitions);
        node.configure("deny-response: drop");
        Some(Mutex::new(node))
    });
    Some(SHARED.as_ref()?.lock())
}

/// The pattern of the tests that run, and whether they are all.
fn pattern(short: &str) -> (String, bool) {
    match std::env::var(TESTS_VARIABLE) {
        Ok(all) if all == "." => (all, true),
        Ok(some) => (some, false),
        Err(_) => (short.to_owned(), false),
    }
}

/// Where what a suite leaves is found afterwards.
fn left(file: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(file)
}

/// Every test passed but those that are known to fail (docs/conformance.md has the reasons), which
/// did.
fn assert_passed(tests: &[SuiteTest], known: &[&str]) {
    assert!(
        tests.iter().any(|test| test.outcome == SuiteOutcome::Passed),
        "no test ran"
    );
    let is_known = |test: &SuiteTest| known.contains(&test.name.as_str());
    let of = |outcome: SuiteOutcome, is_listed: bool| -> Vec<&SuiteTest> {
        let such = |test: &&SuiteTest| test.outcome == outcome && is_known(test) == is_listed;
        tests.iter().filter(such).collect()
    };
    let failed = of(SuiteOutcome::Failed, false);
    for test in &failed {
        println!("{}\n{}", test.name, test.log);
    }
    let names = |tests: &[&SuiteTest]| tests.iter().map(|test| test.name.clone()).collect::<Vec<_>>();
    assert!(failed.is_empty(), "these failed: {:#?}", names(&failed));
    let mended = of(SuiteOutcome::Passed, true);
    assert!(
        mended.is_empty(),
        "these pass now, take them off the list: {:#?}",
        names(&mended)
    );
}
