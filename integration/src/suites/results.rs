//! What suites say of their tests: the output of `go test -v`, and the reports of ginkgo.

use std::collections::HashMap;

use serde_json::Value;

/// What became of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SuiteOutcome {
    /// It passed.
    Passed,
    /// It failed.
    Failed,
    /// The suite left it out.
    Skipped,
}

/// One test of a suite, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuiteTest {
    /// Its name: `Test` or `Test/part` of Go, below the program's only test; the texts of a spec.
    pub name: String,
    /// Whether it is a part of a test, and not one by itself.
    pub is_part: bool,
    /// What became of it.
    pub outcome: SuiteOutcome,
    /// What it said.
    pub log: String,
}

/// Reads the output of `go test -v`.
pub(super) fn of_go(output: &str) -> Vec<SuiteTest> {
    let mut tests: Vec<SuiteTest> = Vec::new();
    let mut logs: HashMap<String, String> = HashMap::new();
    let mut current = String::new();
    for line in output.lines() {
        let words = line.trim_start();
        if let Some(name) = speaker(words) {
            current = name.to_owned();
        } else if let Some((name, outcome)) = verdict(words) {
            // The program's only test has nothing to say that its tests do not.
            if let Some((_, below)) = name.split_once('/') {
                tests.push(SuiteTest {
                    name: below.to_owned(),
                    is_part: below.contains('/'),
                    outcome,
                    log: logs.remove(name).unwrap_or_default(),
                });
            }
        } else {
            let log = logs.entry(current.clone()).or_default();
            log.push_str(line);
            log.push('\n');
        }
    }
    tests
}

/// The test whose lines come next: `=== RUN   NAME`.
fn speaker(line: &str) -> Option<&str> {
    let marks = ["=== RUN ", "=== NAME ", "=== CONT "];
    marks.iter().find_map(|mark| line.strip_prefix(mark)).map(str::trim)
}

/// `--- PASS: NAME (1.23s)`.
fn verdict(line: &str) -> Option<(&str, SuiteOutcome)> {
    let (word, rest) = line.strip_prefix("--- ")?.split_once(": ")?;
    let outcome = match word {
        "PASS" => SuiteOutcome::Passed,
        "FAIL" => SuiteOutcome::Failed,
        "SKIP" => SuiteOutcome::Skipped,
        _ => return None,
    };
    let (name, _) = rest.rsplit_once(" (")?;
    Some((name, outcome))
}

/// Reads a report of ginkgo (`--json-report`), without the specs that were not to run.
pub(super) fn of_ginkgo(report: &str) -> serde_json::Result<Vec<SuiteTest>> {
    let suites: Value = serde_json::from_str(report)?;
    let suites = suites.as_array().into_iter().flatten();
    let specs = suites.flat_map(|suite| suite["SpecReports"].as_array().into_iter().flatten());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let tests = specs.filter(|spec| spec["LeafNodeType"] == "It").filter_map(|spec| {
        let outcome = match spec["State"].as_str()? {
            "passed" => SuiteOutcome::Passed,
            "skipped" | "pending" => return None,
            _ => SuiteOutcome::Failed,
        };
        let above = spec["ContainerHierarchyTexts"].as_array().into_iter().flatten();
        let texts: Vec<String> = above.chain([&spec["LeafNodeText"]]).map(text).collect();
        Some(SuiteTest {
            name: texts.join(" "),
            is_part: false,
            outcome,
            log: text(&spec["Failure"]["Message"]),
        })
    });
    Ok(tests.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_of_go_is_read_with_what_each_part_said() {
        let log = "=== RUN   TestSuite\n    main_test.go:1: setting up\n\
                   === RUN   TestSuite/Ports\n\
                   === RUN   TestSuite/Ports/Should_pass_(TCP)\n    ports.go:7: TIMEOUT\n\
                   \x20       --- FAIL: TestSuite/Ports/Should_pass_(TCP) (16.53s)\n\
                   \x20   --- FAIL: TestSuite/Ports (17.00s)\n\
                   === RUN   TestSuite/Nodes\n\
                   \x20   --- SKIP: TestSuite/Nodes (0.00s)\n\
                   --- FAIL: TestSuite (20.10s)\nFAIL\n";
        let tests = of_go(log);
        let seen: Vec<_> = tests
            .iter()
            .map(|test| (test.name.as_str(), test.is_part, test.outcome))
            .collect();
        assert_eq!(
            seen,
            [
                ("Ports/Should_pass_(TCP)", true, SuiteOutcome::Failed),
                ("Ports", false, SuiteOutcome::Failed),
                ("Nodes", false, SuiteOutcome::Skipped),
            ]
        );
        assert_eq!(tests[0].log, "    ports.go:7: TIMEOUT\n");
    }

    #[test]
    fn a_report_of_ginkgo_is_read_without_what_was_not_to_run() {
        let report = r#"[{"SpecReports": [
            {"LeafNodeType": "It", "LeafNodeText": "denies", "ContainerHierarchyTexts": ["Netpol", "client"],
             "State": "passed"},
            {"LeafNodeType": "It", "LeafNodeText": "allows", "ContainerHierarchyTexts": ["Netpol"],
             "State": "timedout", "Failure": {"Message": "waited"}},
            {"LeafNodeType": "It", "LeafNodeText": "other", "ContainerHierarchyTexts": null, "State": "skipped"},
            {"LeafNodeType": "ReportAfterSuite", "LeafNodeText": "report", "State": "passed"}]}]"#;
        let tests = of_ginkgo(report).unwrap();
        let seen: Vec<_> = tests
            .iter()
            .map(|test| (test.name.as_str(), test.outcome, test.log.as_str()))
            .collect();
        assert_eq!(
            seen,
            [
                ("Netpol client denies", SuiteOutcome::Passed, ""),
                ("Netpol allows", SuiteOutcome::Failed, "waited"),
            ]
        );
    }
}
