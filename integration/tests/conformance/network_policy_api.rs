//! The conformance suite of sigs.k8s.io/network-policy-api, and the tests of `domainNames` that it
//! lacks.

use std::path::Path;

use namegate_integration::suites;

use super::{assert_passed, left, pattern, shared};

/// The tests of the short form: both tiers, directions and nodes, and all protocols are in them.
const SHORT: &str = "^(CNPAdminTierEgressNodePeers|CNPBaselineTierIngressSCTP)$";
const SHORT_OF_DOMAIN_NAMES: &str = "^CNP(Admin|Baseline)TierEgressDomainNames$";

/// Names outside of the cluster, each with an address of the lab's internet.
const RECORDS: [&str; 4] = [
    "conformance.example 60 A 198.51.100.10",
    "www.conformance.example 60 A 198.51.100.11",
    "latest.blog.conformance.example 60 A 198.51.100.12",
    "elsewhere.example 60 A 198.51.100.13",
];

#[test]
fn the_conformance_suite_passes() {
    let Some(node) = shared() else { return };
    let program = suites::programs().unwrap().join("network-policy-api");
    let (tests, all) = pattern(SHORT);
    let mut arguments = vec![
        format!("-test.run=^TestConformanceProfiles$/{tests}"),
        "-all-features".to_owned(),
        // They are there for the next suite, and end with the node.
        "-cleanup-base-resources=false".to_owned(),
        "-conformance-profiles=ClusterNetworkPolicy".to_owned(),
        "-organization=namegate".to_owned(),
        "-project=namegate".to_owned(),
        format!("-version={}", env!("CARGO_PKG_VERSION")),
        "-url=docs/conformance.md".to_owned(),
        "-additional-info=docs/conformance.md".to_owned(),
    ];
    if all {
        // A report of fewer would tell of the others as if they had passed.
        let report = left("network-policy-api.yaml");
        println!("the suite's report is {}", report.display());
        arguments.push(format!("-report-output={}", report.display()));
    }
    let results = suites::run(&node, &program, &arguments, &left("network-policy-api.log"));
    assert_passed(&results, &[]);
}

#[test]
fn domain_names_pass_what_the_suite_would_ask_of_them() {
    let Some(node) = shared() else { return };
    node.lab().resolver().set(&RECORDS).unwrap();
    let program: &Path = &suites::programs().unwrap().join("domain-names");
    let (tests, _) = pattern(SHORT_OF_DOMAIN_NAMES);
    let arguments = [
        format!("-test.run=^TestDomainNames$/{tests}"),
        "-cleanup-base-resources=false".to_owned(),
    ];
    let results = suites::run(&node, program, &arguments, &left("domain-names.log"));
    assert_passed(&results, &[]);
}
