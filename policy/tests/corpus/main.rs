//! The fuzz targets' corpus through the functions that these call: what was found once stays found,
//! with plain `cargo test`.

// Clippy's exceptions for tests do not reach the functions that they share.
#![allow(clippy::unwrap_used)]

mod exercise;

use std::fs;
use std::path::PathBuf;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

#[test]
fn no_policy_of_the_corpus_brings_anything_down() {
    corpus("policy_yaml")
        .iter()
        .for_each(|bytes| exercise::policy_yaml(&String::from_utf8_lossy(bytes)));
}

#[test]
fn no_pattern_of_the_corpus_brings_anything_down() {
    corpus("name_pattern")
        .iter()
        .for_each(|bytes| exercise::name_pattern(&String::from_utf8_lossy(bytes)));
}

#[test]
fn no_name_of_the_corpus_brings_anything_down() {
    corpus("dns_name").iter().for_each(|bytes| exercise::dns_name(bytes));
}
