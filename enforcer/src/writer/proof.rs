//! The proof that an answer is released against.

/// Proof that the kernel holds the elements of an admission. Only the [writer](super) can make one,
/// out of an acknowledged transaction.
#[derive(Debug)]
#[must_use = "an answer is released against this proof"]
pub struct Committed(());

impl Committed {
    /// Call this only when the kernel has acknowledged every element of the admission.
    pub(super) fn acknowledged() -> Self {
        Self(())
    }
}
