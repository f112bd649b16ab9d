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
    let last_wrong = attempts.iter().rfind(|it| !it.is_right());
    println!(
        "a real Pod: {}; all was right {:.1?} after its process began",
        count(&attempts),
        last_wrong.map(PodAttempt::ended).unwrap_or_default()
    );
    node.delete_pod("web");
}
