//! Which rules an admission speaks of.

/// Counts installations; an admission names the one whose sets it speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Generation(pub u64);
