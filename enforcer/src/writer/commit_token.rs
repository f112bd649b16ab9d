//! What can be relied on again without a look into the book.

use clock::Time;

/// That some elements were in the kernel, and until when each of them stays unless something is
/// lost.
///
/// Only the [writer](super) makes one. It is worth nothing once the epoch has changed: rules were
/// replaced, the table was lost, or the kernel had to be read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitToken {
    pub(super) epoch: u64,
    pub(super) until: Time,
}

impl CommitToken {
    /// As this one, and until `until` at the latest.
    pub fn at_most(self, until: Time) -> Self {
        Self {
            until: self.until.min(until),
            ..self
        }
    }
}
