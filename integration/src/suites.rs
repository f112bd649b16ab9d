//! Other people's suites that are Go programs: where they are, and how they run against a node.

mod results;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use crate::built::find_or_build;
use crate::fail;
use crate::node::NodeCluster;

pub use results::{SuiteOutcome, SuiteTest};

/// The environment variable with what `integration/suites/build` has made. Tests may run as a user
/// without Go.
const PROGRAMS_VARIABLE: &str = "NAMEGATE_SUITES";

/// The directory with the programs of `integration/suites`, built when it is first asked for;
/// `None`, with a line that says why, where they cannot be.
pub fn programs() -> Option<&'static Path> {
    static PROGRAMS: OnceLock<Option<PathBuf>> = OnceLock::new();
    PROGRAMS
        .get_or_init(|| find_or_build("suites/build", PROGRAMS_VARIABLE))
        .as_deref()
}

/// Runs a suite that is a Go test, as the cluster's administrator, and reads what it says. All of
/// it is left in `log`.
///
/// # Panics
/// When it ends in another way than a Go test does.
pub fn run(node: &NodeCluster, program: &Path, arguments: &[String], log: &Path) -> Vec<SuiteTest> {
    let begun = Instant::now();
    let mut all = vec!["-test.v".to_owned()];
    all.extend_from_slice(arguments);
    let (status, text) = execute(node, program, &all, log);
    judge(program, results::of_go(&text), status, &text, begun)
}

/// Runs a suite whose specs are ginkgo's, in the same way.
///
/// # Panics
/// When it ends without a report.
pub fn run_specs(node: &NodeCluster, program: &Path, arguments: &[String], log: &Path) -> Vec<SuiteTest> {
    let begun = Instant::now();
    let report = log.with_extension("json");
    // The one of an earlier run is not an answer.
    let _ = fs::remove_file(&report);
    let mut all = vec![
        format!("-ginkgo.json-report={}", report.display()),
        "-ginkgo.no-color".to_owned(),
        "-ginkgo.timeout=3h".to_owned(),
    ];
    all.extend_from_slice(arguments);
    let (status, text) = execute(node, program, &all, log);
    let report = fs::read_to_string(&report).unwrap_or_else(|error| panic!("the suite's report: {error}\n{text}"));
    let specs = results::of_ginkgo(&report).unwrap_or_else(fail("the suite's report"));
    judge(program, specs, status, &text, begun)
}

fn execute(node: &NodeCluster, program: &Path, arguments: &[String], log: &Path) -> (ExitStatus, String) {
    let output = File::create(log).unwrap_or_else(fail("the suite's log"));
    let errors = output.try_clone().unwrap_or_else(fail("the suite's log"));
    let mut command = node.lab().node().command(program);
    command
        .arg("-test.timeout=3h")
        .args(arguments)
        .env("KUBECONFIG", node.control.admin_kubeconfig())
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors);
    let status = command.status().unwrap_or_else(fail("the suite"));
    (status, fs::read_to_string(log).unwrap_or_else(fail("the suite's log")))
}

/// A suite ends with 1 where a test failed, and its results say more than the code.
fn judge(program: &Path, tests: Vec<SuiteTest>, status: ExitStatus, said: &str, begun: Instant) -> Vec<SuiteTest> {
    assert!(
        status.success() || tests.iter().any(|test| test.outcome == SuiteOutcome::Failed),
        "the suite ended with {status}\n{said}"
    );
    say(program, &tests, begun);
    tests
}

#[expect(clippy::print_stdout, reason = "the counts are what a suite shows")]
fn say(program: &Path, tests: &[SuiteTest], begun: Instant) {
    let name = program.file_name().unwrap_or_default().display();
    let count = |whole: bool| {
        let of = tests.iter().filter(|test| test.is_part != whole);
        let passed = of.clone().filter(|test| test.outcome == SuiteOutcome::Passed);
        (passed.count(), of.count())
    };
    let ((tests, of), (parts, of_parts)) = (count(true), count(false));
    println!(
        "{name}: {tests} of {of} tests passed, {parts} of {of_parts} subtests, in {:.0?}",
        begun.elapsed()
    );
}
