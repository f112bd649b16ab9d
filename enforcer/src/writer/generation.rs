//! The number of an installation.

/// Counts installations. An admission names the generation whose sets its elements are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Generation(pub u64);
