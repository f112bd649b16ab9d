//! How elements are renewed that the kernel holds already.

/// How the timeout of an element that is in the kernel already is extended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The element is added again with timeout and expiration: Linux 6.12 and later.
    Refresh,
    /// The element is deleted and added again in one transaction: works everywhere, and costs more.
    Replace,
}

/// One pass through all elements of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RenewalPass {
    Add,
    Delete,
}

impl Renewal {
    /// The passes that leave every element in the kernel with its new timeout.
    pub(super) fn passes(self) -> &'static [RenewalPass] {
        match self {
            Renewal::Refresh => &[RenewalPass::Add],
            Renewal::Replace => &[RenewalPass::Add, RenewalPass::Delete, RenewalPass::Add],
        }
    }
}
