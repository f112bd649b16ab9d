//! A ClientHello says the same however it is cut into segments.
#![no_main]

use l7_proxy::{HelloProgress, HelloReader};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 16 << 10;

fuzz_target!(|input: &[u8]| {
    let whole = HelloReader::default().read(input, LIMIT);
    let mut reader = HelloReader::default();
    for end in 0..=input.len() {
        match reader.read(&input[..end], LIMIT) {
            HelloProgress::Incomplete => {}
            decided => {
                // What is wrong, or too long, shows at the same octet or before it.
                if let HelloProgress::Whole(_) = decided {
                    assert_eq!(decided, whole);
                }
                return;
            }
        }
    }
    assert_eq!(whole, HelloProgress::Incomplete);
});
