//! A policy on a Pod.

use namegate_integration::node::PodAttempt;

use super::{TRIES, count, shared};

#[test]
fn a_real_pod_reaches_the_name_that_its_policy_allows_and_nothing_else() {
    let Some(node) = shared() else { return };
    node.run_pod("web", TRIES);
    node.wait_governed("web");
    let attempts = node.attempts("web");
    // The default of `unknown-pods` leaves a Pod open until its object is read.
    let first_right = attempts
        .iter()
        .rposition(|it| !it.is_right())
        .map_or(0, |last| last + 1);
    println!(
        "web: {}; all right from {:.1?} after its process began, from attempt {governed} on some were",
        count(&attempts),
        attempts[first_right].ended()
    );
    node.delete_pod("web");
}
