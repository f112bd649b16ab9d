//! What becomes of a packet, and what the policies of one family do to it.

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The packet passes.
    Allow,
    /// The packet is refused.
    Deny,
}

/// What the policies of one family that select one end do to a packet.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FamilyEffect {
    /// What no rule allows is refused.
    pub(crate) closes: bool,
    pub(crate) allows: bool,
    /// A rule lets it through because of what it announces.
    pub(crate) allows_announced: bool,
    pub(crate) denies: bool,
}
