//! A fast hash of short texts, for the lookup path.
//!
//! It is not keyed. The keys of the tables that use it come from policies, whose authors could slow
//! down only themselves; the names that strangers choose are looked up and never stored.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A hash map keyed by labels, or parts of labels, of patterns.
pub(super) type LabelMap<V> = HashMap<Box<str>, V, BuildHasherDefault<LabelHasher>>;

/// Multiply and rotate, eight octets at a time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LabelHasher(u64);

impl LabelHasher {
    #[inline]
    fn mix(&mut self, word: u64) {
        // An odd constant with well-spread bits (2^64 divided by the golden ratio).
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for LabelHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.mix(u64::from_le_bytes(last));
    }

    #[inline]
    fn write_u8(&mut self, byte: u8) {
        self.mix(byte.into());
    }

    #[inline]
    fn finish(&self) -> u64 {
        // The table takes its bucket from the low bits, which multiplication mixes least.
        self.0 ^ self.0 >> 32
    }
}
