#![no_main]

#[allow(dead_code)]
#[path = "../../policy/tests/corpus/exercise.rs"]
mod exercise;

libfuzzer_sys::fuzz_target!(|text: &str| exercise::name_pattern(text));
