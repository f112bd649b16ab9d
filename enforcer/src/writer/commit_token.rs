//! A token for elements that were in the kernel.

use clock::Time;

/// Says that some elements were in the kernel, and until when all of them stay there unless
/// something is lost. It lets a caller who sees the same answer again skip the look at each
/// element.
///
/// Only the [writer](super) makes one. It is void in a later epoch: after rules were replaced, the
/// table was lost, or the kernel had to be read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitToken {
    pub(super) epoch: u64,
    pub(super) until: Time,
}

impl CommitToken {
    /// The same token, valid until `until` at most.
    pub fn at_most(self, until: Time) -> Self {
        Self {
            until: self.until.min(until),
            ..self
        }
    }
}
