//! The specs of NetworkPolicy among Kubernetes' end-to-end tests.

use namegate_integration::suites;

use super::{assert_passed, left, pattern, shared};

/// The spec of the short form.
const SHORT: &str = "should allow egress access on one named port";

#[test]
fn the_specs_of_kubernetes_pass() {
    let Some(node) = shared() else { return };
    let program = suites::programs().unwrap().join("netpol");
    let (specs, all) = pattern(SHORT);
    let mut arguments = vec![
        "--provider=local".to_owned(),
        format!("--kubeconfig={}", node.control.admin_kubeconfig().display()),
        // Both nodes are schedulable from the start.
        "--allowed-not-ready-nodes=0".to_owned(),
    ];
    if all {
        arguments.push("-ginkgo.label-filter=Feature: containsAny NetworkPolicy".to_owned());
    } else {
        arguments.push(format!("-ginkgo.focus={specs}"));
    }
    let results = suites::run_specs(&node, &program, &arguments, &left("netpol.log"));
    assert_passed(&results, &[]);
}
