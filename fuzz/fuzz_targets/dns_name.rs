#![no_main]

#[allow(dead_code)]
#[path = "../../policy/tests/corpus/exercise.rs"]
mod exercise;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| exercise::dns_name(bytes));
