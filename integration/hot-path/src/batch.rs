//! Set elements as bytes for the kernel.

use std::time::Duration;

use enforcer::bench_harness::ElementAdditions;

use crate::BenchIteration;

/// `COUNT` learned addresses of one set, port 443 over TCP.
pub(crate) fn of<const COUNT: u32>() -> BenchIteration {
    let keys = (0..COUNT).map(|number| {
        let [a, b, c, d] = (0x1400_0000 + number).to_be_bytes();
        let [high, low] = 443_u16.to_be_bytes();
        [a, b, c, d, 6, 0, 0, 0, high, low, 0, 0]
    });
    let additions = ElementAdditions::new("allow4-0123456789abcdef", keys, Duration::from_secs(300));
    Box::new(move || additions.encode("namegate").len())
}
