//! How long tests wait, scaled by one setting.
//!
//! `NAMEGATE_TEST_PATIENCE` is a factor, 1 by default: on a machine that is busy with other work,
//! `NAMEGATE_TEST_PATIENCE=5 ./test` lets every condition take five times as long. What is about
//! time passing (a lease that ends) does not scale.

use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

/// The environment variable with the factor.
const VARIABLE: &str = "NAMEGATE_TEST_PATIENCE";

/// The factor.
///
/// # Panics
/// If the variable is no positive number: a typo must not go unnoticed.
static FACTOR: LazyLock<f64> = LazyLock::new(|| match std::env::var(VARIABLE) {
    Err(_) => 1.0,
    Ok(text) => match text.parse() {
        Ok(factor) if factor > 0.0 && f64::is_finite(factor) => factor,
        _ => panic!("{VARIABLE} is a positive number, and not {text:?}"),
    },
});

/// How long a test waits for what usually takes far less than `usual`. Only failures take so long,
/// so `usual` is generous.
pub fn scaled(usual: Duration) -> Duration {
    usual.mul_f64(*FACTOR)
}

/// Asks every `pause` whether a condition holds, and says how long that took; `None` if it did not
/// hold within `usual`, scaled.
pub fn wait(usual: Duration, pause: Duration, mut condition: impl FnMut() -> bool) -> Option<Duration> {
    let begun = Instant::now();
    let limit = scaled(usual);
    loop {
        if condition() {
            return Some(begun.elapsed());
        }
        if begun.elapsed() >= limit {
            return None;
        }
        thread::sleep(pause);
    }
}

/// Prints how long something took, and fails only after `limit`, scaled.
///
/// Give a limit that a loaded machine keeps to as well: what is usual is what is printed.
///
/// # Panics
/// If it took longer.
#[track_caller]
#[expect(clippy::print_stdout, reason = "the figures are part of what tests show")]
pub fn assert_took(what: &str, took: Duration, limit: Duration) {
    println!("{what}: {took:?}");
    assert!(took < scaled(limit), "{what}: {took:?}");
}
